"""Latency of artifacts on boards as a table, with accuracy beside it and dominated variants marked.

A record and an evaluation belong together where they are of the same bytes (sha256 of the artifact), whatever
the files are called.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from facekiln.boards.verdict import NOISY, Variant, dominated
from facekiln.errors import KilnError
from facekiln.evaluation.stamp import Evaluation
from facekiln.evaluation.tables_text import markdown_table

# Figures of which less is better; see facekiln.evaluation.stamp.RESULTS.
_LESS_IS_BETTER = ("nme", "failure_rate")


@dataclass(frozen=True)
class LatencyRow:
    """One measurement.

    Attributes:
        record: as `read_bench` gives it.
        evaluation: of the same bytes, None where there is none.
        dominated_by: the artifact that is surely faster and nowhere less accurate.
    """

    record: Mapping[str, Any]
    evaluation: Evaluation | None = None
    dominated_by: str | None = None

    @property
    def mark(self) -> str:
        """What a reader must not overlook."""
        marks = ["VIRTUAL"] if self.record["virtual"] else []
        return ", ".join([*marks, *([] if self.record["verdict"] == "steady" else [self.record["verdict"]])])


def rows_of(records: Sequence[Mapping[str, Any]], evaluations: Sequence[Evaluation] = ()) -> list[LatencyRow]:
    """Return a row per record, in their order, with accuracy and dominance.

    Raises:
        KilnError: two evaluations of the same artifact, or two records of one artifact on one board.
    """
    by_hash: dict[str, Evaluation] = {}
    for evaluation in evaluations:
        digest = evaluation.subject["artifact_sha256"]
        if digest in by_hash:
            raise KilnError(
                f"is of the same artifact as {by_hash[digest].path}",
                file=evaluation.path,
                hint="give one evaluation of each artifact, all of one protocol",
            )
        by_hash[digest] = evaluation
    seen = set()
    for record in records:
        key = (record["board"], record["artifact"], record["tool"], record["artifact_sha256"])
        if key in seen:
            raise KilnError("two records of one artifact on one board", value=f"{key[0]}: {key[1]}")
        seen.add(key)
    rows = [LatencyRow(record, by_hash.get(record["artifact_sha256"])) for record in records]
    return _with_dominance(rows)


def _with_dominance(rows: list[LatencyRow]) -> list[LatencyRow]:
    """Mark what another variant of the same model on the same board beats; noisy figures beat nobody."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, row in enumerate(rows):
        record = row.record
        interval = record["result"]["interval_95_ms"]
        if row.evaluation is not None and interval is not None and record["verdict"] != NOISY:
            kind = (record["board"], record["virtual"], record["measures"], row.evaluation.subject["model"])
            groups.setdefault(kind, []).append(index)
    marked = list(rows)
    for members in groups.values():
        variants = {str(index): _variant(rows[index], str(index)) for index in members}
        for name, better in dominated(list(variants.values())).items():
            by = rows[int(better)].record["artifact"]
            marked[int(name)] = replace(rows[int(name)], dominated_by=by)
    return marked


def _variant(row: LatencyRow, name: str) -> Variant:
    assert row.evaluation is not None
    interval, batch = row.record["result"]["interval_95_ms"], row.record["batch"]
    quality = tuple(
        -value if figure in _LESS_IS_BETTER else value
        for figure, value in sorted(row.evaluation.results.items())
    )
    return Variant(
        name, interval["low"] / batch, interval["high"] / batch, quality, row.evaluation.stamp.id()
    )


def _figures(rows: Sequence[LatencyRow]) -> list[str]:
    return sorted({name for row in rows if row.evaluation for name in row.evaluation.results})


def to_csv(rows: Sequence[LatencyRow]) -> str:
    """Return the table as CSV: milliseconds, images per second, accuracy as in the evaluations."""
    names = _figures(rows)
    header = ["board", "artifact", "batch", "verdict", "virtual", "latency_ms", "low_ms", "high_ms"]
    header += [
        "per_image_ms",
        "images_per_second",
        "p90_ms",
        "p95_ms",
        "p99_ms",
        "tool",
        "tool_version",
        "measures",
    ]
    header += [*names, "protocol", "dominated_by"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        record, result = row.record, row.record["result"]
        interval = result["interval_95_ms"] or {}
        percentiles = result["over_all_runs_ms"].get("percentiles", {})
        figures = row.evaluation.results if row.evaluation else {}
        writer.writerow(
            [
                *(record[key] for key in ("board", "artifact", "batch", "verdict")),
                str(record["virtual"]).lower(),
                f"{result['latency_ms']:.4f}",
                *(f"{interval[end]:.4f}" if end in interval else "" for end in ("low", "high")),
                f"{result['per_image_ms']:.4f}",
                f"{result['images_per_second']:.2f}",
                *(
                    f"{percentiles[level]:.4f}" if level in percentiles else ""
                    for level in ("90", "95", "99")
                ),
                record["tool"],
                record["tool_version"] or "",
                record["measures"],
                *(f"{figures[name]:.6f}" if name in figures else "" for name in names),
                row.evaluation.stamp.id() if row.evaluation else "",
                row.dominated_by or "",
            ]
        )
    return stream.getvalue()


def to_markdown(rows: Sequence[LatencyRow], title: str = "Latency") -> str:
    """Return the table as Markdown, with what it means below."""
    names = _figures(rows)
    numeric = ["batch", "ms per image", "95 %", "p99 ms", "images/s", *names]
    header = ["board", "artifact", *numeric, "tool", "mark"]
    cells = []
    for row in rows:
        record, result = row.record, row.record["result"]
        interval, half = result["interval_95_ms"], ""
        if interval is not None:
            half = f"±{(interval['high'] - interval['low']) / 2 / result['latency_ms']:.1%}"
        p99 = result["over_all_runs_ms"].get("percentiles", {}).get("99")
        figures = row.evaluation.results if row.evaluation else {}
        marks = [f"**{row.mark}**"] if row.mark else []
        marks += [f"DOMINATED by `{row.dominated_by}`"] if row.dominated_by else []
        cells.append(
            [
                record["board"],
                f"`{record['artifact']}`",
                str(record["batch"]),
                f"{result['per_image_ms']:.3f}",
                half,
                "" if p99 is None else f"{p99:.2f}",
                f"{result['images_per_second']:.1f}",
                *(f"{figures[name]:.4f}" if name in figures else "" for name in names),
                record["tool"],
                "; ".join(marks),
            ]
        )
    feet = [
        "95 %: half the confidence interval of the latency over repeats; p99 over all runs, of one batch."
    ]
    kinds = sorted({(row.record["tool"], row.record["measures"]) for row in rows})
    feet += [f"{tool}: {measures}." for tool, measures in kinds]
    if any(row.record["virtual"] for row in rows):
        feet.append("VIRTUAL: a stand-in ran instead of the chip; the figure says nothing about it.")
    if any(row.record["verdict"] == NOISY for row in rows):
        feet.append(f"{NOISY}: the board was too unsteady; do not quote the figure.")
    if any(row.dominated_by for row in rows):
        feet.append("DOMINATED: another variant is surely faster on this board and nowhere less accurate.")
    protocols = {row.evaluation.stamp.id(): row.evaluation.stamp for row in rows if row.evaluation}
    feet += [f"Accuracy `{name}`: {stamp.words()}." for name, stamp in protocols.items()]
    return "\n\n".join([f"# {title}", markdown_table(header, cells, numeric), *feet]) + "\n"
