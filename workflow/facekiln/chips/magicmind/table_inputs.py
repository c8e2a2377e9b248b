"""What the rule of the MagicMind tables asks: which measurements and evaluations they are made from."""

from __future__ import annotations

from pathlib import Path

from facekiln.artifact import sha256_of_text
from facekiln.boards.settings import load_boards
from facekiln.chips.magicmind.names import PRECISIONS, batch_from
from facekiln.chips.magicmind.settings import TableSettings, settings_from
from facekiln.chips.magicmind.table import card_of
from facekiln.config import DEFAULT_FOLDER, Config, known
from facekiln.errors import KilnError
from facekiln.targets import RESULTS


class MagicmindTableTargets:
    """Inputs of the rule, with names checked."""

    def __init__(self, config: Config, folder: Path | str = DEFAULT_FOLDER) -> None:
        self.config, self._folder = config, folder
        self._settings = settings_from(config.chips["magicmind"])

    def inputs(self, _wildcards: object) -> dict[str, list[str]]:
        """Return `records` of every mode, batch and board, and `evaluations` with their float references.

        Raises:
            KilnError: no table is declared, or it names a model, size, batch or board that there is not.
        """
        table = self._table()
        boards = self._boards(table)
        records, evaluations = [], []
        for model, size in table.models:
            self.config.model(model).size(size)
            stem = f"magicmind/{model}_{size}"
            for board in boards:
                records += [
                    f"{RESULTS}/bench/{board}/{stem}_{mode}_{batch_from(batch)}b.mm.json"
                    for mode in PRECISIONS
                    for batch in table.batches
                ]
            for evaluator, dataset in table.accuracy:
                place = f"{RESULTS}/eval/{evaluator}"
                evaluations.append(f"{place}/onnxruntime/onnx/{model}_{size}.sim.onnx/{dataset}.json")
                evaluations += [
                    f"{place}/magicmind-emulator/{stem}_{mode}_1b.mm/{dataset}.json" for mode in PRECISIONS
                ]
        return {"records": records, "evaluations": evaluations}

    def _boards(self, table: TableSettings) -> list[str]:
        boards = load_boards(self._folder)
        if not table.boards:
            return [name for name, board in boards.items() if card_of(board.chip, self._settings)]
        for name in table.boards:
            if card_of(boards[known(name, boards, "board")].chip, self._settings) is None:
                raise KilnError(
                    "has none of the cards",
                    file="config/boards.yaml",
                    where=f"{name}.chip",
                    value=boards[name].chip,
                    limit=", ".join(self._settings.cards),
                )
        return list(table.boards)

    def _table(self) -> TableSettings:
        if self._settings.table is None:
            raise KilnError(
                "no table is declared",
                file="config/chips/magicmind.yaml",
                where="table",
                hint="see workflow/schemas/chip_magicmind.yaml",
            )
        return self._settings.table

    def digest(self) -> str:
        """Return a hash of what is declared: a change of it makes the tables again."""
        return sha256_of_text(repr((self._settings.table, self._settings.cards)))[:16]


def options_of(files: dict[str, list[str]]) -> list[str]:
    """Return the command's options for a rule's inputs (see `MagicmindTableTargets.inputs`)."""
    options: list[str] = []
    for name in ("records", "evaluations"):
        if found := files.get(name):
            options += [f"--{name}", *([found] if isinstance(found, str) else found)]
    return options
