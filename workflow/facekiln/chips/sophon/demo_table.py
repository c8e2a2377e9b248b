"""The table of the vendor's sample, rebuilt: what each chip, precision and batch costs and keeps of a model.

Size and memory are read from the files, the compiler's checks and estimate from their records, accuracy from
evaluations, parity from its reports. Published figures stand in columns of their own, by their own protocol.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facekiln.artifact import read_json, sha256_of
from facekiln.chips.sophon.artifacts import Artifact, artifact_of
from facekiln.chips.sophon.bmodel import read_bmodel
from facekiln.chips.sophon.bmodel_format import Memory
from facekiln.chips.sophon.demo_figures import Demo, DemoRow
from facekiln.chips.sophon.demo_similarity import (
    Checks,
    Similarity,
    checks_of,
    parity_report,
    similarity_of,
)
from facekiln.chips.sophon.settings import SophonSettings
from facekiln.config import Config
from facekiln.errors import KilnError
from facekiln.evaluation.stamp import Evaluation, Stamp, read_evaluation
from facekiln.evaluation.tables import drops, one_protocol
from facekiln.evaluation.weights import weights_used
from facekiln.predictions.names import BACKENDS
from facekiln.provenance import read_record, sidecar_of

_ENDING = ".bmodel"


@dataclass(frozen=True)
class Accuracy:
    """Evaluations that fill one group of columns: of these chips, precisions and batches, by one protocol."""

    evaluator: str
    backend: str
    dataset: str
    chips: tuple[str, ...]
    precisions: tuple[str, ...]
    batches: tuple[int, ...]

    @property
    def name(self) -> str:
        """How its columns are headed."""
        return f"{self.evaluator} {self.dataset}"

    def covers(self, artifact: Artifact) -> bool:
        """Whether an artifact is evaluated; of several cores only one is, which computes the same."""
        return (
            artifact.chip in self.chips
            and artifact.precision in self.precisions
            and artifact.batch in self.batches
            and artifact.cores == 1
        )

    def path(self, artifact: Artifact) -> str:
        """Return an artifact's evaluation, below results/."""
        name = artifact.path.removesuffix(_ENDING) + BACKENDS[self.backend].ending
        return f"eval/{self.evaluator}/{self.backend}/{name}/{self.dataset}.json"

    def reference(self, model: str, size: str) -> str:
        """Return the evaluation of the float ONNX file that all files are made from, below results/."""
        return f"eval/{self.evaluator}/onnxruntime/onnx/{model}_{size}.sim.onnx/{self.dataset}.json"


@dataclass(frozen=True)
class TableSettings:
    """The section `table` of config/chips/sophon.yaml; `parity`: figures of parity reports too."""

    title: str
    model: str
    size: str
    accuracy: tuple[Accuracy, ...]
    parity: bool = False


@dataclass(frozen=True)
class Row:
    """One file."""

    artifact: Artifact
    bytes: int
    memory: Memory
    estimate: float | None
    release: str | None
    checks: Checks | None
    similarity: Similarity | None
    evaluations: dict[str, Evaluation]
    drops: dict[str, dict[str, float]]
    demo: DemoRow | None


@dataclass(frozen=True)
class DemoTable:
    """Rows, and per group of accuracy columns its protocol and the float file's figures."""

    settings: TableSettings
    rows: list[Row]
    protocols: dict[str, Stamp]
    references: dict[str, Evaluation]
    demo: Demo | None
    weights: str


def table_settings(config: Config, settings: SophonSettings) -> TableSettings | None:
    """Return the section `table`, None where there is none.

    Raises:
        KilnError: an unknown backend, or one that runs no SOPHON files.
    """
    value = config.chips["sophon"].get("table")
    if not value:
        return None
    size = str(value["size"])
    config.model(value["model"]).size(size)
    groups = []
    for group in value["accuracy"]:
        backend = group["backend"]
        if backend not in BACKENDS or BACKENDS[backend].folder != "sophon":
            fitting = [name for name, item in BACKENDS.items() if item.folder == "sophon"]
            raise KilnError(
                "is no backend that runs SOPHON files",
                file="config/chips/sophon.yaml",
                where="table.accuracy",
                value=backend,
                limit=", ".join(fitting),
            )
        groups.append(
            Accuracy(
                group["evaluator"],
                backend,
                group["dataset"],
                tuple(group.get("chips") or settings.chips),
                tuple(group["precisions"]),
                tuple(group["batches"]),
            )
        )
    return TableSettings(value["title"], value["model"], size, tuple(groups), value["parity"])


