"""Simplified ONNX: constants folded and shape arithmetic removed, with what changed told."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from facekiln.errors import KilnError
from facekiln.graph.export import census, shapes


@dataclass(frozen=True)
class Difference:
    """What simplification changed.

    Attributes:
        ops: op type -> (count before, count after), only where they differ.
        nodes: number of nodes before and after.
        initializers: number of stored tensors before and after.
        shapes: input and output shapes after.
    """

    ops: dict[str, tuple[int, int]]
    nodes: tuple[int, int]
    initializers: tuple[int, int]
    shapes: dict[str, list[object]]

    def lines(self) -> list[str]:
        """Return the difference as lines for a person."""
        head = [
            f"nodes {self.nodes[0]} -> {self.nodes[1]}, stored tensors "
            f"{self.initializers[0]} -> {self.initializers[1]}"
        ]
        return head + [f"  {op}: {before} -> {after}" for op, (before, after) in self.ops.items()]


def difference(before: onnx.ModelProto, after: onnx.ModelProto) -> Difference:
    """Compare two graphs by op census, counts and interface."""
    old, new = census(before), census(after)
    return Difference(
        ops={
            op: (old.get(op, 0), new.get(op, 0)) for op in sorted({*old, *new}) if old.get(op) != new.get(op)
        },
        nodes=(len(before.graph.node), len(after.graph.node)),
        initializers=(len(before.graph.initializer), len(after.graph.initializer)),
        shapes=shapes(after),
    )


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify with onnxsim and verify that names and shapes of the interface are kept and fixed.

    Raises:
        KilnError: onnxsim fails or its own check fails, the interface changed, or a dimension stays symbolic.
    """
    import onnxsim

    try:
        simplified, verified = onnxsim.simplify(model)
    except Exception as error:  # onnxsim raises whatever its C++ side does
        raise KilnError(
            f"onnxsim failed: {error}", hint="check the graph with `facekiln onnx inspect`"
        ) from error
    if not verified:
        raise KilnError("onnxsim's result does not compute the same as the original")
    before, after = shapes(model), shapes(simplified)
    if list(before) != list(after):
        raise KilnError("simplification changed the inputs or outputs", value=list(after), limit=list(before))
    for name, dims in after.items():
        if not all(isinstance(dim, int) and dim > 0 for dim in dims):
            raise KilnError(
                "a dimension is not fixed", where=name, value=dims, hint="export with a fixed input size"
            )
    onnx.checker.check_model(simplified)
    return simplified
