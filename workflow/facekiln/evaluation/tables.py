"""Tables of accuracy: one protocol per table, the float parent's and the published figures beside ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from facekiln.errors import KilnError
from facekiln.evaluation.published import Figure, published_for
from facekiln.evaluation.stamp import RESULTS, Evaluation, Stamp
from facekiln.targets import PARENTS, matching

# Figures where less is better; a drop is then a rise.
LESS_IS_BETTER = ("nme", "failure_rate", "pose_mae_deg")


@dataclass(frozen=True)
class Row:
    """One evaluation, with what stands beside it.

    Attributes:
        evaluation: ours.
        drop: points lost against the float parent, by figure; negative where it gained.
        parent: the float parent's artifact and backend; None where the table has none.
        published: the published row; None where there is none of these weights.
    """

    evaluation: Evaluation
    drop: dict[str, float] = field(default_factory=dict)
    parent: str | None = None
    published: Figure | None = None

    @property
    def mark(self) -> str:
        """What made the figures, where that was not the real thing."""
        subject = self.evaluation.subject
        if subject.get("virtual"):
            return "VIRTUAL"
        if subject["emulated"]:
            return "EMULATED"
        return "SIMULATED" if any(word in subject["backend"] for word in ("simulat", "cmodel")) else ""


@dataclass(frozen=True)
class Table:
    """Rows of one protocol."""

    stamp: Stamp
    rows: list[Row]

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of its columns of figures."""
        return RESULTS[self.stamp.task]


def one_protocol(evaluations: Sequence[Evaluation]) -> Stamp:
    """Return the protocol of all evaluations.

    Raises:
        KilnError: there are none, or two of different protocols; names both files and the fields.
    """
    if not evaluations:
        raise KilnError("a table needs an evaluation", hint="name files of results/eval/")
    first = evaluations[0]
    for other in evaluations[1:]:
        differences = first.stamp.differences(other.stamp)
        if differences:
            told = ", ".join(f"{name}: {a} and {b}" for name, (a, b) in differences.items())
            raise KilnError(
                f"figures of two protocols do not belong into one table; {first.path} and {other.path} "
                f"differ in {told}",
                hint="make one table per protocol: --split, or two entries in `tables:` of config.yaml",
            )
    return first.stamp


def by_protocol(evaluations: Iterable[Evaluation]) -> list[list[Evaluation]]:
    """Return the evaluations grouped by protocol, in order of first appearance."""
    groups: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(evaluation.stamp.id(), []).append(evaluation)
    return list(groups.values())


def make_table(
    evaluations: Sequence[Evaluation], published: list[Figure], results: Path | str = "results"
) -> Table:
    """Return the table of evaluations of one protocol.

    Args:
        evaluations: in the order of rows.
        published: all published rows.
        results: the folder that artifacts lie below.

    Raises:
        KilnError: no evaluation, or mixed protocols (see `one_protocol`).
    """
    stamp = one_protocol(evaluations)
    rows = []
    for evaluation in evaluations:
        parent = float_parent(evaluation, evaluations)
        rows.append(
            Row(
                evaluation,
                drop=drops(evaluation, parent) if parent else {},
                parent=f"{parent.subject['artifact']} ({parent.subject['backend']})" if parent else None,
                published=published_for(evaluation, published, results),
            )
        )
    return Table(stamp, rows)


def float_parent(child: Evaluation, evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """Return the nearest float ancestor of a quantised artifact among evaluations of its protocol.

    Ancestors are known by the names of artifacts (`facekiln.targets.PARENTS`).
    """
    if child.subject["precision"] == "float":
        return None
    same = {
        evaluation.subject["artifact"]: evaluation
        for evaluation in reversed(evaluations)
        if evaluation.subject["precision"] == "float" and evaluation.stamp == child.stamp
    }
    artifact: str | None = child.subject["artifact"]
    while artifact := _parent_name(artifact):
        if artifact in same:
            return same[artifact]
    return None


def _parent_name(artifact: str | None) -> str | None:
    for pattern, parent in PARENTS.items():
        wildcards = matching(pattern, artifact or "")
        if wildcards:
            return parent.format(**wildcards)
    return None


def drops(child: Evaluation, parent: Evaluation) -> dict[str, float]:
    """Return the points (hundredths) that a child lost, by figure; positive is worse."""
    lost = {}
    for name in RESULTS[child.stamp.task]:
        change = 100 * (parent.results[name] - child.results[name])
        lost[name] = -change if name in LESS_IS_BETTER else change
    return lost
