"""What the rules of average precision ask: from which predictions, and how boxes are written."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from facekiln.config import DEFAULT_FOLDER, Config
from facekiln.data.declared import Declared, declared_set
from facekiln.errors import KilnError
from facekiln.evaluation.wider_truth import FILES, truth_digest
from facekiln.targets import RESULTS

_DEFAULT = "default"


class Wildcards(Protocol):
    """What Snakemake hands to input functions."""

    evaluator: str
    backend: str
    artifact: str
    dataset: str


class PrecisionTargets:
    """Inputs and settings of evaluate_wider and evaluate_voc, with names checked."""

    def __init__(self, config: Config, folder: Path | str = DEFAULT_FOLDER) -> None:
        self.config, self.folder = config, folder

    def _declared(self, wildcards: Wildcards) -> Declared:
        return declared_set(wildcards.dataset.partition("@")[0], self.folder)

    def wider(self, wildcards: Wildcards) -> str:
        """Return the predictions that WIDER FACE's protocols judge.

        Raises:
            KilnError: unknown dataset, or one that is no WIDER FACE validation set.
        """
        declared = self._declared(wildcards)
        if declared.kind != "wider_mat":
            raise KilnError(
                f"protocol '{wildcards.evaluator}' is WIDER FACE's, which dataset '{declared.name}' is not",
                file=f"{RESULTS}/eval/{wildcards.evaluator}/{wildcards.backend}/{wildcards.artifact}/"
                f"{wildcards.dataset}.json",
                value=f"kind: {declared.kind}",
                limit="kind: wider_mat",
                hint=f"{RESULTS}/eval/voc/{wildcards.backend}/{wildcards.artifact}/{wildcards.dataset}.json",
            )
        return self.voc(wildcards)

    def voc(self, wildcards: Wildcards) -> str:
        """Return the predictions that are judged as PASCAL VOC does.

        Raises:
            KilnError: unknown dataset.
        """
        self._declared(wildcards)
        return f"{RESULTS}/predictions/{wildcards.backend}/{wildcards.artifact}/{wildcards.dataset}"

    def digest(self, wildcards: Wildcards) -> str:
        """Return a hash of the dataset's declaration: a change of it evaluates again."""
        return self._declared(wildcards).digest()

    def truth(self, wildcards: Wildcards) -> str:
        """Return a hash of WIDER FACE's four files, of which a declaration pins one: a change of any
        evaluates again. Empty where they are not all here, which the evaluation then tells."""
        declared = self._declared(wildcards)
        if declared.kind != "wider_mat" or not declared.annotations:
            return ""
        folder = ((declared.folder or Path()) / declared.annotations[0].path).parent
        return truth_digest(folder) if all((folder / name).is_file() for name in FILES.values()) else ""

    def box_rule(self, wildcards: Wildcards) -> str:
        """Return how corners are written, by the inference entry that made the predictions."""
        entry = wildcards.dataset.partition("@")[2] or _DEFAULT
        return self.config.box_rules.get(entry, "float")
