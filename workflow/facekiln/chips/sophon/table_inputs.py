"""What the rule of the SOPHON table asks: which files it is made from."""

from __future__ import annotations

from facekiln.artifact import sha256_of_text
from facekiln.chips.sophon.demo_table import TableSettings, artifacts_of, table_settings
from facekiln.chips.sophon.settings import settings_from
from facekiln.config import Config
from facekiln.errors import KilnError
from facekiln.targets import RESULTS


class SophonTableTargets:
    """Inputs of the rule, with names checked."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def inputs(self, _wildcards: object) -> dict[str, list[str]]:
        """Return the files of every row, their parity reports where it wants them, and its evaluations.

        Raises:
            KilnError: config/chips/sophon.yaml has no `table`, or it names what there is not.
        """
        settings = settings_from(self.config.chips["sophon"])
        table = self._table()
        artifacts = artifacts_of(table, settings)
        evaluations = [
            group.path(artifact)
            for group in table.accuracy
            for artifact in artifacts
            if group.covers(artifact)
        ]
        evaluations += [group.reference(table.model, table.size) for group in table.accuracy]
        return {
            "bmodels": [f"{RESULTS}/{artifact.path}" for artifact in artifacts],
            "parity": [f"{RESULTS}/parity/{artifact.path}.json" for artifact in artifacts if table.parity],
            "evaluations": [f"{RESULTS}/{path}" for path in dict.fromkeys(evaluations)],
        }

    def _table(self) -> TableSettings:
        table = table_settings(self.config, settings_from(self.config.chips["sophon"]))
        if table is None:
            raise KilnError(
                "no table is declared",
                file="config/chips/sophon.yaml",
                where="table",
                hint="see workflow/schemas/chip_sophon.yaml",
            )
        return table

    def digest(self) -> str:
        """Return a hash of the table's declaration: a change of it makes the table again."""
        return sha256_of_text(repr(self.config.chips.get("sophon", {}).get("table")))[:16]
