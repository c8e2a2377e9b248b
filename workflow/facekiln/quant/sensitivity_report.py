"""The sensitivity table as CSV and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from facekiln.artifact import atomic_path
from facekiln.quant.sensitivity import Layer

_SHOWN = 40


def sensitivity_csv(layers: Sequence[Layer]) -> str:
    """Return the table with a header: SQNR and cosine per output, and the agreement of faces."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    outputs, faces = list(layers[0].closeness.sqnr_db), list(layers[0].closeness.faces)
    points = list(layers[0].closeness.points)
    rows.writerow(
        [
            *("node", "op", "tensor"),
            *(f"sqnr_db {name}" for name in outputs),
            *(f"cosine {name}" for name in outputs),
            *(f"faces {name}" for name in faces),
            *(f"points {name}" for name in points),
        ]
    )
    for layer in layers:
        figures = layer.closeness
        rows.writerow(
            [
                *(layer.node, layer.op, layer.tensor),
                *(f"{figures.sqnr_db[name]:.2f}" for name in outputs),
                *(f"{figures.cosine[name]:.6f}" for name in outputs),
                *(f"{figures.faces[name]:.4f}" for name in faces),
                *(f"{figures.points[name]:.4f}" for name in points),
            ]
        )
    return text.getvalue()


def draw_sensitivity(layers: Sequence[Layer], path: Path, title: str) -> None:
    """Write a PNG of bars: the least SQNR of each layer quantised alone, worst on top, at most 40 of them.

    Raises:
        KilnError: the disk is full.
    """
    from matplotlib.figure import Figure

    shown = list(layers[: _SHOWN + 1])
    figure = Figure(figsize=(9, 1.2 + 0.22 * len(shown)), dpi=110)
    axes = figure.subplots()
    places = range(len(shown))
    axes.barh(
        places,
        [layer.closeness.least_sqnr() for layer in shown],
        color=["#8c2d04" if not layer.op else "#2b6c9f" for layer in shown],
    )
    axes.set_yticks(places, [_short(layer.node) for layer in shown], fontsize=7)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel("least SQNR of all outputs, dB (shorter is worse)")
    hidden = len(layers) - len(shown)
    axes.set_title(title + (f"; {hidden} less sensitive layers not shown" if hidden else ""), fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    with atomic_path(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def _short(name: str, most: int = 46) -> str:
    return name if len(name) <= most else f"...{name[3 - most :]}"


def sensitivity_text(layers: Sequence[Layer], most: int = 10) -> str:
    """Return the worst layers for a person."""
    lines = ["  least dB  layer (SIMULATED int8)"]
    for layer in layers[: most + 1]:
        faces, points = layer.closeness.faces, layer.closeness.points
        effect = ""
        if faces:
            effect = "  found {found:.3f}, invented {invented:.3f}, IoU {mean_iou:.3f}".format(**faces)
        if points:
            effect = "  points moved {mean_px:.2f} px, worst {worst_px:.2f} px".format(**points)
        lines.append(f"  {layer.closeness.least_sqnr():8.2f}  {layer.node:<48}{effect}")
    return "\n".join(lines)
