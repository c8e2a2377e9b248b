"""Pages of tables for the report: no scripts, nothing loaded from elsewhere, the same bytes every time."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence

_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left}th{background:#f2f2f2}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}b{color:#b00}p{max-width:70em}"
)


def page_html(title: str, parts: Sequence[str]) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        parts: pieces of HTML.
    """
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *parts])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Collection[str] = ()) -> str:
    """Return a table; columns named in `numeric` are set right. Cells may have the marks of `rich`."""
    lines = ["<table><thead><tr>" + "".join(f"<th>{rich(name)}</th>" for name in header)]
    lines.append("</tr></thead><tbody>")
    for cells in rows:
        marked = (
            f'<td class="n">{rich(cell)}</td>' if name in numeric else f"<td>{rich(cell)}</td>"
            for name, cell in zip(header, cells, strict=True)
        )
        lines.append(f"<tr>{''.join(marked)}</tr>")
    lines.append("</tbody></table>")
    return "\n".join(lines)


def rich(text: str) -> str:
    """Escape a text, with two marks of Markdown: `code`, which becomes plain, and **bold**."""
    parts = html.escape(text).replace("`", "").split("**")
    return "".join(f"<b>{part}</b>" if index % 2 else part for index, part in enumerate(parts))
