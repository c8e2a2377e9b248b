"""The tables that int8 is compiled with, put into a job's folder once they are known to be the network's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facekiln.artifact import read_bytes, write_bytes
from facekiln.chips.sophon.mlir import read_mlir
from facekiln.chips.sophon.qtable import check_qtable, read_qtable
from facekiln.chips.sophon.table import check_table, read_table
from facekiln.chips.sophon.transform import TOP

# Their names in a job's folder.
TABLE, QTABLE = "calibration.table", "mixed.qtable"


@dataclass(frozen=True)
class Tables:
    """What int8 needs: thresholds, and the operators that stay in float, where there are such."""

    calibration: Path | None = None
    mixed: Path | None = None

    def files(self) -> list[Path]:
        """Return those that are given."""
        return [path for path in (self.calibration, self.mixed) if path]


def stage_tables(tables: Tables, job: Path, chip: str) -> None:
    """Copy tables into a job's folder under the names that `deploy_arguments` uses.

    Args:
        tables: of the network that is staged there.
        job: the folder.
        chip: that is compiled for.

    Raises:
        KilnError: one cannot be read, or is of another network or chip: the tool would take long for it, or
            pass over rows that it does not know.
    """
    if not tables.files():
        return
    network = read_mlir(job / TOP)
    if tables.calibration:
        check_table(read_table(tables.calibration), network, tables.calibration)
        write_bytes(job / TABLE, read_bytes(tables.calibration))
    if tables.mixed:
        check_qtable(read_qtable(tables.mixed), network, chip, tables.mixed)
        write_bytes(job / QTABLE, read_bytes(tables.mixed))
