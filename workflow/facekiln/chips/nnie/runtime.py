"""Run an emulated `.wk`: pictures in, the board's outputs out. The vendor's files are for chips only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.nnie.engine.engine import Engine
from facekiln.chips.nnie.mapper.build import FORMAT
from facekiln.chips.nnie.mapper.inputs import normalised, picture_to_planes
from facekiln.chips.nnie.wk import payload
from facekiln.chips.nnie.wk.read import instructions_of, parse_wk, read_bytes
from facekiln.errors import KilnError
from facekiln.vision.heads import HeadMap, heads_from_json

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class WkInput:
    """An input of a `.wk`, with the preprocessing that the chip does.

    Attributes:
        name: the blob's name.
        shape: [1, C, H, W].
        order: RGB or BGR, the order in which the network sees the channels.
        mean, scale: `(x - mean) * scale`.
        image: whether it takes U8 pictures; else it takes feature maps as they are.
    """

    name: str
    shape: list[int]
    order: str
    mean: NDArray[np.float32]
    scale: float
    image: bool

    @property
    def height(self) -> int:
        """Rows."""
        return self.shape[2]

    @property
    def width(self) -> int:
        """Columns."""
        return self.shape[3]


class WkRuntime:
    """An emulated `.wk`, ready to run.

    Attributes:
        path: the file.
        bits: 8 or 16; 16 for a mixed file.
        heads: what the outputs are; empty where the mapper was given no heads file.
        inputs: all inputs; `input` is the first.
        original_names: blob's name -> its name before legalisation, where they differ.
        facts: what the mapper noted.
    """

    def __init__(self, path: Path | str, threads: int = 2) -> None:
        """Open a file.

        Raises:
            KilnError: the vendor's, damaged, or written by another release.
        """
        self.path = Path(path)
        data = read_bytes(path)
        container = parse_wk(data, path)
        if not container.emulated:
            raise KilnError(
                "holds the vendor's instructions, which only an NNIE can run",
                file=path,
                value=f"mapper {'.'.join(map(str, container.version))}",
                hint="run it on a board, or map the same network with mapper.mode emulator",
            )
        if problems := container.problems():
            raise KilnError(f"is damaged: {'; '.join(problems)}", file=path, hint="build it again")
        try:
            self._open(payload.decode(instructions_of(data, container)), threads)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KilnError(f"its payload is damaged: {error!r}", file=path, hint="build it again") from error
        except KilnError as error:
            raise KilnError(str(error), file=path) from error

    def _open(self, tree: dict[str, Any], threads: int) -> None:
        if tree["format"] != FORMAT:
            raise KilnError(
                "was written by another release", value=tree["format"], limit=FORMAT, hint="build it again"
            )
        self.facts: dict[str, Any] = tree["facts"]
        self.bits = int(self.facts["bits"])
        self.heads: list[HeadMap] = heads_from_json(tree["heads"]) if tree["heads"] else []
        self.original_names: dict[str, str] = tree["original_names"]
        self.prototxt: str = tree["prototxt"]
        self.inputs = [
            WkInput(
                entry["name"],
                list(entry["shape"]),
                entry["order"],
                np.asarray(entry["mean"], np.float32),
                float(entry["scale"]),
                entry["image_type"] != 0,
            )
            for entry in tree["inputs"]
        ]
        self._engine = Engine.from_state(tree["engine"], threads)

    @property
    def input(self) -> WkInput:
        """The first input."""
        return self.inputs[0]

    @property
    def outputs(self) -> list[str]:
        """Output blobs in the order that board code indexes by."""
        return self._engine.outputs

    def prepare(self, picture: NDArray[Any]) -> NDArray[np.float32]:
        """Return what the chip computes of a picture before the first layer: float32 [1, C, H, W].

        Args:
            picture: uint8 BGR [H, W, 3] at the input's size, as boards feed it; or float32 [1, C, H, W]
                that is
                prepared already, which is returned as it is.

        Raises:
            KilnError: another kind or size.
        """
        if picture.dtype == np.float32 and list(picture.shape) == self.input.shape:
            return picture
        wanted = (self.input.height, self.input.width, 3)
        if picture.dtype != np.uint8 or picture.shape != wanted or not self.input.image:
            raise KilnError(
                "is not an input of this .wk",
                file=self.path,
                value=f"{picture.dtype} {list(picture.shape)}",
                limit=f"uint8 {list(wanted)} BGR, or float32 {self.input.shape}",
            )
        planes = picture_to_planes(picture, self.input.shape, self.input.order, "nearest")
        return normalised(planes, self.input.mean, self.input.scale)

    def run(self, picture: NDArray[Any]) -> Arrays:
        """Return every output by blob name, in output order: float32 multiples of 1/4096 in the blob's shape.

        Raises:
            KilnError: see `prepare`; or the file has several inputs.
        """
        return self._engine.run(self._feeds(picture))

    def trace(self, picture: NDArray[Any]) -> Arrays:
        """Return every blob as the chip stores it, in execution order.

        Raises:
            KilnError: see `run`.
        """
        return self._engine.run(self._feeds(picture), trace=True)

    def _feeds(self, picture: NDArray[Any]) -> Arrays:
        if len(self.inputs) != 1:
            raise KilnError(
                "has several inputs; pictures go into one",
                file=self.path,
                value=[i.name for i in self.inputs],
            )
        return {self.input.name: self.prepare(picture)}
