"""The real ncnn, through its wheel: the runtime that proves the files made here."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.ncnn.model import NcnnModel, bin_of, read_model
from facekiln.errors import KilnError

INSTALL = 'pip install -e ".[ncnn]"'
Values = dict[str, NDArray[np.float32]]


def load_ncnn() -> Any:
    """Return the ncnn module.

    Its OpenMP threads are told to sleep rather than spin while they wait, unless `OMP_WAIT_POLICY` says
    otherwise: on a busy machine RFB-320 takes 28 ms so, and seconds with spinning.

    Raises:
        KilnError: it is not installed, or does not load here.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return importlib.import_module("ncnn")
    except ImportError as error:
        raise KilnError(f"ncnn cannot be imported: {error}", hint=INSTALL) from error


class NcnnNet:
    """A `.param` and `.bin` in ncnn.

    Floats are computed as float32: ncnn's own storage in fp16 and bf16 is off, so that what is measured is
    the file and not a device. The input is given as it is, without pixels' conversion.

    Attributes:
        model: the files' content.
        inputs, outputs: blob names, in the order of their indices.
    """

    def __init__(
        self, param: Path | str, *, threads: int = 2, keep_all: bool = False, winograd: bool = True
    ) -> None:
        """Load a model, having read it with our own reader first: ncnn crashes on some damaged files.

        Args:
            param: the `.param`; its `.bin` is beside it.
            threads: of ncnn.
            keep_all: keep every blob, for `trace`.
            winograd: let 3x3 convolutions go through Winograd's transforms, as is ncnn's default.

        Raises:
            KilnError: ncnn is missing, or the files are damaged or not for this ncnn.
        """
        ncnn = load_ncnn()
        self.model: NcnnModel = read_model(param)
        self._param = Path(param)
        net = ncnn.Net()
        options = net.opt
        options.num_threads = threads
        options.lightmode = not keep_all
        options.use_winograd_convolution = winograd
        options.use_int8_inference = True
        for name in (
            "use_vulkan_compute",
            "use_fp16_packed",
            "use_fp16_storage",
            "use_fp16_arithmetic",
            "use_bf16_packed",
            "use_bf16_storage",
        ):
            if hasattr(options, name):
                setattr(options, name, False)
        if net.load_param(str(param)) != 0:
            raise KilnError("ncnn does not take this graph", file=param, hint="see what ncnn printed above")
        if net.load_model(str(bin_of(param))) != 0:
            raise KilnError(
                "ncnn does not take these weights", file=bin_of(param), hint="see what ncnn printed above"
            )
        self._ncnn, self._net = ncnn, net
        self.inputs, self.outputs = self.model.graph.inputs(), self.model.graph.outputs()

    def run(self, feeds: Mapping[str, NDArray[np.float32]], blobs: Sequence[str] | None = None) -> Values:
        """Run once.

        Args:
            feeds: input blob -> float32 [1, C, H, W].
            blobs: what to return; the outputs where None.

        Returns:
            Blob -> float32 with ncnn's own shape (no batch): [C, H, W], [rows, values] or [values]; an int8
            blob as its integers.

        Raises:
            KilnError: ncnn refuses the input or cannot give a blob.
        """
        values: Values = {}
        with self._net.create_extractor() as extractor:
            for name, value in feeds.items():
                # ncnn does not keep the array alive, so it gets a copy of its own.
                mat = self._ncnn.Mat(np.ascontiguousarray(value[0], np.float32)).clone()
                if extractor.input(name, mat) != 0:
                    raise KilnError(f"has no input '{name}'", file=self._param, limit=", ".join(self.inputs))
            for name in self.outputs if blobs is None else blobs:
                status, mat = extractor.extract(name)
                if status != 0:
                    raise KilnError(
                        f"ncnn cannot compute blob '{name}' (status {status})",
                        file=self._param,
                        value={key: list(value.shape) for key, value in feeds.items()},
                        hint="is this the size that the file was made for?",
                    )
                values[name] = np.array(mat, np.float32)
        return values

    def trace(self, feeds: Mapping[str, NDArray[np.float32]]) -> Values:
        """Return every blob of one run, in the order of their indices (wants `keep_all`)."""
        return self.run(feeds, [blob for blob in self.model.graph.blobs() if blob not in self.inputs])
