"""Proves that an environment's tools run: a one-layer network is converted, compiled and simulated.

A `-h` alone would not meet the wheel's glibc, the missing modules, a library folder that is not writable.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.probe import CHIP, flag, release_of
from facekiln.chips.sophon.tool import job_folder, run_program, run_tool
from facekiln.errors import KilnError

_MINUTES = 5.0
_CHIP = "bm1684x"
# Of the environment's own onnx: its graphs are what the tools read.
_NETWORK = """
import numpy, onnx
from onnx import TensorProto, helper, numpy_helper
import pkg_resources, psutil
weight = numpy.linspace(-1, 1, 216, dtype="float32").reshape(8, 3, 3, 3)
nodes = [
    helper.make_node("Conv", ["x", "weight"], ["conv"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["conv"], ["y"]),
]
shapes = {"x": [1, 3, 16, 16], "y": [1, 8, 16, 16]}
ends = {name: [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)] for name, dims in shapes.items()}
graph = helper.make_graph(nodes, "proof", ends["x"], ends["y"], [numpy_helper.from_array(weight, "weight")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
model.ir_version = 8
onnx.save(model, "proof.onnx")
numpy.savez("in.npz", x=numpy.linspace(0, 1, 768, dtype="float32").reshape(1, 3, 16, 16))
"""


def prove(environment: Environment) -> dict[str, Any]:
    """Run the tools of an environment, whether marked as made or not.

    Returns:
        What they said: `tool` (release of the compiler, e.g. "v1.26-20251229") and `python`.

    Raises:
        KilnError: one of them does not run; the message has its own cause.
    """
    with job_folder() as folder:
        try:
            return _prove(environment, folder)
        except KilnError as error:
            raise KilnError(
                f"the tools of tpu_mlir {environment.version} do not run here: {error.what}",
                file=environment.folder,
                hint=error.hint or "facekiln sophon environment --remove, then --make",
            ) from error


def _prove(environment: Environment, folder: Path) -> dict[str, Any]:
    def run(name: str, *arguments: str) -> str:
        return run_tool(environment, name, arguments, folder=folder, log=None, timeout_minutes=_MINUTES)

    version = run_program(
        environment,
        [
            environment.python,
            "-c",
            f"{_NETWORK}\nimport platform; print('python', platform.python_version())",
        ],
        folder=folder,
        log=None,
        timeout_minutes=_MINUTES,
        title="python",
    )
    chip = flag(environment, "model_deploy", CHIP)
    transform = ["--model_name", "proof", "--model_def", "proof.onnx", "--input_shapes", "[[1,3,16,16]]"]
    run(
        "model_transform",
        *transform,
        "--test_input",
        "in.npz",
        "--test_result",
        "top.npz",
        "--mlir",
        "p.mlir",
    )
    deploy = ["--mlir", "p.mlir", "--quantize", "F32", chip, _CHIP, "--model", "proof.bmodel"]
    run("model_deploy", *deploy, "--test_input", "proof_in_f32.npz", "--test_reference", "top.npz")
    told = run("model_tool", "--chip", "proof.bmodel").strip()
    if told.lower() != _CHIP:
        raise KilnError(f"model_tool says that a file for {_CHIP} is for '{told}'")
    found = re.search(r"^python (\S+)$", version, re.MULTILINE)
    return {"tool": release_of(environment), "python": found[1] if found else "unknown"}
