"""An emulated `.mm` as a stage; one of the vendor's is refused, as only its card runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.magicmind.container import read_emulated
from facekiln.chips.magicmind.runtime import MagicmindRuntime
from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.vision.preprocess import to_tensor

Picture = NDArray[np.uint8]
Arrays = dict[str, NDArray[np.float32]]
PRECISION = {"force_float32": "float", "force_float16": "float16", "qint8_mixed_float16": "int8"}


class MagicmindStage:
    """See `facekiln.parity.executors.Stage`. A larger batch is the same picture, as often as it takes."""

    name, emulated = "magicmind-emulator", True

    def __init__(self, path: Path, model: Model) -> None:
        self._path, self._model = path, model
        self._runtime = MagicmindRuntime(read_emulated(path))
        self._traced: MagicmindRuntime | None = None
        told = self._runtime.told
        self.precision = PRECISION[told["precision"]]
        if sorted(told["outputs"]) != sorted(model.outputs):
            raise KilnError(
                f"has other outputs than model '{model.name}'",
                file=path,
                value=told["outputs"],
                limit=list(model.outputs),
            )
        if told["mean"] != list(map(float, model.input.mean)) or told["scale"] != list(
            map(float, model.input.scale)
        ):
            raise KilnError(
                f"normalises otherwise than model '{model.name}'",
                file=path,
                value=f"mean {told['mean']}, scale {told['scale']}",
                limit=f"mean {list(model.input.mean)}, scale {list(model.input.scale)}",
                hint="rebuild it with its rule",
            )

    def run(self, picture: Picture) -> Arrays:
        """See `Stage.run`."""
        values = self._runtime.run(self._feed(picture))
        return {name: values[name][:1] for name in self._model.outputs}

    def trace(self, picture: Picture) -> Arrays:
        """See `Stage.trace`; results that were rounded to float16 have the ONNX tensor's name."""
        if self._traced is None:
            self._traced = MagicmindRuntime(self._path, intermediates=True)
        return {name: value[:1] for name, value in self._traced.run(self._feed(picture)).items()}

    def name_in_parent(self, tensor: str) -> str | None:
        """Tensors keep their ONNX names; those of roundings have none there."""
        return None if tensor.endswith(("_int8", "_int8_code", "_sum", "_half")) else tensor

    def _feed(self, picture: Picture) -> NDArray[np.generic]:
        if self._runtime.told["input"] == "uint8_nhwc":
            rgb = self._model.input.colour == "rgb"
            one: NDArray[np.generic] = np.ascontiguousarray(picture[..., ::-1] if rgb else picture)[None]
        else:
            one = to_tensor(picture, self._model.input)
        return np.repeat(one, self._runtime.told["batch"][0], axis=0)
