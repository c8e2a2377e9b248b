"""Run a Caffe pair in MNN's reader: a second opinion beside OpenCV's. MNN is an optional dependency."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.net import Net
from facekiln.caffe.opencv import lowered
from facekiln.caffe.reader import read_net
from facekiln.caffe.shapes import infer_shapes
from facekiln.caffe.writer import write_net
from facekiln.errors import KilnError

Arrays = dict[str, NDArray[np.float32]]

# MNN's console script installs a package and posts its arguments to a remote host before it converts; the
# module below it does neither.
_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv[1:])"

# MNN's larger Winograd tiles lose digits (5e-4 of scale against 1e-5, measured); level 0 takes small tiles.
_WINOGRAD_LEVEL = 3


def convert_to_mnn(net: Net, folder: Path) -> Path:
    """Convert a network with weights, in a child process that works in `folder`; return the .mnn file.

    Raises:
        KilnError: MNN is not installed, or its converter fails.
    """
    prototxt, caffemodel, target = folder / "net.prototxt", folder / "net.caffemodel", folder / "net.mnn"
    write_net(lowered(net), prototxt, caffemodel)
    arguments = ["mnnconvert", "-f", "CAFFE", "--modelFile", caffemodel.name, "--prototxt", prototxt.name]
    arguments += ["--MNNModel", target.name, "--bizCode", "facekiln"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", _CONVERT, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if "No module named '_tools'" in done.stderr:
        raise KilnError("MNN is not installed", hint='pip install "MNN>=3.1,<4"')
    if done.returncode or not target.is_file():
        raise KilnError(f"MNN cannot convert the network: {(done.stdout + done.stderr).strip()[-800:]}")
    return target


class MnnNet:
    """A network converted and loaded into MNN once, to be run many times."""

    def __init__(self, net: Net) -> None:
        """Convert and load a network with weights.

        Raises:
            KilnError: MNN is not installed, or refuses the network.
        """
        with tempfile.TemporaryDirectory(prefix="facekiln-mnn-") as folder:
            model = convert_to_mnn(net, Path(folder))
            import MNN

            self._mnn = MNN
            self._interpreter = MNN.Interpreter(str(model))
            self._interpreter.setSessionHint(_WINOGRAD_LEVEL, 0)
            self._session = self._interpreter.createSession({"numThread": 2, "precision": "high"})
        self._net, self._shapes = net, infer_shapes(net)

    def run(self, inputs: Mapping[str, NDArray[np.float32]], blobs: Iterable[str] | None = None) -> Arrays:
        """Run once.

        Args:
            inputs: input blob name -> float32 [N, C, H, W].
            blobs: which of the network's outputs; None: all of them.

        Returns:
            blob name -> float32 array.

        Raises:
            KilnError: an input is not the network's, or a blob is no output.
        """
        if set(inputs) != set(self._net.inputs):
            raise KilnError("not the network's inputs", value=sorted(inputs), limit=sorted(self._net.inputs))
        wanted = self._net.outputs if blobs is None else list(blobs)
        inner = [name for name in wanted if name not in self._net.outputs]
        if inner:
            raise KilnError(
                f"MNN cannot be asked for blob '{inner[0]}', which is no output",
                limit="it fuses layers, and then gives another value under that name",
                hint="look inside with OpenCV",
            )
        for name, value in inputs.items():
            self._interpreter.getSessionInput(self._session, name).copyFrom(self._host(value))
        self._interpreter.runSession(self._session)
        tensors = self._interpreter.getSessionOutputAll(self._session)
        result: Arrays = {}
        for name in wanted:
            host = self._host(np.zeros(tuple(tensors[name].getShape()), np.float32))
            tensors[name].copyToHostTensor(host)
            result[name] = np.array(host.getNumpyData(), np.float32).reshape(self._shapes[name])
        return result

    def _host(self, value: NDArray[np.float32]) -> Any:
        contiguous = np.ascontiguousarray(value, np.float32)
        mnn = self._mnn
        return mnn.Tensor(
            tuple(value.shape), mnn.Halide_Type_Float, contiguous, mnn.Tensor_DimensionType_Caffe
        )


def run_mnn(
    prototxt: Path | str,
    caffemodel: Path | str,
    inputs: Mapping[str, NDArray[np.float32]],
    blobs: Iterable[str] | None = None,
) -> Arrays:
    """Read a pair with MNN and run it once (see `MnnNet`).

    Raises:
        KilnError: the files are damaged, MNN is missing or fails, an input is wrong, or a blob is no output.
    """
    return MnnNet(read_net(prototxt, caffemodel)).run(inputs, blobs)
