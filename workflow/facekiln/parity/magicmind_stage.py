"""An emulated `.mm` as a stage; one of the vendor's is refused, as only its card runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.magicmind.container import EmulatedModel, read_emulated
from facekiln.chips.magicmind.runtime import MagicmindRuntime
from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.vision.preprocess import to_tensor

Picture = NDArray[np.uint8]
Arrays = dict[str, NDArray[np.float32]]
PRECISION = {"force_float32": "float", "force_float16": "float16", "qint8_mixed_float16": "int8"}


class MagicmindStage:
    """See `facekiln.parity.executors.Stage`. The network inside is of batch 1, whatever the file takes."""

    name, emulated = "magicmind-emulator", True

    def __init__(self, path: Path, model: Model) -> None:
        self._path, self._model = path, model
        held = read_emulated(path)
        # One picture is asked for: seven more of the same in a batch of 8 would be computed for nothing.
        self._held = EmulatedModel({**held.told, "batch": [1, 1]}, held.onnx)
        self._runtime = MagicmindRuntime(self._held)
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
        return {name: values[name] for name in self._model.outputs}

    def trace(self, picture: Picture) -> Arrays:
        """See `Stage.trace`; results that were rounded to float16 have the ONNX tensor's name."""
        if self._traced is None:
            self._traced = MagicmindRuntime(self._held, intermediates=True)
        return self._traced.run(self._feed(picture))

    def name_in_parent(self, tensor: str) -> str | None:
        """Tensors keep their ONNX names; those of roundings have none there."""
        return None if tensor.endswith(("_int8", "_int8_code", "_sum", "_half")) else tensor

    def _feed(self, picture: Picture) -> NDArray[np.generic]:
        if self._runtime.told["input"] == "uint8_nhwc":
            rgb = self._model.input.colour == "rgb"
            return np.ascontiguousarray(picture[..., ::-1] if rgb else picture)[None]
        return to_tensor(picture, self._model.input)
