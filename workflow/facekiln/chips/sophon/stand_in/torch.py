"""Stands in for torch in the environment of tpu_mlir, which imports it and, for ONNX, calls nothing of it.

`Tensor` is named in type hints, `nn.Module` and `autograd.Function` are derived from. Whatever else is asked
for fails with a plain AttributeError instead of pretending to work.
"""

__version__ = "0"


class Tensor:
    """Only ever named."""


class _Base:
    """Only ever derived from."""


class _Room:
    def __init__(self, **names):
        self.__dict__.update(names)


nn = _Room(Module=_Base)
autograd = _Room(Function=_Base)
