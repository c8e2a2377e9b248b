"""The two tables of the vendor's sample, rebuilt: throughput and average precision by mode.

Throughput stands by card and batch, from measurements on boards; average precision by mode, from evaluations.
What was measured otherwise stands in another column: a virtual board's figures, each evaluation's protocol,
and what Cambricon published. A published row is beside ours only where model and input size are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from facekiln.chips.magicmind.names import PRECISIONS
from facekiln.chips.magicmind.published import PublishedThroughput
from facekiln.chips.magicmind.settings import MagicmindSettings, TableSettings
from facekiln.config import Config
from facekiln.errors import KilnError
from facekiln.evaluation.published import Figure, ancestors
from facekiln.evaluation.stamp import Evaluation, Stamp
from facekiln.evaluation.tables import drops, one_protocol
from facekiln.evaluation.weights import weights_used
from facekiln.parity.magicmind_stage import PRECISION

CHIP = "magicmind"
_NAME = re.compile(rf"(\w+)_([^_]+)_({'|'.join(PRECISIONS)})_(\d+(?:-\d+)?)b\.mm")
_MODE = {kind: mode for mode, kind in PRECISION.items()}


@dataclass(frozen=True)
class Subject:
    """What a row is of: a network at one input size in one mode."""

    model: str
    size: tuple[int, int]
    mode: str

    @property
    def input(self) -> str:
        """Height and width, as tables have it."""
        return f"{self.size[0]}x{self.size[1]}"


@dataclass(frozen=True)
class Measured:
    """One measurement of throughput, images per second, with the ends of its 95 % interval."""

    board: str
    images_per_second: float
    interval: tuple[float, float] | None
    verdict: str


@dataclass
class SpeedRow:
    """Throughput of one subject at one batch on one card, by column of `SpeedTable`."""

    card: str
    subject: Subject
    batch: int
    measured: dict[str, Measured] = field(default_factory=dict)
    published: float | None = None


@dataclass(frozen=True)
class SpeedTable:
    """Rows; `columns`: name -> what it measures, in words; `published`: their sources."""

    rows: list[SpeedRow]
    columns: dict[str, str]
    published: list[PublishedThroughput]


@dataclass
class PrecisionRow:
    """Average precision of one subject, by column of `PrecisionTable`."""

    subject: Subject
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    drops: dict[str, dict[str, float]] = field(default_factory=dict)
    published: Figure | None = None
    other_weights: bool = False


@dataclass(frozen=True)
class PrecisionTable:
    """Rows, and each column's protocol, float reference and backends."""

    rows: list[PrecisionRow]
    protocols: dict[str, Stamp]
    references: dict[tuple[str, str], Evaluation]


@dataclass(frozen=True)
class Tables:
    """Both tables, with the weights that each model's artifacts have."""

    settings: TableSettings
    speed: SpeedTable
    precision: PrecisionTable
    weights: dict[str, str]


def card_of(chip: str | None, settings: MagicmindSettings) -> str | None:
    """Return the card that a board's `chip` is, `mlu370_s4` and `mlu370-s4` alike; None for another chip."""
    name = (chip or "").replace("_", "-")
    return name if name in settings.cards else None


def subject_of(artifact: str, config: Config) -> tuple[Subject, str]:
    """Return what an artifact below results/ is, and its batch as its name has it.

    Raises:
        KilnError: it is no MagicMind file by its name, or of an unknown model or size.
    """
    found = _NAME.fullmatch(PurePosixPath(artifact).name)
    if not found:
        raise KilnError(
            "is no MagicMind file of the workflow",
            file=artifact,
            limit="{model}_{size}_{mode}_{batch}b.mm",
            hint=f"modes: {', '.join(PRECISIONS)}",
        )
    model, size, mode, batch = found.groups()
    return Subject(model, config.model(model).size(size), mode), batch


def make_tables(
    settings: MagicmindSettings,
    config: Config,
    records: Sequence[Mapping[str, Any]],
    cards: Mapping[str, str | None],
    evaluations: Sequence[Evaluation],
    published: Sequence[PublishedThroughput],
    figures: Sequence[Figure],
    results: Path | str = "results",
) -> Tables:
    """Put measurements and evaluations into the two tables.

    Args:
        settings: of the chip, with `table`.
        config: has the models.
        records: of `facekiln bench run`.
        cards: board -> its chip.
        evaluations: of MagicMind files, and of the float ONNX files that drops are taken from.
        published: throughput.
        figures: published accuracy; those of this chip are shown.
        results: the folder that artifacts lie below.

    Raises:
        KilnError: no table is declared; a record of another chip; two records of one thing; two protocols in
            one column.
    """
    if settings.table is None:
        raise KilnError("no table is declared", file="config/chips/magicmind.yaml", where="table")
    speed = _speed_table(settings, config, records, cards, published)
    precision = _precision_table(
        config, evaluations, [one for one in figures if one.chip == CHIP], Path(results)
    )
    models = {row.subject.model for row in speed.rows if row.measured}
    models |= {row.subject.model for row in precision.rows if row.evaluations}
    return Tables(
        settings.table,
        speed,
        precision,
        {name: weights_used(name, config, Path(results)) for name in sorted(models)},
    )


