"""Has an artifact become slower on its board? A measurement against a stored one, by two methods.

`vendor` is what Cambricon's CI does (magicmind_cloud, test/compare_perf.py): the ratio of two numbers passes
from 0.95 to 1.05, above that it is an option to store the new one, below it fails. Two runs of a quiet board
differ by chance, and two of a noisy one by more than that; so `intervals` takes the repeats of both
measurements and judges the 95 % interval of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import fmean, variance
from typing import Any

from facekiln.artifact import read_text, sha256_of
from facekiln.boards.bench import read_bench
from facekiln.boards.statistics import Interval, t95
from facekiln.boards.verdict import NOISY
from facekiln.boards.virtual.forms import MARK
from facekiln.errors import KilnError
from facekiln.evaluation.gates import Verdict
from facekiln.targets import RESULTS
from facekiln.verdict import FAILED, PASSED, UNPROVEN, WARNED

METHODS = ("intervals", "vendor")


@dataclass(frozen=True)
class Speed:
    """Throughput of one measurement.

    Attributes:
        file: that it was read from.
        about: board, artifact, tool, what it measures, batch, whether virtual; only equal ones are compared.
        repeats: images per second, one value per run of the tool.
        noisy: its own verdict is "noisy: rejected".
        sha256: of the file.
    """

    file: Path
    about: Mapping[str, Any]
    repeats: tuple[float, ...]
    noisy: bool = False
    sha256: str = ""

    @property
    def mean(self) -> float:
        """Images per second, over the repeats."""
        return fmean(self.repeats)


def read_speed(path: Path, like: Speed | None = None) -> Speed:
    """Read a bench record, or the log of an `mm_run` that was run by hand, as the vendor stores them.

    Args:
        path: `*.json` is a record, all else a log.
        like: what a log, which does not tell its board and artifact, is taken to be of.

    Raises:
        KilnError: it is neither, or the log holds several devices or shapes, or is of another batch.
    """
    if path.suffix == ".json":
        record = read_bench(path)
        about = {key: record[key] for key in ("board", "tool", "measures", "batch", "virtual")}
        about["artifact"] = _below_results(record["artifact"])
        repeats = tuple(repeat["timing"]["images_per_second"] for repeat in record["repeats"])
        return Speed(path, about, repeats, record["verdict"] == NOISY, sha256_of(path))
    from facekiln.chips.magicmind import mm_run

    if like is None:
        raise KilnError("is no bench record", file=path, hint="facekiln bench run writes one")
    text = read_text(path, errors="replace")
    found = mm_run.timings(mm_run.parse(text), batch=int(like.about["batch"]))
    if len(found) != 1:
        raise KilnError("a log of one device and one shape is needed", file=path, value=len(found))
    about = {**like.about, "tool": found[0].tool, "measures": found[0].measures, "virtual": MARK in text}
    return Speed(path, about, (found[0].images_per_second,))


def _below_results(artifact: str) -> str:
    parts = PurePosixPath(artifact).parts
    return "/".join(parts[parts.index(RESULTS) + 1 :]) if RESULTS in parts else parts[-1]


def ratio_interval(new: Sequence[float], stored: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of new / stored, None where neither has two repeats.

    Welch's interval of the difference of logarithms (Welch 1947), with Satterthwaite's degrees of freedom,
    rounded down. A side with one value is taken as exact.
    """
    logs = [[math.log(value) for value in side] for side in (new, stored)]
    parts = [variance(side) / len(side) if len(side) > 1 else 0.0 for side in logs]
    many = [len(side) - 1 for side in logs if len(side) > 1]
    if not many:
        return None
    whole = math.fsum(parts)
    below = math.fsum(
        part**2 / (len(side) - 1) for part, side in zip(parts, logs, strict=True) if len(side) > 1
    )
    degrees = max(1, math.floor(whole**2 / below + 1e-9)) if below else min(many)
    half = t95(degrees) * math.sqrt(whole)
    middle = fmean(logs[0]) - fmean(logs[1])
    return Interval(
        math.exp(middle - half), math.exp(middle + half), f"Welch's, {degrees} degrees of freedom"
    )


