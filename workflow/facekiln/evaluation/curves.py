"""Curves of evaluations of one protocol in one picture: precision over recall, or the CED curve."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import atomic_path
from facekiln.errors import KilnError
from facekiln.evaluation.stamp import RESULTS, Evaluation
from facekiln.evaluation.tables import LESS_IS_BETTER, one_protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
# Stages that agree lie on each other: dashes let both be seen.
_DASHES = ("-", "--", "-.", ":")


def curves_of(evaluation: Evaluation) -> Path:
    """Return the path of an evaluation's curves: `X.json` -> `X.curves.npz`."""
    return evaluation.path.with_suffix(".curves.npz")


def read_curves(evaluation: Evaluation) -> dict[str, tuple[Floats, Floats]]:
    """Return the curves of an evaluation by title: x and y.

    WIDER FACE has one of recall and precision per setting, VOC one, landmarks one of error limit and share.

    Raises:
        KilnError: its curves file is missing or damaged.
    """
    path = curves_of(evaluation)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if evaluation.stamp.task == "landmarks":
            return {"": (arrays["limits"], arrays["shares"])}
        if evaluation.stamp.task == "voc_ap":
            return {"": (arrays["recall"], arrays["precision"])}
        names = [str(name) for name in arrays["settings"]]
        return {
            name: (arrays["recall"][index], arrays["precision"][index]) for index, name in enumerate(names)
        }
    except OSError as error:
        raise KilnError(
            f"cannot be read: {error.strerror or error}",
            file=path,
            hint="evaluate again with --curves, or by its rule",
        ) from error
    except (ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise KilnError(f"holds no curves of '{evaluation.stamp.task}': {error}", file=path) from error


def draw_curves(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Draw the curves of evaluations of one protocol into a PNG, the same to the byte for the same figures.

    Raises:
        KilnError: mixed protocols, or curves that are missing.
    """
    from matplotlib.figure import Figure

    stamp = one_protocol(evaluations)
    curves = [read_curves(evaluation) for evaluation in evaluations]
    titles = list(curves[0])
    figure = Figure(figsize=(1.0 + 5.0 * len(titles), 5.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    for panel, title in zip(panels, titles, strict=True):
        for index, (evaluation, own) in enumerate(zip(evaluations, curves, strict=True)):
            _draw(panel, own[title], _label(evaluation, title), _DASHES[index % len(_DASHES)])
        _dress(panel, title, stamp.task)
    figure.suptitle(f"{stamp.dataset}, protocol {stamp.id()}", fontsize=10)
    with atomic_path(path) as part, part.open("wb") as stream:
        # Without this, matplotlib writes its own version into the file.
        figure.savefig(stream, format="png", metadata={"Software": None})


def _label(evaluation: Evaluation, title: str) -> str:
    subject = evaluation.subject
    name = title or RESULTS[evaluation.stamp.task][0]
    mark = " VIRTUAL" if subject.get("virtual") else " EMULATED" if subject["emulated"] else ""
    value = evaluation.results[name]
    figure = f"{value:.5f}" if name in LESS_IS_BETTER else f"{value:.4f}"
    return f"{figure}  {subject['artifact']} ({subject['backend']}{mark})"


def _draw(panel: Axes, curve: tuple[Floats, Floats], label: str, dash: str) -> None:
    x, y = curve
    finite = np.isfinite(x) & np.isfinite(y)
    panel.plot(x[finite], y[finite], label=label, linewidth=1.4, linestyle=dash)


def _dress(panel: Axes, title: str, task: str) -> None:
    settings: dict[str, Any] = {"ylim": (0, 1.02), "title": title}
    if task == "landmarks":
        settings |= {"xlabel": "normalised error", "ylabel": "share of faces"}
    else:
        settings |= {"xlabel": "recall", "ylabel": "precision", "xlim": (0, 1.02)}
    panel.set(**settings)
    panel.grid(visible=True, alpha=0.3)
    panel.legend(loc="lower right" if task == "landmarks" else "lower left", fontsize=7)
