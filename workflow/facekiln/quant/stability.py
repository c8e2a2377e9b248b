"""How far thresholds depend on the pictures: two disjoint draws, and ever more pictures of one draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import atomic_path, sha256_of
from facekiln.config import DEFAULT_FOLDER, Model
from facekiln.data.calibration import Pool, gather
from facekiln.data.calibration_pool import fit_sample
from facekiln.data.calibration_strata import even_draw
from facekiln.errors import KilnError
from facekiln.progress import log
from facekiln.quant.collect import Spread, collect
from facekiln.quant.names import METHODS
from facekiln.quant.run import Pictures
from facekiln.quant.thresholds import folded, thresholds
from facekiln.vision.preprocess import to_tensor

# A size is enough where the median tensor's threshold is within this of the largest set's [our judgement]:
# int8's own step is 1/127 of the range, and clipping 5 % off costs less than half a bit.
SETTLED = 0.05


def relative_difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |a - b| / max(a, b) per tensor, 0 where both are zero; 0..1 for thresholds, which are >= 0."""
    larger = np.maximum(one, other)
    return np.divide(np.abs(one - other), larger, out=np.zeros_like(larger), where=larger > 0)


def thresholds_of_set(
    spread: Spread, at: int, members: Sequence[int], percentile: float
) -> NDArray[np.float64]:
    """Return float64 [methods, tensors]: the thresholds by the pictures of one set alone.

    Bins are those of the whole spread; no threshold is above the set's own largest magnitude.

    Args:
        spread: collected over all sets.
        at: the set's number.
        members: its pictures.
        percentile: for that method.
    """
    rows = list(members)
    tops = np.maximum(np.abs(spread.lows[rows]).max(axis=0), np.abs(spread.highs[rows]).max(axis=0))
    found = np.empty((len(METHODS), len(spread.tensors)))
    for index, top in enumerate(spread.tops().tolist()):
        by_method = thresholds(folded(spread.counts[at, index]), top, percentile)
        found[:, index] = [min(by_method[name], float(tops[index])) for name in METHODS]
    return found


def _summary(
    spread: Spread, one: NDArray[np.float64], other: NDArray[np.float64]
) -> dict[str, dict[str, Any]]:
    """Return, per method, the median and worst relative difference and the worst tensor."""
    report = {}
    for method, a, b in zip(METHODS, one, other, strict=True):
        apart = relative_difference(a, b)
        worst = int(apart.argmax())
        report[method] = {
            "median": round(float(np.median(apart)), 6),
            "p90": round(float(np.percentile(apart, 90)), 6),
            "worst": round(float(apart[worst]), 6),
            "worst_tensor": spread.tensors[worst].name,
        }
    return report


def _inputs(pool: Pool, chosen: Sequence[int], model: Model, label: str) -> Pictures:
    """Return chosen pictures as input tensors; they are read again in each pass, so that none is held."""
    size = model.size(label)

    def make(index: int) -> NDArray[np.float32]:
        sample = pool.looked[chosen[index]].sample
        return to_tensor(fit_sample(sample, sample.load(), size, model.input.resize, model.crop), model.input)

    return Pictures(len(chosen), make)


