"""The stand-in's parser: what it takes depends on the framework, as in the vendor's samples."""

from __future__ import annotations

from pathlib import Path

from magicmind.python.runtime import Code, DataType, ModelKind, Status, faults, note

_ENDINGS = {
    ModelKind.kOnnx: [".onnx"],
    ModelKind.kPytorch: [".pt"],
    # Weights first.
    ModelKind.kCaffe: [".caffemodel", ".prototxt"],
}


class Parser:
    def __init__(self, kind):
        if kind not in _ENDINGS:
            raise ValueError("no parser of this framework in this release")
        self._kind, self._types = kind, None

    def set_model_param(self, key, value):
        if self._kind != ModelKind.kPytorch or key != "pytorch-input-dtypes" or value != [DataType.FLOAT32]:
            raise TypeError("set_model_param('pytorch-input-dtypes', [DataType])")
        self._types = value
        return Status.OK()

    def parse(self, network, *files):
        if self._kind == ModelKind.kPytorch and self._types is None:
            raise RuntimeError("the types of the inputs are not known")
        if [Path(name).suffix for name in files] != _ENDINGS[self._kind]:
            return Status(Code.INVALID_ARGUMENT, f"files {files}")
        if "parse" in faults():
            return Status(Code.INVALID_ARGUMENT, "operator GridSample is not supported")
        note("parse " + " ".join(Path(name).name for name in files))
        network.parsed = [Path(name).name for name in files]
        return Status.OK()
