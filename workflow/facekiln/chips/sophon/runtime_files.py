"""What must lie beside a file that runs: its chip's C model as a link, its quantised model's weights."""

from __future__ import annotations

import re
from pathlib import Path

from facekiln.chips.sophon.bmodel import read_bmodel
from facekiln.chips.sophon.environment import Environment
from facekiln.errors import KilnError
from facekiln.unreadable import unreadable

TWIN_FILE = "final.mlir"
# By the chip's name in the file (model_runner.py of tpu_mlir 1.26).
_LIBRARIES = {
    "BM1684": "libcmodel_1684.so",
    "BM1684X": "libcmodel_1684x.so",
    "BM1688": "libcmodel_1688.so",
    "CV186X": "libcmodel_1688.so",
}
_WEIGHTS = re.compile(rb'module\.weight_file = "([^"/]+)"')


def link_library(bmodel: Path, folder: Path, environment: Environment) -> str:
    """Put a link `libcmodel.so` to the C model of a bmodel's chip into a folder, and return the chip.

    Raises:
        KilnError: the file is damaged, or its chip has no C model here.
    """
    chip = read_bmodel(bmodel).chip
    if chip not in _LIBRARIES:
        raise KilnError(
            "is for a chip without C model here", file=bmodel, value=chip, limit=", ".join(_LIBRARIES)
        )
    library = environment.tool_root / "lib" / _LIBRARIES[chip]
    if not library.is_file():
        raise KilnError(
            "the chip's C model is missing", file=library, hint="facekiln sophon environment --check"
        )
    (folder / "libcmodel.so").symlink_to(library.resolve())
    return chip


def find_twin(path: Path) -> Path:
    """Return the .mlir of a twin, given that or its folder, once its weights are found beside it.

    Raises:
        KilnError: it cannot be read, or its weights, which it names without a folder, are not there.
    """
    network = path / TWIN_FILE if path.is_dir() else path
    try:
        with network.open("rb") as stream:
            found = _WEIGHTS.search(stream.read(1 << 20))
    except OSError as error:
        raise unreadable(network, error) from error
    weights = network.parent / found[1].decode() if found else None
    if weights is None or not weights.is_file():
        raise KilnError(
            "its weights are not beside it",
            file=network,
            where="module.weight_file",
            value=weights,
            hint="make the twin again with its rule",
        )
    return network
