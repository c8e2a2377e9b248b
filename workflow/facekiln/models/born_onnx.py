"""Models that are born as an ONNX file: proved to be the declared one before it is put in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.models.looks import looks_like

if TYPE_CHECKING:
    import onnx


def parse_born_onnx(data: bytes, name: str, model: Model) -> onnx.ModelProto:
    """Read an ONNX file's bytes and compare its interface with the model's declaration.

    Args:
        data: the whole file.
        name: the file or address that it came from, for messages.
        model: declares one size, the input's name and the outputs.

    Raises:
        KilnError: not ONNX, not valid, or its inputs or outputs are not as declared.
    """
    import onnx

    declared = f"config/models/{model.name}.yaml"
    if model.born != "onnx" or len(model.sizes) != 1:
        raise KilnError(
            "a model that is born as ONNX says `born: onnx` and has one size",
            file=declared,
            where="sizes" if model.born == "onnx" else "born",
            value=list(model.sizes) if model.born == "onnx" else model.born,
            hint="other sizes are other files, and other models",
        )
    other = looks_like(data[:64])
    if other not in (None, "an ONNX model"):
        raise KilnError(f"is {other}, not an ONNX model", file=name, hint="fetch the raw file")
    try:
        parsed = onnx.load_from_string(data)
        onnx.checker.check_model(parsed)
    except Exception as error:  # protobuf and the checker raise unrelated types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise KilnError(
            f"is not a valid ONNX model: {reason}", file=name, hint="fetch it again, and check its sha256"
        ) from error
    stored = {item.name for item in parsed.graph.initializer}
    inputs = {value.name: _dims(value) for value in parsed.graph.input if value.name not in stored}
    (size,) = model.sizes.values()
    wanted = {model.input.name: [1, 3, *size]}
    if inputs != wanted:
        raise KilnError(f"its input is not as {declared} says", file=name, value=inputs, limit=wanted)
    outputs = [value.name for value in parsed.graph.output]
    if outputs != list(model.outputs):
        raise KilnError(
            f"its outputs are not as {declared} says", file=name, value=outputs, limit=list(model.outputs)
        )
    return parsed


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
