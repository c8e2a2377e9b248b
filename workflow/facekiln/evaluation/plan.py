"""What the rules of tables, gates and galleries ask: which files each is made from."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from facekiln.artifact import sha256_of_text
from facekiln.config import Config, known
from facekiln.errors import KilnError
from facekiln.targets import PARENTS, RESULTS, matching

# Folders of results/ whose artifacts compute in floating point.
FLOAT_FOLDERS = ("checkpoints", "torchscript", "onnx", "caffe")
# Tables below results/tables/ that have a rule of their own.
_OTHER_TABLES = ["latency", "magicmind", "sophon"]
_FORM = "{evaluator}/{backend}/{folder}/{artifact}/{dataset}"


def parent_of(artifact: str) -> str | None:
    """Return the name of the artifact that one (below results/) is made from, None where it has no parent."""
    for pattern, parent in PARENTS.items():
        wildcards = matching(pattern, artifact)
        if wildcards:
            return parent.format(**wildcards)
    return None


def ancestors_of(artifact: str) -> list[str]:
    """Return all that an artifact is made from by name, the nearest first."""
    found: list[str] = []
    parent = parent_of(artifact)
    while parent:
        found.append(parent)
        parent = parent_of(parent)
    return found


def float_parent_of(artifact: str) -> str | None:
    """Return the nearest ancestor that computes in floating point; None for one that does so itself."""
    if PurePosixPath(artifact).parts[0] in FLOAT_FOLDERS:
        return None
    parent = parent_of(artifact)
    while parent and PurePosixPath(parent).parts[0] not in FLOAT_FOLDERS:
        parent = parent_of(parent)
    return parent


class EvaluationTargets:
    """Inputs of rules, with names checked."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def tables(self) -> str:
        """Return a regular expression for names of accuracy tables, unknown ones too, which are then told."""
        others = "|".join([*_OTHER_TABLES, "magicmind_ap"])
        return rf"(?!(?:{others})\.)[a-z][a-z0-9_]*"

    def title_of(self, table: str) -> str:
        """Return a table's title.

        Raises:
            KilnError: unknown table.
        """
        return str(self._table(table).get("title", "Accuracy"))

    def _table(self, table: str) -> dict[str, Any]:
        others = [] if table in _OTHER_TABLES else _OTHER_TABLES
        declared: dict[str, Any] = self.config.tables[known(table, [*self.config.tables, *others], "table")]
        return declared

    def evaluations_of(self, table: str, ending: str = ".json") -> list[str]:
        """Return the files of a table's evaluations.

        Raises:
            KilnError: unknown table, or an entry that is not `{evaluator}/{backend}/{artifact}/{dataset}`.
        """
        entries: list[str] = self._table(table)["evaluations"]
        for entry in entries:
            self._parts(table, entry)
        return [f"{RESULTS}/eval/{entry}{ending}" for entry in entries]

    def _parts(self, table: str, entry: str) -> tuple[str, str, str, str]:
        """Return evaluator, backend, artifact and dataset of an entry."""
        from facekiln.predictions.names import BACKENDS, BOARD_PREFIX, is_board

        parts = PurePosixPath(entry).parts
        known_backend = len(parts) > 1 and (parts[1] in BACKENDS or is_board(parts[1]))
        if len(parts) < 5 or not known_backend or entry.endswith(".json"):
            raise KilnError(
                "is no evaluation below results/eval/, without .json",
                file="config/config.yaml",
                where=f"tables.{table}.evaluations",
                value=entry,
                limit=f"{_FORM}; backends: {', '.join([*BACKENDS, BOARD_PREFIX + 'NAME'])}",
            )
        return parts[0], parts[1], "/".join(parts[2:-1]), parts[-1]

    def files_of(self, artifact: str) -> dict[str, str | list[str]]:
        """Return an artifact's file and those that are read with it (`beside`).

        Raises:
            KilnError: it is of no kind that runs here.
        """
        from facekiln.predictions.names import BACKENDS, backend_for

        backend = BACKENDS[backend_for(artifact)]
        stem = artifact.removesuffix(backend.ending)
        beside = [f"{RESULTS}/{stem}{ending}" for ending in backend.beside]
        return {"artifact": f"{RESULTS}/{artifact}", "beside": beside}

    def declared_of(self, artifact: str) -> str:
        """Return a hash of what a gate takes from the model's declaration, the kind of its weights included.

        Raises:
            KilnError: the artifact is of no kind that runs here, or of an unknown model or size.
        """
        from facekiln.predictions.names import backend_for, model_of

        model, label = model_of(artifact, backend_for(artifact), self.config)
        fields = ("network", "options", "input", "outputs", "priors", "crop", "decode", "golden")
        weights = model.weights or self.config.weights
        size = next(iter(model.sizes.values())) if label is None else model.size(label)
        return sha256_of_text(repr((model.digest(*fields), weights, size)))[:16]

    def float_evaluation_of(self, evaluator: str, artifact: str, dataset: str) -> str:
        """Return the evaluation that a quantised artifact's is judged against.

        Raises:
            KilnError: the artifact has no float parent.
        """
        from facekiln.predictions.names import backend_for

        parent = self._parent(artifact)
        return f"{RESULTS}/eval/{evaluator}/{backend_for(parent)}/{parent}/{dataset}.json"

    def float_predictions_of(self, artifact: str, dataset: str) -> str:
        """Return the folder of predictions of a quantised artifact's float parent.

        Raises:
            KilnError: the artifact has no float parent.
        """
        from facekiln.predictions.names import backend_for

        parent = self._parent(artifact)
        return f"{RESULTS}/predictions/{backend_for(parent)}/{parent}/{dataset}"

    def _parent(self, artifact: str) -> str:
        parent = float_parent_of(artifact)
        if parent is None:
            raise KilnError(
                "has no float parent to be compared with",
                file=f"{RESULTS}/{artifact}",
                hint="name a quantised artifact, e.g. nnie/{model}_{size}.wk",
            )
        return parent

    def gates(self) -> list[str]:
        """Return the verdicts that the summary lists: of every artifact in a table.

        Each artifact has its golden picture and, where it has a parent, its parity; a quantised one what it
        lost by each evaluation; a `.wk` its board's decoding; every checkpoint behind them its batch.

        Raises:
            KilnError: no table is declared.
        """
        if not self.config.tables:
            raise KilnError(
                "no table is declared, so there is no artifact to judge",
                file="config/config.yaml",
                where="tables",
                hint="declare one, or take gates/ out of `targets`",
            )
        wanted: dict[str, None] = {}
        for table, declared in self.config.tables.items():
            for entry in declared["evaluations"]:
                evaluator, backend, artifact, dataset = self._parts(table, entry)
                wanted[f"{RESULTS}/gates/golden/{artifact}.json"] = None
                chain = self._chain(artifact)
                if len(chain) > 1:
                    wanted[f"{RESULTS}/parity/{artifact}.json"] = None
                if float_parent_of(artifact):
                    name = f"{evaluator}/{backend}/{artifact}/{dataset}"
                    wanted[f"{RESULTS}/gates/accuracy/{name}.json"] = None
                if artifact.endswith(".wk"):
                    wanted[f"{RESULTS}/gates/board_decode/{artifact}.json"] = None
                if chain[-1].endswith(".pth"):
                    wanted[f"{RESULTS}/gates/batch/{chain[-1]}.json"] = None
        return list(wanted)

    def _chain(self, artifact: str) -> list[str]:
        """Return an artifact and all that it is made from, up to what its model is born as."""
        chain = [artifact]
        while parent := parent_of(chain[-1]):
            if parent.endswith(".pth"):
                model = self.config.models.get(PurePosixPath(parent).stem)
                if model is None or model.born != "checkpoint":
                    break
            chain.append(parent)
        return chain
