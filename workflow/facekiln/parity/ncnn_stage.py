"""A `.param` and `.bin` as a stage, in the real ncnn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.ncnn.runtime import NcnnNet
from facekiln.chips.ncnn.weights import int8_term
from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.provenance import read_record
from facekiln.vision.preprocess import to_tensor

Picture = NDArray[np.uint8]
Arrays = dict[str, NDArray[np.float32]]
_PRECISION = {"fp32": "float", "fp16": "float16", "mixed": "float16", "int8": "int8"}


class NcnnStage:
    """See `facekiln.parity.executors.Stage`."""

    name, emulated = "ncnn", False

    def __init__(self, path: Path, model: Model, threads: int = 2) -> None:
        self._path, self._model, self._threads = path, model, threads
        self._net = NcnnNet(path, threads=threads)
        if sorted(self._net.outputs) != sorted(model.outputs) or self._net.inputs != [model.input.name]:
            raise KilnError(
                f"has other inputs or outputs than model '{model.name}'",
                file=path,
                value=[*self._net.inputs, *self._net.outputs],
                limit=[model.input.name, *model.outputs],
            )
        self.precision = _PRECISION[self._net.model.storage()]
        record = read_record(path)
        self._tensors: Mapping[str, str] = record.facts.get("tensor_of_blob", {}) if record else {}

    def run(self, picture: Picture) -> Arrays:
        """See `Stage.run`."""
        return {name: value[None] for name, value in self._net.run(self._feeds(picture)).items()}

    def trace(self, picture: Picture) -> Arrays:
        """See `Stage.trace`; blobs that are int8 are brought back to their scale."""
        net = NcnnNet(self._path, threads=self._threads, keep_all=True)
        values = net.trace(self._feeds(picture))
        scales: dict[str, np.float32] = {}
        for layer in net.model.graph:
            top = net.model.blob(layer.name, "top_scale")
            if int8_term(layer) > 100 and top is not None:
                scales[layer.tops[0]] = top.values.astype(np.float32)[0]
            elif layer.type == "Split" and layer.bottoms[0] in scales:
                scales.update(dict.fromkeys(layer.tops, scales[layer.bottoms[0]]))
        values.update({blob: values[blob] / scale for blob, scale in scales.items()})
        return {name: value[None] for name, value in values.items()}

    def name_in_parent(self, tensor: str) -> str | None:
        """The ONNX tensor that the blob was converted from; outputs have the model's own names."""
        return tensor if tensor in self._model.outputs else self._tensors.get(tensor)

    def _feeds(self, picture: Picture) -> Arrays:
        return {self._model.input.name: to_tensor(picture, self._model.input)}