def artifacts_of(table: TableSettings, settings: SophonSettings) -> list[Artifact]:
    """Return every file that the chips can have of the table's model, in order of rows."""
    return [
        Artifact(chip.name, table.model, table.size, precision, batch, cores)
        for chip in settings.chips.values()
        for precision, cores, batch in itertools.product(chip.precisions, chip.cores, settings.batches)
    ]


def sources_of(table: DemoTable, results: Path) -> list[Path]:
    """Return the parity reports and evaluations that a table was made from."""
    reports = [parity_report(results, row.artifact) for row in table.rows if row.similarity]
    evaluations = [one.path for row in table.rows for one in row.evaluations.values()]
    return [
        *(path for path in reports if path),
        *evaluations,
        *(one.path for one in table.references.values()),
    ]


def make_demo_table(
    files: Sequence[Path],
    table: TableSettings,
    config: Config,
    settings: SophonSettings,
    demos: Sequence[Demo],
    results: Path,
) -> DemoTable:
    """Put files, their records, parity reports and evaluations into one table.

    Args:
        files: .bmodel files in order of rows; each is named as the workflow names it.
        table: which evaluations belong to it.
        config: has the model.
        settings: which chips there are.
        demos: published figures.
        results: the folder that evaluations and parity reports lie below; what is missing is an empty cell.

    Raises:
        KilnError: a file is no bmodel, or of another model or size; two protocols in one column; a record,
            report or evaluation that was made of another file of that name.
    """
    groups: dict[str, list[Evaluation]] = {group.name: [] for group in table.accuracy}
    references = {
        group.name: read_evaluation(results / path)
        for group in table.accuracy
        if (results / (path := group.reference(table.model, table.size))).is_file()
    }
    for reference in references.values():
        onnx = results / reference.subject["artifact"]
        if onnx.is_file():
            _check_of(onnx, reference.subject["artifact_sha256"], reference.path)
    demo = next((one for one in demos if (one.model, one.size) == (table.model, table.size)), None)
    rows = []
    for file in files:
        artifact = artifact_of(file, config, settings)
        if (artifact.model, artifact.size) != (table.model, table.size):
            raise KilnError(
                "is of another model or size than the table",
                file=file,
                value=f"{artifact.model}_{artifact.size}",
                limit=f"{table.model}_{table.size}",
                hint="leave it out, or declare its model and size in `table` of config/chips/sophon.yaml",
            )
        evaluations = {
            group.name: read_evaluation(results / group.path(artifact))
            for group in table.accuracy
            if group.covers(artifact) and (results / group.path(artifact)).is_file()
        }
        for name, evaluation in evaluations.items():
            _check_of(file, evaluation.subject["artifact_sha256"], evaluation.path)
            groups[name].append(evaluation)
        report = parity_report(results, artifact) if table.parity else None
        rows.append(_row(file, artifact, evaluations, references, demo, report))
    protocols = {}
    for name, evaluations_of in groups.items():
        together = [*([references[name]] if name in references else []), *evaluations_of]
        if together:
            protocols[name] = one_protocol(together)
    return DemoTable(table, rows, protocols, references, demo, weights_used(table.model, config, results))


def _check_of(file: Path, sha256: str | None, source: Path) -> None:
    """Refuse figures that are of a file that had this name before.

    Raises:
        KilnError: names where the figures are from.
    """
    if sha256 != sha256_of(file):
        raise KilnError(
            f"is of another {file.name} than lies there now",
            file=source,
            value=f"sha256 {sha256[:12] if sha256 else 'not stated'}",
            limit=sha256_of(file)[:12],
            hint="make it again with its rule, or remove it",
        )


def _row(
    file: Path,
    artifact: Artifact,
    evaluations: dict[str, Evaluation],
    references: Mapping[str, Evaluation],
    demo: Demo | None,
    report: Path | None,
) -> Row:
    model, record = read_bmodel(file), read_record(file)
    if record:
        _check_of(file, record.sha256, sidecar_of(file))
    facts = record.facts if record else {}
    told = read_json(report) if report else None
    if report and told:
        _check_of(file, told.get("child", {}).get("sha256"), report)
    estimate = facts.get("compiler_estimate") or {}
    return Row(
        artifact=artifact,
        bytes=model.bytes,
        memory=model.memory,
        estimate=estimate.get("milliseconds_per_picture"),
        release=estimate.get("release"),
        checks=checks_of(facts),
        similarity=similarity_of(told) if told else None,
        evaluations=evaluations,
        drops={
            name: drops(evaluation, references[name])
            for name, evaluation in evaluations.items()
            if name in references
        },
        demo=demo.row(artifact) if demo else None,
    )
