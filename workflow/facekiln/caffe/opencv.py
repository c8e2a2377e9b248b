"""Run a Caffe pair in OpenCV's own reader, which we did not write (OpenCV 4; 5 removed it)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.dataflow import INPUT, last_writers
from facekiln.caffe.net import Net
from facekiln.caffe.reader import read_net
from facekiln.caffe.writer import caffemodel_bytes, prototxt_text
from facekiln.errors import KilnError

Arrays = dict[str, NDArray[np.float32]]


def lowered(net: Net) -> Net:
    """Return the same function in layer types that OpenCV has: DepthwiseConv becomes a grouped Convolution.

    The two differ in nothing but the type's name, which some chips' tools ask for.
    """
    net = net.copy()
    for layer in net.layers:
        if layer.type in ("DepthwiseConv", "ConvolutionDepthwise"):
            layer.type = "Convolution"
    return net


class OpenCvNet:
    """A network loaded into OpenCV once, to be run many times."""

    def __init__(self, net: Net) -> None:
        """Load a network with weights.

        Raises:
            KilnError: OpenCV has no Caffe reader (version 5), or refuses the network.
        """
        if not hasattr(cv2.dnn, "readNetFromCaffe"):
            raise KilnError(
                "this OpenCV has no Caffe reader",
                value=cv2.__version__,
                hint='pip install "opencv-python-headless<5"',
            )
        self.net = lowered(net)
        text = np.frombuffer(prototxt_text(self.net).encode(), np.uint8)
        model = np.frombuffer(caffemodel_bytes(self.net), np.uint8)
        try:
            self._runner = cv2.dnn.readNetFromCaffe(text, model)
        except cv2.error as error:
            raise KilnError(f"OpenCV cannot read the network: {error}") from error
        self._writers = last_writers(self.net)

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
        wanted = (
            [name for name in self._writers if name not in self.net.inputs] if blobs is None else list(blobs)
        )
        unknown = [name for name in wanted if name not in self._writers]
        if unknown:
            raise KilnError(f"the network has no blob '{unknown[0]}'")
        if set(inputs) != set(self.net.inputs):
            raise KilnError("not the network's inputs", value=sorted(inputs), limit=sorted(self.net.inputs))
        # OpenCV is asked by layer, and answers with all of a layer's tops.
        layers = list(dict.fromkeys(self._writers[name] for name in wanted if self._writers[name] != INPUT))
        try:
            for name, value in inputs.items():
                self._runner.setInput(np.ascontiguousarray(value, np.float32), name)
            answers = self._runner.forwardAndRetrieve([self.net.layers[index].name for index in layers])
        except cv2.error as error:
            raise KilnError(f"OpenCV cannot run the network: {error}") from error
        values: Arrays = {
            top: np.array(value, np.float32)
            for index, tops in zip(layers, answers, strict=True)
            for top, value in zip(self.net.layers[index].tops, tops, strict=True)
            if self._writers[top] == index
        }
        values.update(inputs)
        return {name: values[name] for name in wanted}


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
