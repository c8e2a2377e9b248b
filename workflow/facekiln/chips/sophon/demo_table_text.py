"""The table of SOPHON files as CSV, Markdown and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from facekiln.artifact import write_text
from facekiln.chips.sophon.demo_table import DemoTable, Row
from facekiln.evaluation.page import page_html, rich, table_html
from facekiln.evaluation.stamp import RESULTS
from facekiln.evaluation.tables_text import markdown_table


def to_csv(table: DemoTable) -> str:
    """Return the table as CSV: accuracy 0..1, drops in points, memory in bytes, times in ms a picture."""
    groups = [(name, RESULTS[stamp.task]) for name, stamp in table.protocols.items()]
    programs = table.demo.programs if table.demo else []
    header = ["model", "size", "chip", "precision", "batch", "cores", "file_bytes"]
    header += ["cosine_to_float", "sqnr_to_float_db", "simulated_cosine"]
    header += ["parity_by", "parity_cosine", "max_error_of_scale", "faces_found", "parity"]
    for name, figures in groups:
        header += [f"{name} {figure}" for figure in figures] + [f"{name} {figure} drop" for figure in figures]
        header += [f"{name} protocol"]
    header += ["device_bytes", "weight_bytes", "command_bytes", "activation_bytes"]
    header += ["compiler_estimate_ms_per_picture", "compiler_estimate_by"]
    if table.demo:
        header += [f"published_wider_easy {program}" for program in programs]
        header += ["published_bmrt_test_ms_per_picture", "published_by"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        writer.writerow(_csv_cells(table, row, groups, programs))
    return stream.getvalue()


def _csv_cells(
    table: DemoTable, row: Row, groups: Sequence[tuple[str, Sequence[str]]], programs: Sequence[str]
) -> list[object]:
    artifact, like, checks = row.artifact, row.similarity, row.checks
    cells: list[object] = [artifact.model, artifact.size, artifact.chip, artifact.precision, artifact.batch]
    cells += [artifact.cores, row.bytes]
    if checks:
        cells += [f"{checks.cosine:.6f}", f"{checks.sqnr:.2f}", f"{checks.simulated:.6f}"]
    else:
        cells += [""] * 3
    if like:
        found = "" if like.found is None else f"{like.found:.4f}"
        cells += [like.reader, f"{like.cosine:.6f}", f"{like.max_rel:.3e}", found]
        cells += ["passed" if like.passed else "FAILED"]
    else:
        cells += [""] * 5
    for name, figures in groups:
        evaluation, lost = row.evaluations.get(name), row.drops.get(name, {})
        cells += [f"{evaluation.results[figure]:.6f}" if evaluation else "" for figure in figures]
        cells += [f"{lost[figure]:.3f}" if figure in lost else "" for figure in figures]
        cells += [table.protocols[name].id() if evaluation else ""]
    memory = row.memory
    cells += [memory.device, memory.weight, memory.instruct, memory.runtime]
    cells += ["" if row.estimate is None else f"{row.estimate:.4f}", row.release or ""]
    if table.demo:
        easy = row.demo.easy if row.demo else {}
        cells += [f"{easy[program]:.3f}" if program in easy else "" for program in programs]
        time = row.demo.milliseconds if row.demo else None
        cells += ["" if time is None else f"{time:.2f}", table.demo.source if row.demo else ""]
    return cells


def _cells(table: DemoTable) -> tuple[list[str], list[list[str]], list[str]]:
    """Return header, rows and names of the columns that are set right."""
    groups = [(name, RESULTS[stamp.task]) for name, stamp in table.protocols.items()]
    programs = table.demo.programs if table.demo else []
    text = ["chip", "precision"]
    header = [*text, "batch", "cores", "file, bytes", "cosine", "SQNR, dB", "C model, cosine"]
    if _has_parity(table):
        header += ["parity: cosine", "max error", "faces found"]
    for name, figures in groups:
        header += [f"{name}: {' / '.join(figures)}"] + ["drop, points"] * (name in table.references)
    header += ["device memory, bytes", "compiler estimate, ms"]
    if table.demo:
        header += [f"published: WIDER easy, {program}" for program in programs]
        header += ["published: bmrt_test, ms"]
    rows = [_row_cells(table, row, groups, programs) for row in table.rows]
    return header, rows, [name for name in header if name not in text]


def _has_parity(table: DemoTable) -> bool:
    return any(row.similarity for row in table.rows)


def _row_cells(
    table: DemoTable, row: Row, groups: Sequence[tuple[str, Sequence[str]]], programs: Sequence[str]
) -> list[str]:
    artifact, like, checks = row.artifact, row.similarity, row.checks
    cells = [artifact.chip, artifact.precision, str(artifact.batch), str(artifact.cores), f"{row.bytes:,}"]
    if checks:
        cells += [f"{checks.cosine:.5f}", f"{checks.sqnr:.1f}", f"{checks.simulated:.5f}"]
    else:
        cells += ["", "", ""]
    if like:
        failed = "" if like.passed else " **FAILED**"
        found = "" if like.found is None else f"{100 * like.found:.1f} %"
        cells += [f"{like.cosine:.5f}{failed}", f"{like.max_rel:.1e}", found]
    elif _has_parity(table):
        cells += ["", "", ""]
    for name, figures in groups:
        evaluation, lost = row.evaluations.get(name), row.drops.get(name, {})
        cells.append(" / ".join(f"{evaluation.results[key]:.4f}" for key in figures) if evaluation else "")
        if name in table.references:
            cells.append(" / ".join(f"{lost[key]:.2f}" for key in figures) if lost else "")
    cells.append(f"{row.memory.device:,}")
    cells.append("" if row.estimate is None else f"{row.estimate:.3f}")
    if table.demo:
        easy = row.demo.easy if row.demo else {}
        cells += [f"{easy[program]:.3f}" if program in easy else "" for program in programs]
        time = row.demo.milliseconds if row.demo else None
        cells.append("" if time is None else f"{time:.2f}")
    return cells


def _feet(table: DemoTable) -> list[str]:
    likes = [row.similarity for row in table.rows if row.similarity]
    releases = sorted({row.release for row in table.rows if row.release})
    feet = [
        f"Model `{table.settings.model}`, size {table.settings.size}, weights: {table.weights}. Times are a "
        "picture's. Empty: not run, or not published."
    ]
    if any(row.checks for row in table.rows):
        feet.append(
            "Cosine and SQNR: the quantised model against the float one; C model: the file in the chip's "
            "simulator against the quantised model; the least over the outputs, on the pictures that the "
            "compilation checks with."
        )
    if likes:
        readers = ", ".join(sorted({f"`{like.reader}`" for like in likes}))
        feet.append(
            f"Parity (cosine, max error as a share of the output's scale, faces found): the file in {readers}"
            " against the float ONNX file, the worst of all outputs and pictures."
        )
    for name, stamp in table.protocols.items():
        feet.append(f"{name}: protocol `{stamp.id()}`: {stamp.words()}.")
        backends = sorted(
            {row.evaluations[name].subject["backend"] for row in table.rows if name in row.evaluations}
        )
        if backends:
            feet.append(
                f"{name}: SIMULATED in {', '.join(f'`{one}`' for one in backends)}; no chip was used."
            )
        if name in table.references:
            reference = table.references[name]
            figures = " / ".join(f"{reference.results[key]:.4f}" for key in RESULTS[stamp.task])
            feet.append(
                f"{name}: drop against `{reference.subject['artifact']}` in ONNX Runtime, {figures}; "
                "negative is a gain."
            )
    feet.append(
        "Device memory: weights, commands and activations of the file, as `facekiln sophon inspect` adds."
    )
    if releases:
        feet.append(
            f"Compiler estimate: the schedule of {', '.join(releases)}, a model's figure and no measurement; "
            "other releases differ by up to 27 % on one network."
        )
    if table.demo:
        feet.append(
            f"Published: {table.demo.words}. Another protocol than any column of ours, and no sha256 of its "
            f"weights is stated: not comparable. {table.demo.source}"
        )
    return feet


def to_markdown(table: DemoTable) -> str:
    """Return the table as Markdown, with its protocols and notes below it."""
    header, rows, numeric = _cells(table)
    parts = [f"# {table.settings.title}", markdown_table(header, rows, numeric), *_feet(table)]
    return "\n\n".join(parts) + "\n"


def to_html(table: DemoTable) -> str:
    """Return the table as one page without scripts and without anything loaded from elsewhere."""
    header, rows, numeric = _cells(table)
    parts = [table_html(header, rows, numeric=numeric), *(f"<p>{rich(foot)}</p>" for foot in _feet(table))]
    return page_html(table.settings.title, parts)


def write_demo_table(prefix: Path, table: DemoTable) -> list[Path]:
    """Write `{prefix}.csv`, `.md` and `.html`, and return them."""
    written = []
    for ending, text in ((".csv", to_csv(table)), (".md", to_markdown(table)), (".html", to_html(table))):
        written.append(prefix.with_name(prefix.name + ending))
        write_text(written[-1], text)
    return written
