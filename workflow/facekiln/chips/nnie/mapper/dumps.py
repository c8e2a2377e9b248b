"""Side files that nnie_mapper drops: RUNTIME.txt, and at log_level 3 mapper_quant/ with what every layer saw.

File names and number formats follow a public transcription of the guide: one value per line in N, C, H, W
order; weights and inputs as GFPQ codes, results as signed 20.12 (value = int / 4096). `/` in a layer's name
becomes `_`. The values belong to the last picture of the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.nnie.engine.engine import Engine, Operand, Trace
from facekiln.chips.nnie.wk.memory import height_width_channels

_UNSAFE = re.compile(r"[/\\\0]")
_HEX_DIGITS = {"uint8": 2, "uint16": 4, "int32": 8}
_FIXED_ONE = 4096


def file_stem(layer: str) -> str:
    """Return a layer's name as dumps spell it."""
    return _UNSAFE.sub("_", layer)


def _write_hex(path: Path, values: NDArray[Any]) -> None:
    digits = _HEX_DIGITS[values.dtype.name]
    raw = values.astype(f">u{digits // 2}" if values.dtype.kind == "u" else ">i4").tobytes().hex()
    lines = [raw[i : i + digits] for i in range(0, len(raw), digits)]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _write_floats(path: Path, values: NDArray[np.float32]) -> None:
    path.write_text("".join(f"{value:.6f}\n" for value in values.ravel().tolist()), encoding="ascii")


def _dimensions(shape: tuple[int, ...]) -> str:
    height, width, channels = height_width_channels(shape)
    # A vector's length stands in the place of C.
    return f"{channels}_{height}_{width}" if len(shape) == 4 else f"{width}_1_1"


def _write_input(folder: Path, stem: str, number: int, operand: Operand) -> None:
    place = f"{stem}_input{number}_{_dimensions(operand.values.shape)}"
    linear = operand.bits == 32
    _write_hex(folder / f"{place}_quant.{'linear' if linear else 'nonlinear'}.hex", operand.codes)
    _write_floats(folder / f"{place}_anti_quant.linear.float", operand.values)


def write_layer_dumps(folder: Path, engine: Engine, trace: Trace, tick: Callable[[int], object]) -> int:
    """Write mapper_quant/ and return how many files it holds.

    Args:
        folder: where mapper_quant/ is made.
        engine: what ran.
        trace: its run on the last calibration picture.
        tick: called with 1 after each layer.
    """
    target = folder / "mapper_quant"
    target.mkdir(exist_ok=True)
    for operation in engine.plan.operations:
        stem = file_stem(operation.step.name)
        seen = trace.layer(operation.step.name)
        for number, operand in enumerate(seen.inputs):
            _write_input(target, stem, number, operand)
        for number, fixed in enumerate(seen.outputs):
            _write_hex(target / f"{stem}_output{number}_{_dimensions(fixed.shape)}_quant.linear.hex", fixed)
        if seen.weights is not None and seen.weights.bits != 32:
            _write_hex(target / f"{stem}_weight.hex", seen.weights.codes)
            _write_floats(target / f"{stem}_weight-anti.float", seen.weights.values)
        if seen.bias is not None:
            _write_hex(target / f"{stem}_bias.hex", np.rint(seen.bias * _FIXED_ONE).astype(np.int32))
        tick(1)
    return sum(1 for _ in target.iterdir())


def runtime_text(engine: Engine, image_inputs: set[str]) -> str:
    """Return RUNTIME.txt: the one operator that the board's runtime sees, with its inputs and outputs."""

    def node(name: str, blob: str, mark: str) -> str:
        height, width, channels = height_width_channels(engine.plan.blobs[blob].shape)
        return f"{name} {mark}[bond_1][{channels}][{height}][{width}]"

    lines = ["Name: Vop0", "Classify: VOP", "Sub_net_type: 0"]
    lines += [
        f"Input: {node(name, name, '[Exist] ' if name in image_inputs else '')}" for name in engine.inputs
    ]
    lines += [f"Output: {node(name, blob, '')}" for name, blob in engine.plan.outputs.items()]
    lines += ["Report_flag: -1", "Order: 0", f"Layer_cnt: {len(engine.plan.operations)}"]
    return "\n".join(lines) + "\n"