def _two_draws(pool: Pool, count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return two draws that share no picture, both even over the strata and of equal size."""
    count = min(count, len(pool.looked) // 2)
    first = pool.draw(count, seed)
    rest = [index for index in range(len(pool.looked)) if index not in set(first)]
    second = even_draw([pool.strata[index] for index in rest], count, seed)
    return first, [rest[index] for index in second]


def stability(
    onnx_path: Path,
    model: Model,
    label: str,
    *,
    source: str,
    count: int,
    seed: int,
    strata: Sequence[str],
    exclude: Sequence[str],
    sizes: Sequence[int],
    percentile: float,
    config: Path | str = DEFAULT_FOLDER,
) -> dict[str, Any]:
    """Measure how far thresholds differ between two disjoint draws, and between sizes of one draw.

    Args:
        onnx_path: simplified ONNX.
        model: of it.
        label: the size's label.
        source, seed, strata, exclude, config: see `facekiln.data.calibration.make_calibration`.
        count: pictures of each of the two draws; fewer where the source has not twice as many.
        sizes: of the study; those beyond what the source has are left out.
        percentile: for the method of that name.

    Returns:
        The report for JSON: `draws` (per method median, 90th percentile and worst relative difference),
        `sizes` (the same of each size against the largest), `enough` (per method the least size from which
        the median is within `SETTLED`), what was looked at.

    Raises:
        KilnError: fewer than two pictures, or see `gather` and `collect`.
    """
    from facekiln.graph.export import load_onnx

    network = load_onnx(onnx_path)
    pool = gather(
        model,
        label,
        source=source,
        count=max(2 * count, *sizes),
        seed=seed,
        strata=strata,
        exclude=exclude,
        config=config,
    )
    if len(pool.looked) < 2:
        raise KilnError("has too few pictures for two draws", file=source, value=len(pool.looked), limit=2)
    studied = sorted({size for size in sizes if 1 <= size <= len(pool.looked)}) or [len(pool.looked)]
    first, second = _two_draws(pool, count, seed)
    if len(first) < count or len(studied) < len(set(sizes)):
        log.warning(
            "stability: %s gives %d pictures; two draws of %d, sizes %s",
            pool.source.name,
            len(pool.looked),
            len(first),
            studied,
        )
    nested = [pool.draw(size, seed) for size in studied]
    chosen = list(dict.fromkeys([*first, *second, *nested[-1]]))
    place = {index: at for at, index in enumerate(chosen)}
    sets = [[place[index] for index in one] for one in (first, second, *nested)]
    spread = collect(network, _inputs(pool, chosen, model, label), sets=sets, what="stability")
    found = [thresholds_of_set(spread, at, members, percentile) for at, members in enumerate(sets)]
    by_size = [
        {"pictures": size, "methods": _summary(spread, row, found[-1])}
        for size, row in zip(studied, found[2:], strict=True)
    ]
    return {
        "model": model.name,
        "size": label,
        "artifact_sha256": sha256_of(onnx_path),
        "source": source,
        "seed": seed,
        "strata": pool.factors,
        **pool.record(),
        "tensors": len(spread.tensors),
        "percentile": percentile,
        "draws": {"pictures": len(first), "methods": _summary(spread, found[0], found[1])},
        "sizes": by_size,
        "settled": SETTLED,
        "enough": {method: _enough(by_size, method) for method in METHODS},
    }


def _enough(by_size: Sequence[Mapping[str, Any]], method: str) -> int | None:
    """Return the least size below the largest from which on the median is within `SETTLED`, if any is."""
    within = None
    for row in reversed(by_size[:-1]):
        if row["methods"][method]["median"] > SETTLED:
            break
        within = int(row["pictures"])
    return within


def stability_text(report: Mapping[str, Any]) -> str:
    """Return the report for a person."""
    draws = report["draws"]
    lines = [f"two disjoint draws of {draws['pictures']} pictures ({report['source']}):"]
    for method, row in draws["methods"].items():
        lines.append(
            f"  {method:<10} median {100 * row['median']:5.1f} %  90th percentile {100 * row['p90']:5.1f} %"
            f"  worst {100 * row['worst']:5.1f} % ({row['worst_tensor']})"
        )
    largest = report["sizes"][-1]["pictures"]
    lines.append(f"change of the median tensor against {largest} pictures:")
    for row in report["sizes"][:-1]:
        changes = "  ".join(f"{name} {100 * one['median']:5.1f} %" for name, one in row["methods"].items())
        lines.append(f"  {row['pictures']:>4} pictures: {changes}")
    enough = ", ".join(f"{name} {size or f'{largest} or more'}" for name, size in report["enough"].items())
    lines.append(f"enough (median within {100 * report['settled']:g} %): {enough}")
    return "\n".join(lines)


def draw_stability(report: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: per method, median and worst change by the number of pictures, and that of the two draws.

    Raises:
        KilnError: the disk is full.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), dpi=110)
    median, worst = figure.subplots(1, 2)
    rows, draws = report["sizes"][:-1], report["draws"]
    for axes, key, title in ((median, "median", "median tensor"), (worst, "worst", "worst tensor")):
        for number, method in enumerate(METHODS):
            sizes = [row["pictures"] for row in rows]
            axes.plot(
                sizes,
                [100 * row["methods"][method][key] for row in rows],
                marker="o",
                color=f"C{number}",
                label=method,
            )
            axes.plot(
                [draws["pictures"]],
                [100 * draws["methods"][method][key]],
                marker="x",
                color=f"C{number}",
                ms=9,
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("pictures")
        axes.set_title(f"{title}; x: two disjoint draws", fontsize=9)
        axes.grid(alpha=0.3)
    median.set_ylabel(f"change of the threshold against {report['sizes'][-1]['pictures']} pictures, %")
    median.legend(fontsize=8)
    figure.suptitle(f"{report['model']}_{report['size']}, {report['source']}", fontsize=10)
    figure.tight_layout()
    with atomic_path(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})
