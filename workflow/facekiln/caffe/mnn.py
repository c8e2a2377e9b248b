"""Run a Caffe pair in MNN's reader: a second opinion beside OpenCV's. MNN is an optional dependency."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

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


def run_mnn(
    prototxt: Path | str,
    caffemodel: Path | str,
    inputs: Mapping[str, NDArray[np.float32]],
    blobs: Iterable[str] | None = None,
) -> Arrays:
    """Read a pair with MNN and run it once.

    Args:
        prototxt: structure.
        caffemodel: weights.
        inputs: input blob name -> float32 [N, C, H, W].
        blobs: which of the network's outputs; None: all of them.

    Returns:
        blob name -> float32 array.

    Raises:
        KilnError: the files are damaged, MNN is missing or fails, an input is wrong, or a blob is no output.
    """
    net = read_net(prototxt, caffemodel)
    if set(inputs) != set(net.inputs):
        raise KilnError("not the network's inputs", value=sorted(inputs), limit=sorted(net.inputs))
    wanted = net.outputs if blobs is None else list(blobs)
    inner = [name for name in wanted if name not in net.outputs]
    if inner:
        raise KilnError(
            f"MNN cannot be asked for blob '{inner[0]}', which is no output",
            limit="it fuses layers, and then gives another value under that name",
            hint="look inside with OpenCV",
        )
    with tempfile.TemporaryDirectory(prefix="facekiln-mnn-") as folder:
        model = convert_to_mnn(net, Path(folder))
        return _run(model, net, inputs, wanted)


def _run(model: Path, net: Net, inputs: Mapping[str, NDArray[np.float32]], wanted: list[str]) -> Arrays:
    import MNN

    shapes = infer_shapes(net)
    interpreter = MNN.Interpreter(str(model))
    interpreter.setSessionHint(_WINOGRAD_LEVEL, 0)
    session = interpreter.createSession({"numThread": 2, "precision": "high"})
    for name, value in inputs.items():
        host = MNN.Tensor(
            tuple(value.shape),
            MNN.Halide_Type_Float,
            np.ascontiguousarray(value, np.float32),
            MNN.Tensor_DimensionType_Caffe,
        )
        interpreter.getSessionInput(session, name).copyFrom(host)
    interpreter.runSession(session)
    tensors = interpreter.getSessionOutputAll(session)
    result: Arrays = {}
    for name in wanted:
        shape = tuple(tensors[name].getShape())
        host = MNN.Tensor(
            shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), MNN.Tensor_DimensionType_Caffe
        )
        tensors[name].copyToHostTensor(host)
        result[name] = np.array(host.getNumpyData(), np.float32).reshape(shapes[name])
    return result
