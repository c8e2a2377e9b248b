"""A plan as plain data, so that a container can hold it and a runtime execute it without the caffemodel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from facekiln.chips.nnie.engine.fuse import Activation, Step
from facekiln.chips.nnie.engine.operators import check_supported
from facekiln.chips.nnie.engine.plan import Blob, Operation, Plan, with_codes
from facekiln.errors import KilnError

_VERSION = 1


def _state_of(operation: Operation) -> dict[str, Any]:
    step, activation = operation.step, operation.step.activation
    floats = step.blobs if operation.codes is None else step.blobs[1:]
    return {
        "name": step.name,
        "type": step.type,
        "bottoms": list(step.bottoms),
        "tops": list(step.tops),
        "params": dict(step.params),
        "bits": operation.bits,
        "codes": operation.codes,
        "z": operation.z,
        "floats": list(floats),
        "activation": activation
        and {
            "name": activation.name,
            "type": activation.type,
            "params": dict(activation.params),
            "floats": list(activation.blobs),
        },
    }


def _operation_from(state: Mapping[str, Any]) -> Operation:
    fused = state["activation"]
    step = Step(
        state["name"],
        state["type"],
        tuple(state["bottoms"]),
        tuple(state["tops"]),
        dict(state["params"]),
        tuple(np.asarray(blob, np.float32) for blob in state["floats"]),
        fused
        and Activation(
            fused["name"],
            fused["type"],
            dict(fused["params"]),
            tuple(np.asarray(blob, np.float32) for blob in fused["floats"]),
        ),
    )
    if state["codes"] is None:
        return Operation(step, state["bits"])
    return with_codes(step, state["bits"], np.asarray(state["codes"]), state["z"])


def state_of(plan: Plan) -> dict[str, Any]:
    """Return a plan as dicts, lists, numbers, text and arrays; the weights stand in it as codes only.

    Codes are uint8 or uint16 of Caffe's weight shapes, biases and slopes float32.
    """
    return {
        "version": _VERSION,
        "name": plan.name,
        "rounded": plan.rounded,
        "inputs": {name: list(shape) for name, shape in plan.inputs.items()},
        # Lists, as a store may sort a dict's keys: the order of inputs and outputs is part of the contract.
        "input_order": list(plan.inputs),
        "outputs": [[name, blob] for name, blob in plan.outputs.items()],
        "operations": [_state_of(operation) for operation in plan.operations],
        "blobs": {
            name: {
                "shape": list(blob.shape),
                "width": blob.width,
                "z": {str(bits): z for bits, z in blob.z.items()},
            }
            for name, blob in plan.blobs.items()
        },
    }


def plan_from(state: Mapping[str, Any]) -> Plan:
    """Rebuild the plan that `state_of` described.

    Raises:
        KilnError: of another version, or damaged.
    """
    if state.get("version") != _VERSION:
        raise KilnError(
            "was made for another engine",
            value=state.get("version"),
            limit=_VERSION,
            hint="map the network again",
        )
    try:
        operations = tuple(_operation_from(operation) for operation in state["operations"])
        check_supported([operation.step for operation in operations])
        return Plan(
            state["name"],
            {name: list(state["inputs"][name]) for name in state["input_order"]},
            dict(state["outputs"]),
            operations,
            {
                name: Blob(
                    tuple(blob["shape"]), blob["width"], {int(bits): z for bits, z in blob["z"].items()}
                )
                for name, blob in state["blobs"].items()
            },
            state["rounded"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise KilnError(f"the engine's state is damaged: {error!r}", hint="map the network again") from error