def _speed_table(
    settings: MagicmindSettings,
    config: Config,
    records: Sequence[Mapping[str, Any]],
    cards: Mapping[str, str | None],
    published: Sequence[PublishedThroughput],
) -> SpeedTable:
    rows: dict[tuple[str, Subject, int], SpeedRow] = {}
    columns: dict[str, str] = {}
    for record in records:
        card = card_of(cards.get(record["board"]), settings)
        if card is None:
            raise KilnError(
                "is of a board that has none of the cards",
                file=record["artifact"],
                value=f"{record['board']}: {cards.get(record['board'])}",
                limit=", ".join(settings.cards),
            )
        subject, _ = subject_of(record["artifact"], config)
        name = ("VIRTUAL " if record["virtual"] else "") + f"{record['tool']} on {record['board']}"
        whole = "throughput as printed" if record["result"]["throughput_by_tool"] else "from the latency"
        told = f"images per second by {record['tool']}, {whole}; {record['request']['loops']} iterations, "
        told += f"{record['plan']['repeats']} repeats"
        if columns.setdefault(name, told) != told:
            raise KilnError(
                f"was measured otherwise than others of column '{name}'",
                file=record["artifact"],
                value=told,
                limit=columns[name],
                hint="measure all of a board alike",
            )
        row = rows.setdefault((card, subject, record["batch"]), SpeedRow(card, subject, record["batch"]))
        if name in row.measured:
            raise KilnError("two records of one artifact on one board", file=record["artifact"])
        row.measured[name] = _measured(record)
    for source in published:
        for one in source.rows:
            subject = Subject(source.model, source.size, one.precision)
            row = rows.setdefault((one.card, subject, one.batch), SpeedRow(one.card, subject, one.batch))
            row.published = one.images_per_second
    order = list(settings.cards)
    ordered = sorted(rows.values(), key=lambda row: (_place(row.card, order), *_key(row.subject), row.batch))
    return SpeedTable(ordered, columns, list(published))


def _place(card: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(card) if card in order else len(order), card)


def _key(subject: Subject) -> tuple[Any, ...]:
    return (subject.model, subject.size, PRECISIONS.index(subject.mode))


def _measured(record: Mapping[str, Any]) -> Measured:
    from facekiln.boards.statistics import mean_interval

    repeats = [repeat["timing"]["images_per_second"] for repeat in record["repeats"]]
    interval = mean_interval(repeats) if len(repeats) > 1 else None
    return Measured(
        record["board"],
        record["result"]["images_per_second"],
        (interval.low, interval.high) if interval else None,
        record["verdict"],
    )


def _precision_table(
    config: Config, evaluations: Sequence[Evaluation], figures: Sequence[Figure], results: Path
) -> PrecisionTable:
    rows: dict[Subject, PrecisionRow] = {}
    references: dict[tuple[str, str], Evaluation] = {}
    groups: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        column = f"{evaluation.stamp.evaluator} {evaluation.path.stem}"
        artifact = evaluation.subject["artifact"]
        groups.setdefault(column, []).append(evaluation)
        if artifact.endswith(".sim.onnx"):
            references[column, PurePosixPath(artifact).name.removesuffix(".sim.onnx")] = evaluation
            continue
        subject, _ = subject_of(artifact, config)
        row = rows.setdefault(subject, PrecisionRow(subject))
        if column in row.evaluations:
            raise KilnError(
                f"is of the same subject as {row.evaluations[column].path}",
                file=evaluation.path,
                hint="give one evaluation of each mode: batches compute the same",
            )
        row.evaluations[column] = evaluation
    protocols = {column: one_protocol(group) for column, group in groups.items()}
    for row in rows.values():
        for column, evaluation in row.evaluations.items():
            stem = PurePosixPath(evaluation.subject["artifact"]).name.split(f"_{row.subject.mode}")[0]
            if parent := references.get((column, stem)):
                row.drops[column] = drops(evaluation, parent)
    for figure in figures:
        height, width = figure.protocol["size"]
        subject = Subject(figure.model, (height, width), _MODE[figure.precision])
        row = rows.setdefault(subject, PrecisionRow(subject))
        row.published = figure
        row.other_weights = not all(
            figure.weights in ancestors(results / one.subject["artifact"], one.subject["artifact_sha256"])
            for one in row.evaluations.values()
        )
    ordered = sorted(rows.values(), key=lambda row: _key(row.subject))
    return PrecisionTable(ordered, protocols, references)
