"""Gates: a figure, its limit, a verdict with a reason, as a file; and the list of all of them.

A gate that passed, warned or was skipped lies under its own name; one that failed under `X.failed.json`, as
parity's reports do, so that no rule takes a failure for a proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from facekiln.artifact import read_json, write_json
from facekiln.errors import GateError, KilnError
from facekiln.evaluation.page import page_html, rich, table_html
from facekiln.evaluation.stamp import RESULTS, Evaluation
from facekiln.evaluation.tables import drops, one_protocol
from facekiln.verdict import FAILED, ORDER, SKIPPED, WARNED, at_most, worst

KEYS = ("gate", "subject", "verdict", "value", "limit", "reason")


@dataclass(frozen=True)
class Verdict:
    """One gate's verdict.

    Attributes:
        gate: what was judged: "accuracy", "golden", "batch", "pipelines", "parity".
        subject: the artifact, and what it was run by or compared with.
        verdict: "passed", "warned", "failed" or "skipped".
        value: the figure; None where it was skipped.
        limit: what it had to reach or stay under; None where it was skipped.
        reason: why, in words.
        emulated: no vendor tool made the subject.
        details: the figures behind it.
    """

    gate: str
    subject: str
    verdict: str
    value: float | None
    limit: float | None
    reason: str
    emulated: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return it as one line for a person."""
        mark = "  EMULATED" if self.emulated else ""
        return f"{self.verdict.upper():8} {self.gate:10} {self.subject}: {self.reason}{mark}"


def failed_name(path: Path) -> Path:
    """Return the name under which a failed gate's verdict is kept."""
    return path.with_suffix(".failed.json")


def write_verdict(path: Path, verdict: Verdict) -> Path:
    """Write a verdict, and remove an earlier one of the other kind.

    Returns:
        The file: `path`, or `X.failed.json` where it failed.
    """
    good, bad = path, failed_name(path)
    written, stale = (bad, good) if verdict.verdict == FAILED else (good, bad)
    write_json(written, asdict(verdict))
    stale.unlink(missing_ok=True)
    return written


def stop_if_failed(verdict: Verdict, written: Path) -> None:
    """End the verb with exit status 3 where the gate failed.

    Raises:
        GateError: it failed.
    """
    if verdict.verdict == FAILED:
        raise GateError(
            f"gate '{verdict.gate}' failed: {verdict.reason}",
            file=verdict.subject,
            value=None if verdict.value is None else f"{verdict.value:.6g}",
            limit=None if verdict.limit is None else f"{verdict.limit:.6g}",
            hint=f"the whole verdict: {written}",
        )


def judge_accuracy(
    child: Evaluation, parent: Evaluation, limits: Mapping[str, Mapping[str, float]]
) -> Verdict:
    """Judge what a quantised artifact lost against its float parent.

    Args:
        child: its evaluation.
        parent: the float parent's, by the same protocol.
        limits: per figure `warn` and `stop`, in points (hundredths).

    Raises:
        KilnError: the two were not measured by one protocol.
    """
    one_protocol([parent, child])
    lost = drops(child, parent)
    judged = {
        name: at_most(_points(lost[name]), limits[name]["stop"], limits[name]["warn"])
        for name in RESULTS[child.stamp.task]
    }
    verdict = worst(list(judged.values()))
    # The figure that is nearest to its stop, or farthest beyond it.
    worst_name = max(
        (name for name in judged if judged[name] == verdict),
        key=lambda name: lost[name] - limits[name]["stop"],
    )
    told = ", ".join(f"{name} {lost[name]:+.2f} ({judged[name]})" for name in judged)
    return Verdict(
        gate="accuracy",
        subject=f"{child.subject['artifact']} ({child.subject['backend']}) on {child.stamp.dataset}",
        verdict=verdict,
        value=_points(lost[worst_name]),
        limit=float(limits[worst_name]["stop"]),
        reason=f"points lost against {parent.subject['artifact']} ({parent.subject['backend']}): {told}",
        emulated=bool(child.subject["emulated"]),
        details={"lost_points": lost, "verdicts": judged, "protocol": child.stamp.id()},
    )


