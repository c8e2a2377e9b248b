"""ONNX Runtime for quantisation: sessions, and pictures as a network takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.vision.image import read_image
from facekiln.vision.preprocess import to_tensor

Arrays = dict[str, NDArray[Any]]
THREADS = 2


class Session:
    """An ONNX Runtime session that computes in float32 what the graph says, QDQ pairs one by one."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Open a model.

        Raises:
            KilnError: ONNX Runtime does not take it.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = THREADS
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # No integer kernels: a pair of QuantizeLinear and DequantizeLinear is to round and nothing else, and
        # stored weights are dequantised once, when the session opens.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own types, which it does not export
            raise KilnError(f"ONNX Runtime does not take the graph: {error}") from error
        self._partly = onnxruntime.RunOptions()
        self._partly.only_execute_path_to_fetches = True
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Arrays, outputs: Sequence[str] | None = None) -> Arrays:
        """Return outputs by name, all of them or some; nodes that those do not need are not run."""
        names = list(outputs or self.outputs)
        return dict(zip(names, self._session.run(names, feeds, self._partly), strict=True))


class Pictures(Sequence[NDArray[np.float32]]):
    """Input tensors, made when asked for: float32 [1, 3, H, W]."""

    def __init__(self, count: int, make: Callable[[int], NDArray[np.float32]]) -> None:
        """List `count` inputs."""
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._make(range(self._count)[index])


def pictures_of_set(folder: Path, model: Model, most: int | None = None) -> Pictures:
    """Return the pictures of a calibration set as a model takes them.

    Raises:
        KilnError: there is no set; on access, a picture is missing.
    """
    from facekiln.data.calibration import read_calibration

    paths = [folder / item["path"] for item in read_calibration(folder)["pictures"]][:most]
    return Pictures(len(paths), lambda index: to_tensor(read_image(paths[index]), model.input))


def pictures_in_memory(images: Sequence[NDArray[np.uint8]], model: Model) -> Pictures:
    """Return fitted pictures (uint8 BGR [H, W, 3]) as a model takes them."""
    return Pictures(len(images), lambda index: to_tensor(images[index], model.input))


def runs_within(sizes: Iterable[int], limit: int) -> list[list[int]]:
    """Divide things of these sizes, by their numbers and in order, into runs of at most `limit` together.

    One that is larger is a run of its own. Nothing at all is one empty run.
    """
    runs: list[list[int]] = [[]]
    held = 0
    for index, size in enumerate(sizes):
        if runs[-1] and held + size > limit:
            runs.append([])
            held = 0
        runs[-1].append(index)
        held += size
    return runs
