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

from facekiln.caffe.geometry import geometry
from facekiln.caffe.net import Layer, Net
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
    write_net(_as_mnn_reads_it(net), prototxt, caffemodel)
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


def _as_mnn_reads_it(net: Net) -> Net:
    """Return the same function in what MNN's reader gets right."""
    net = lowered(net)
    shapes = infer_shapes(net)
    layers: list[Layer] = []
    for layer in net.layers:
        if layer.type == "Concat" and all(len(shapes[bottom]) == 2 for bottom in layer.bottoms):
            layers += _flattened_rows(layer)
        elif layer.type == "Pooling" and _drops_a_window(layer, shapes):
            layers += _pooled_then_thinned(layer, shapes[layer.bottoms[0]][1])
        else:
            layers.append(layer)
    return Net(net.name, net.inputs, layers)


def _flattened_rows(concat: Layer) -> list[Layer]:
    """MNN's InnerProduct gives [N, C, 1, 1], but its Flatten [N, C]: flatten all that a Concat joins."""
    rows = [f"{concat.name}/rows_{place}" for place in range(len(concat.bottoms))]
    flat = [Layer(row, "Flatten", [bottom], [row]) for row, bottom in zip(rows, concat.bottoms, strict=True)]
    return [*flat, Layer(concat.name, "Concat", rows, concat.tops, concat.params)]


def _drops_a_window(layer: Layer, shapes: Mapping[str, list[int]]) -> bool:
    """Whether Caffe drops a last window beyond the padding, which MNN keeps."""
    if layer.params.get("global_pooling"):
        return False
    windows = geometry(layer)
    sides = zip(shapes[layer.bottoms[0]][2:], windows.kernel, windows.stride, windows.pad, strict=True)
    kept = [-(-(side + 2 * pad - kernel) // stride) + 1 for side, kernel, stride, pad in sides]
    return kept != shapes[layer.tops[0]][2:]


def _pooled_then_thinned(layer: Layer, channels: int) -> list[Layer]:
    """Pool at stride 1, which leaves nothing to round, and let a 1x1 convolution of ones take every n-th."""
    windows = geometry(layer)
    dense = f"{layer.name}/dense"
    params = {name: value for name, value in layer.params.items() if not name.startswith("stride")}
    thin: dict[str, Any] = {"num_output": channels, "group": channels, "bias_term": False, "kernel_size": [1]}
    thin |= {"stride_h": windows.stride[0], "stride_w": windows.stride[1]}
    ones = np.ones((channels, 1, 1, 1), np.float32)
    return [
        Layer(dense, "Pooling", layer.bottoms, [dense], {**params, "stride": 1}),
        Layer(layer.name, "Convolution", [dense], layer.tops, thin, [ones]),
    ]


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
            if np.prod(tensors[name].getShape()) != np.prod(self._shapes[name]):
                raise KilnError(
                    f"MNN computes another shape for blob '{name}', or cannot run what leads to it",
                    value=list(tensors[name].getShape()),
                    limit=self._shapes[name],
                    hint="run the network with OpenCV instead; MNN's own words stand above",
                )
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