def _points(value: float) -> float:
    """Round to a millionth of a point, so that a drop of exactly the limit is not above it."""
    return round(value, 6)


def read_verdicts(folder: Path) -> list[Verdict]:
    """Read every gate below a results folder: `gates/` and parity's reports in `parity/`.

    Raises:
        KilnError: neither folder is there, or a file is no verdict.
    """
    homes = [folder / name for name in ("gates", "parity") if (folder / name).is_dir()]
    if not homes:
        raise KilnError(
            "holds no gates/ and no parity/", file=folder, hint="run a gate, or name the results folder"
        )
    found: list[Verdict] = []
    for home in homes:
        for path in sorted(home.rglob("*.json")):
            if not path.name.endswith(".kiln.json") and path.name != "summary.json":
                found.append(read_verdict(path))
    return found


def read_verdict(path: Path) -> Verdict:
    """Read a verdict, or a parity report as one.

    Raises:
        KilnError: it is neither.
    """
    value = read_json(path)
    if isinstance(value, dict) and {"child", "parent", "gates", "passed"} <= set(value):
        return _from_parity(value)
    if not isinstance(value, dict) or not set(KEYS) <= set(value) or value["verdict"] not in ORDER:
        raise KilnError("is no gate's verdict", file=path, limit=", ".join(KEYS), hint="remove it")
    known = {key: value[key] for key in (*KEYS, "emulated", "details") if key in value}
    return Verdict(**known)


def _from_parity(report: Mapping[str, Any]) -> Verdict:
    gates = report["gates"]
    verdict = worst([gate["verdict"] for gate in gates])
    told = next((gate for gate in gates if gate["verdict"] == verdict), None)
    counted = ", ".join(
        f"{count} {name}"
        for name in reversed(ORDER)
        if (count := sum(gate["verdict"] == name for gate in gates))
    )
    reason = f"against {report['parent']['path']}: {counted or 'nothing was judged'}"
    if told and verdict != "passed":
        reason += f"; {told['name']} {told['value']:.6g}, limit {told['limit']:.6g}"
    return Verdict(
        gate="parity",
        subject=report["child"]["path"],
        verdict=verdict,
        value=told["value"] if told else None,
        limit=told["limit"] if told else None,
        reason=reason,
        emulated=bool(report.get("emulated")),
    )


def summary(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Return the list of all gates and how many of each verdict, ready for JSON."""
    listed = sorted(verdicts, key=lambda item: (-ORDER.index(item.verdict), item.gate, item.subject))
    return {
        "counts": {name: sum(item.verdict == name for item in listed) for name in ORDER},
        "passed": not any(item.verdict == FAILED for item in listed),
        "gates": [asdict(item) for item in listed],
    }


def summary_html(whole: Mapping[str, Any]) -> str:
    """Return a `summary` as a page, the worst first."""
    header = ["verdict", "gate", "subject", "value", "limit", "reason"]
    rows = []
    for item in whole["gates"]:
        loud = item["verdict"] in (WARNED, FAILED)
        verdict = f"**{item['verdict'].upper()}**" if loud else item["verdict"]
        mark = " **EMULATED**" if item["emulated"] else ""
        figures = ["" if item[key] is None else f"{item[key]:.6g}" for key in ("value", "limit")]
        rows.append([verdict, item["gate"], item["subject"] + mark, *figures, item["reason"]])
    counts = ", ".join(f"{count} {name}" for name, count in reversed(whole["counts"].items()))
    return page_html("Gates", [f"<p>{rich(counts)}</p>", table_html(header, rows, ("value", "limit"))])


def skipped(gate: str, subject: str, reason: str) -> Verdict:
    """Return the verdict of a gate that does not apply."""
    return Verdict(gate, subject, SKIPPED, None, None, reason)
