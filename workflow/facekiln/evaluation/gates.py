"""Gates: a figure, its limit, a verdict with a reason, as a file.

By hand, a gate that did not fail lies under its own name, and one that failed under
`X.failed.json`, as parity's reports do. The workflow's gates keep their names, so that the summary lists
failures too (`facekiln.evaluation.gates_list`); what follows a gate there reads the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from facekiln.artifact import write_json
from facekiln.errors import GateError, KilnError
from facekiln.evaluation.plan import ancestors_of
from facekiln.evaluation.stamp import RESULTS, Evaluation
from facekiln.evaluation.tables import drops, one_protocol
from facekiln.verdict import FAILED, SKIPPED, STOPPING, at_most, worst


@dataclass(frozen=True)
class Verdict:
    """One gate's verdict.

    Attributes:
        gate: what was judged: "accuracy", "golden", "batch", "pipelines", "parity".
        subject: the artifact, and what it was run by or compared with.
        verdict: "passed", "warned", "unproven", "failed" or "skipped".
        value: the figure; None where there is none, e.g. as it was skipped.
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
    """End the verb with exit status 3 where the gate failed, or its measurement proves nothing.

    Raises:
        GateError: it did not pass.
    """
    if verdict.verdict in STOPPING:
        what = "failed" if verdict.verdict == FAILED else "is unproven"
        raise GateError(
            f"gate '{verdict.gate}' {what}: {verdict.reason}",
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
        KilnError: the two were not measured by one protocol, or `parent` is not the child's float parent.
    """
    one_protocol([parent, child])
    _refuse_strangers(child, parent)
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


def _refuse_strangers(child: Evaluation, parent: Evaluation) -> None:
    """A loss is judged against a float stage that the artifact was made from, and against nothing else."""
    hint = (
        "name the quantised artifact's evaluation first, then that of the float stage that it was made from"
    )
    if child.subject["model"] != parent.subject["model"]:
        raise KilnError(
            f"the two evaluations are of two models, {parent.path} of '{parent.subject['model']}'",
            file=child.path,
            where="subject.model",
            value=child.subject["model"],
            limit=parent.subject["model"],
            hint=hint,
        )
    if parent.subject["precision"] != "float":
        raise KilnError(
            "is no float parent's evaluation",
            file=parent.path,
            where="subject.precision",
            value=parent.subject["precision"],
            limit="float",
            hint=hint,
        )
    made_from = ancestors_of(child.subject["artifact"])
    if parent.subject["artifact"] not in made_from:
        raise KilnError(
            f"is of an artifact that {child.subject['artifact']} is not made from",
            file=parent.path,
            where="subject.artifact",
            value=parent.subject["artifact"],
            limit=", ".join(made_from) or "nothing that the workflow knows",
            hint=hint,
        )


def _points(value: float) -> float:
    """Round to a millionth of a point, so that a drop of exactly the limit is not above it."""
    return round(value, 6)


def skipped(gate: str, subject: str, reason: str, *, emulated: bool = False) -> Verdict:
    """Return the verdict of a gate that does not apply."""
    return Verdict(gate, subject, SKIPPED, None, None, reason, emulated)
