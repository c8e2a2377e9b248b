"""Which of the model's outputs a tool's tensor is: by its name's beginning, never by its place.

The compiler names a tensor by its ONNX name, the operator that made it, and a mark where it was cast:
`scores` becomes `scores_Softmax` or `scores_Softmax_f32`, by chip and precision (measured, tpu_mlir 1.26).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from facekiln.config import Model
from facekiln.errors import KilnError

# ONNX operators begin with a capital letter; marks of casts are like f32, f16, si8.
_OPERATOR = re.compile(r"(?P<name>.+)_[A-Z][A-Za-z0-9]*(?:_[a-z]+[0-9]+)?")


def meaning(names: Iterable[str], model: Model) -> dict[str, str]:
    """Match a net's outputs with the model's.

    Args:
        names: the tool's names of a bmodel's or an mlir's outputs, in any order.
        model: whose outputs they are.

    Returns:
        {tool's name: model's output}, each output once.

    Raises:
        KilnError: a name that begins as no output does, an output that no name or more than one means.
    """
    found: dict[str, str] = {}
    for name in names:
        fitting = [output for output in model.outputs if name == output or name.startswith(f"{output}_")]
        if not fitting:
            raise KilnError(
                f"is no output of model '{model.name}'",
                where=f"output '{name}'",
                limit=", ".join(model.outputs),
                hint="was it compiled from another model's ONNX file?",
            )
        found[name] = max(fitting, key=len)
    for output in model.outputs:
        meant = [name for name, of in found.items() if of == output]
        if len(meant) != 1:
            raise KilnError(
                f"output '{output}' of model '{model.name}' is meant by {len(meant)} tensors",
                value=", ".join(meant) or ", ".join(found) or "no output at all",
                limit=f"one that begins with '{output}_'",
                hint="compile it again from the model's simplified ONNX file",
            )
    return found


def onnx_name(tensor: str) -> str:
    """Return the ONNX name of a tensor of an mlir: without operator and mark; the same where it has none."""
    found = _OPERATOR.fullmatch(tensor)
    return found["name"] if found else tensor
