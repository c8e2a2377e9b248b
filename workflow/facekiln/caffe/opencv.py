"""Run a Caffe pair in OpenCV's own reader, which we did not write (OpenCV 4; 5 removed it)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.dataflow import single_assignment
from facekiln.caffe.geometry import axis_of, geometry
from facekiln.caffe.net import Net
from facekiln.caffe.reader import read_net
from facekiln.caffe.shapes import infer_shapes
from facekiln.caffe.writer import caffemodel_bytes, prototxt_text
from facekiln.errors import KilnError

Arrays = dict[str, NDArray[np.float32]]


def lowered(net: Net) -> Net:
    """Return the same function in what OpenCV reads.

    DepthwiseConv becomes a grouped Convolution, from which it differs in nothing but the name that some
    chips' tools ask for; a Slice into equal parts gets its points.
    """
    net = net.copy()
    shapes = infer_shapes(net)
    for layer in net.layers:
        if layer.type in ("DepthwiseConv", "ConvolutionDepthwise"):
            layer.type = "Convolution"
        if layer.type == "Slice" and not layer.params.get("slice_point"):
            axis = axis_of(layer, len(shapes[layer.bottoms[0]]), int(layer.params.get("slice_dim", 1)))
            points = itertools.accumulate(shapes[top][axis] for top in layer.tops[:-1])
            layer.params["slice_point"] = list(points)
    return net


def _refuse_known_defects(net: Net) -> None:
    """Refuse what OpenCV 4 gets wrong: a 1x1 Deconvolution ignores its pad and writes past its output."""
    for layer in net.layers:
        if layer.type != "Deconvolution":
            continue
        windows = geometry(layer)
        if windows.kernel == windows.stride == (1, 1) and windows.pad != (0, 0):
            raise KilnError(
                "a padded Deconvolution of kernel 1 and stride 1 crashes OpenCV 4",
                where=f"layer '{layer.name}'",
                hint="run the network with MNN instead",
            )


class OpenCvNet:
    """A network loaded into OpenCV once, to be run many times."""

    def __init__(self, net: Net) -> None:
        """Load a network with weights.

        Raises:
            KilnError: OpenCV has no Caffe reader (version 5), refuses the network, or is known to fail on it.
        """
        if not hasattr(cv2.dnn, "readNetFromCaffe"):
            raise KilnError(
                "this OpenCV has no Caffe reader",
                value=cv2.__version__,
                hint='pip install "opencv-python-headless<5"',
            )
        _refuse_known_defects(net)
        self.inputs = list(net.inputs)
        # OpenCV is asked by layer name, and renames layers that end a network after their blob. With one
        # writer per blob and each layer named like its first blob, names mean one thing only.
        unrolled, self._final = single_assignment(lowered(net))
        for layer in unrolled.layers:
            layer.name = layer.tops[0]
        self._layer_of = {top: layer for layer in unrolled.layers for top in layer.tops}
        text = np.frombuffer(prototxt_text(unrolled).encode(), np.uint8)
        model = np.frombuffer(caffemodel_bytes(unrolled), np.uint8)
        try:
            self._runner = cv2.dnn.readNetFromCaffe(text, model)
        except cv2.error as error:
            raise KilnError(f"OpenCV cannot read the network: {error}") from error
        # Fused layers leave blobs in between unwritten, and Winograd's transform costs digits.
        self._runner.enableFusion(False)
        self._runner.enableWinograd(False)

    def run(self, inputs: Mapping[str, NDArray[np.float32]], blobs: Iterable[str] | None = None) -> Arrays:
        """Run once.

        Args:
            inputs: input blob name -> float32 [N, C, H, W].
            blobs: the blobs wanted; None: all, in execution order. Where layers work in place, a name means
                the last of them.

        Returns:
            blob name -> float32 array.

        Raises:
            KilnError: an unknown blob or input, or OpenCV fails.
        """
        wanted = [name for name in self._final if name not in self.inputs] if blobs is None else list(blobs)
        unknown = [name for name in wanted if name not in self._final]
        if unknown:
            raise KilnError(f"the network has no blob '{unknown[0]}'")
        if set(inputs) != set(self.inputs):
            raise KilnError("not the network's inputs", value=sorted(inputs), limit=sorted(self.inputs))
        tops = [self._final[name] for name in wanted]
        layers = list(dict.fromkeys(self._layer_of[top].name for top in tops if top in self._layer_of))
        values: Arrays = dict(inputs)
        try:
            for name, value in inputs.items():
                self._runner.setInput(np.ascontiguousarray(value, np.float32), name)
            answers = self._runner.forwardAndRetrieve(layers)
        except cv2.error as error:
            raise KilnError(f"OpenCV cannot run the network: {error}") from error
        for name, answer in zip(layers, answers, strict=True):
            # A pooling answers with the places of its maxima too, which have no blob in Caffe.
            values.update(zip(self._layer_of[name].tops, map(np.array, answer), strict=False))
        return {name: values[top] for name, top in zip(wanted, tops, strict=True)}


def run_opencv(
    prototxt: Path | str,
    caffemodel: Path | str,
    inputs: Mapping[str, NDArray[np.float32]],
    blobs: Iterable[str] | None = None,
) -> Arrays:
    """Read a pair and run it once; see `OpenCvNet.run`.

    Raises:
        KilnError: the files are damaged, or as `OpenCvNet`.
    """
    return OpenCvNet(read_net(prototxt, caffemodel)).run(inputs, blobs)