def judge_throughput(
    new: Speed, stored: Speed, limits: Mapping[str, Any], method: str | None = None
) -> Verdict:
    """Judge a measurement against a stored one of the same artifact on the same board.

    Args:
        new: what was measured now.
        stored: what it must reach.
        limits: `method`, `slower` and `faster` as shares, and what an `unproven` gate does.
        method: of `METHODS`, in place of the one that `limits` names.

    Raises:
        KilnError: they are of two things.
    """
    apart = [key for key in new.about if new.about[key] != stored.about[key]]
    if apart:
        raise KilnError(
            f"the two measurements are not of one thing: {', '.join(apart)}",
            file=stored.file,
            value=", ".join(str(stored.about[key]) for key in apart),
            limit=", ".join(str(new.about[key]) for key in apart),
            hint="compare records of one artifact on one board by one tool",
        )
    chosen = method or limits["method"]
    ratio, least, most = new.mean / stored.mean, 1 - limits["slower"], 1 + limits["faster"]
    interval = ratio_interval(new.repeats, stored.repeats)
    by_vendor, told_vendor = _by_vendor(ratio, least, most)
    by_interval, told_interval = _by_interval(new, stored, interval, least, most)
    verdict, told = (by_vendor, told_vendor) if chosen == "vendor" else (by_interval, told_interval)
    if unjudged := _unjudged(new, stored, interval, chosen):
        doubt = UNPROVEN if limits["unproven"] == "stop" else WARNED
        verdict, told = (verdict, told) if verdict == FAILED else (doubt, unjudged)
    if new.sha256 and new.sha256 == stored.sha256:
        verdict, told = WARNED, "cannot be judged: both are one and the same measurement; measure again"
    return Verdict(
        gate="throughput",
        subject=f"{new.about['artifact']} on {new.about['board']}",
        verdict=verdict,
        value=ratio,
        limit=least,
        reason=f"{new.mean:.6g} images/s, stored {stored.mean:.6g}: {told}",
        emulated=bool(new.about["virtual"]),
        details={
            "method": chosen,
            "by_vendor": by_vendor,
            "by_intervals": by_interval,
            "interval_95": [interval.low, interval.high] if interval else None,
            "repeats": [len(new.repeats), len(stored.repeats)],
            "stored": str(stored.file),
        },
    )


def _by_vendor(ratio: float, least: float, most: float) -> tuple[str, str]:
    if ratio < least:
        return FAILED, f"ratio {ratio:.3f}, below {least:g}"
    if ratio > most:
        return WARNED, f"ratio {ratio:.3f}, above {most:g}: option to store the new record"
    return PASSED, f"ratio {ratio:.3f}, from {least:g} to {most:g}"


def _unjudged(new: Speed, stored: Speed, interval: Interval | None, method: str) -> str:
    """Return why two measurements prove nothing, empty where they can be judged."""
    if noisy := [str(one.file) for one in (new, stored) if one.noisy]:
        return f"cannot be judged, as '{NOISY}' stands in {' and '.join(noisy)}; measure again"
    if method == "intervals" and interval is None:
        return "cannot be judged: one repeat each tells no noise; measure with --repeats 5"
    return ""


def _by_interval(
    new: Speed, stored: Speed, interval: Interval | None, least: float, most: float
) -> tuple[str, str]:
    if interval is None or new.noisy or stored.noisy:
        return UNPROVEN, _unjudged(new, stored, interval, "intervals")
    single = " (the stored one has one repeat, taken as exact)" if len(stored.repeats) == 1 else ""
    told = f"95 % interval of the ratio {interval.low:.3f} to {interval.high:.3f}{single}"
    if interval.high < least:
        return FAILED, f"{told}, all of it below {least:g}: slower for certain"
    if interval.low < least:
        return WARNED, f"{told}, which has {least:g} in it: cannot be told from noise; take more repeats"
    if interval.low > most:
        return WARNED, f"{told}, all of it above {most:g}: option to store the new record"
    return PASSED, f"{told}, none of it below {least:g}"
