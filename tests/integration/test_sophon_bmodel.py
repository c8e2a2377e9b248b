"""Our reader of bmodels says what the vendor's `model_tool --info` says, of files of every chip and form.

Needs the environment that `facekiln sophon environment --make` makes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from facekiln.chips.sophon.bmodel import read_bmodel
from facekiln.chips.sophon.bmodel_format import Bmodel, BmodelTensor
from facekiln.chips.sophon.differ import compare
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.inspect import findings
from facekiln.chips.sophon.tool import run_tool
from facekiln.errors import KilnError
from support.tengine_networks import network

pytestmark = pytest.mark.slow

# Name of the net, and batch.
_TOPS = {"one": ("net", 1), "four": ("net", 4), "other": ("other", 4)}
# chip, precision, of which top, more options of model_deploy.
_FILES = {
    "bm1684_f32": ("bm1684", "F32", "one", ()),
    "bm1684_f32_4b": ("bm1684", "F32", "four", ()),
    "bm1684_int8_codes": ("bm1684", "INT8", "one", ("--quant_input", "--quant_output")),
    "bm1684x_f32": ("bm1684x", "F32", "one", ()),
    "bm1684x_f32_4b": ("bm1684x", "F32", "four", ()),
    "bm1684x_f16_dynamic": ("bm1684x", "F16", "one", ("--dynamic",)),
    "bm1684x_int8_codes": ("bm1684x", "INT8", "other", ("--quant_input", "--quant_output")),
    "bm1684x_f32_debug": ("bm1684x", "F32", "one", ("--debug",)),
    "bm1688_f16_2core": ("bm1688", "F16", "four", ("--num_core=2",)),
    "bm1688_f16": ("bm1688", "F16", "four", ()),
    "cv186x_int8": ("cv186x", "INT8", "one", ()),
}
_COMBINED = {
    "bm1684_both": ("bm1684_f32", "bm1684_f32_4b"),
    "bm1684x_both": ("bm1684x_f32_4b", "bm1684x_f32"),
    "bm1684x_two_nets": ("bm1684x_f32_4b", "bm1684x_f32", "bm1684x_int8_codes"),
}


def _network(folder: Path) -> None:
    random = np.random.default_rng(5)
    weights = {
        "w1": random.standard_normal((8, 3, 3, 3)).astype(np.float32) / 5,
        "w2": random.standard_normal((6, 8, 3, 3)).astype(np.float32) / 8,
    }
    model = network(
        [
            ("Conv", ["x", "w1"], ["a"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
            ("Relu", ["a"], ["b"], {}),
            ("Conv", ["b", "w2"], ["c"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
            ("Sigmoid", ["c"], ["y"], {}),
        ],
        ("n", 3, 32, 32),
        weights,
        outputs=("y", "b"),
    )
    model.ir_version = 8
    onnx.save(model, folder / "net.onnx")


@pytest.fixture(scope="module")
def files(sophon_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compile every file, each in a folder of its own."""
    top = tmp_path_factory.mktemp("bmodels")

    def run(name: str, arguments: list[str], folder: Path) -> None:
        run_tool(sophon_environment, name, arguments, folder=folder, log=top / "log.txt", timeout_minutes=5)

    random = np.random.default_rng(6)
    for kind, (net, batch) in _TOPS.items():
        folder = top / kind
        (folder / "pictures").mkdir(parents=True)
        _network(folder)
        for place in range(2):
            picture = random.standard_normal((batch, 3, 32, 32)).astype(np.float32)
            np.savez(folder / "pictures" / f"{place}.npz", x=picture)
        shapes = f"--input_shapes=[[{batch},3,32,32]]"
        run(
            "model_transform",
            [f"--model_name={net}", "--model_def=net.onnx", shapes, "--mlir=net.mlir"],
            folder,
        )
        calibrate = ["net.mlir", "--dataset=pictures", "--input_num=2", "-o=table"]
        run("run_calibration", calibrate, folder)
    made = {}
    for name, (chip, precision, kind, more) in _FILES.items():
        folder = top / name
        folder.mkdir()
        for source in [*(top / kind).glob("*.mlir"), *(top / kind).glob("*weight*.npz")]:
            (folder / source.name).write_bytes(source.read_bytes())
        table = [f"--calibration_table={top / kind / 'table'}"] if precision == "INT8" else []
        deploy = ["--mlir=net.mlir", f"--quantize={precision}", f"--processor={chip}", "--skip_validation"]
        run("model_deploy", [*deploy, f"--model={name}.bmodel", *table, *more], folder)
        made[name] = folder / f"{name}.bmodel"
    for name, parts in _COMBINED.items():
        made[name] = top / f"{name}.bmodel"
        run("model_tool", ["--combine", *(str(made[part]) for part in parts), "-o", made[name].name], top)
    return made


def _tensor(side: str, tensor: BmodelTensor, dynamic: bool) -> str:
    most = "max:" if dynamic and side == "input" else ""
    shape = ", ".join(f"{most}{size}" for size in tensor.shape)
    scale = f"scale: {tensor.scale:g}, zero_point: {tensor.zero_point}"
    return f"{side}: {tensor.name}, [{shape}], {tensor.dtype}, {scale}"


def _as_model_tool(model: Bmodel) -> list[str]:
    kernel, memory = model.kernel, model.tool_memory
    lines = [f"bmodel version: {model.kind}.{model.version}", f"chip: {model.chip}"]
    lines += [f"create time: {model.time}", f"kernel_module name: {kernel.name if kernel else ''}".strip()]
    lines.append(f"kernel_module size: {kernel.section.size if kernel else 0}")
    for place, net in enumerate(model.nets):
        lines += ["=" * 42, f"net {place}: [{net.name}]  {'dynamic' if net.dynamic else 'static'}"]
        for number, stage in enumerate(net.stages):
            lines += ["-" * 12, f"stage {number}, core num: {stage.cores}"]
            for side, tensors in (("input", stage.inputs), ("output", stage.outputs)):
                lines += [_tensor(side, tensor, stage.dynamic) for tensor in tensors]
    parts = f"(weight: {memory.weight}, instruct: {memory.instruct}, runtime: {memory.runtime})"
    lines.append(f"device mem size: {memory.device} {parts}")
    parts = f"(weight: {memory.host_weight}, runtime: {memory.host_runtime})"
    aligned = not any(section.start % 4096 for section in model.sections)
    lines.append(f"host mem size: {memory.host} {parts}")
    return [*lines, f"bmodel is {'' if aligned else 'not '}4k aligned"]


def _told(sophon_environment: Environment, path: Path) -> list[str]:
    text = run_tool(
        sophon_environment,
        "model_tool",
        ["--info", str(path)],
        folder=path.parent,
        log=None,
        timeout_minutes=2,
    )
    text = text[text.index("bmodel version") :]
    # The two "peaks" are the tool's guess of its own host memory, and nothing that the file says.
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith("estimated ")]
    return [line for line in lines if line]


def test_every_line_of_model_tool(sophon_environment: Environment, files: dict[str, Path]) -> None:
    # The package carries a file that release 1.13 made.
    older = next(sophon_environment.tool_root.glob("python/tools/**/*.bmodel"))
    for name, path in {**files, "older": older}.items():
        model = read_bmodel(path)
        assert _as_model_tool(model) == _told(sophon_environment, path), name
        assert not any(finding.level == "error" for finding in findings(model)), name


def test_every_byte_of_the_binaries_is_known(files: dict[str, Path]) -> None:
    for name, path in files.items():
        model = read_bmodel(path)
        end = model.sections_start
        for section in model.sections:
            # A hole is what fills a page.
            assert 0 <= section.start - end < 4096, (name, section)
            end = section.start + section.size
        assert 0 <= model.bytes - end < 4096, name


def test_a_combined_file_needs_what_its_stages_need(files: dict[str, Path]) -> None:
    both = read_bmodel(files["bm1684x_both"])
    alone = [read_bmodel(files[name]).memory for name in _COMBINED["bm1684x_both"]]
    assert both.memory.runtime == max(memory.runtime for memory in alone)
    assert both.memory.instruct == sum(memory.instruct for memory in alone)
    assert both.memory.weight == alone[0].weight == alone[1].weight
    assert both.tool_memory.instruct == 2 * alone[0].instruct


def test_debug_adds_binaries_and_nothing_else(files: dict[str, Path]) -> None:
    told = compare(read_bmodel(files["bm1684x_f32"]), read_bmodel(files["bm1684x_f32_debug"])).differences
    kinds = {difference.where.partition(" (")[0] for difference in told}
    assert kinds == {"profile", "statistics", "debug names"}


def test_truncated_where_the_tool_refuses_too(
    sophon_environment: Environment, files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "cut.bmodel"
    path.write_bytes(files["cv186x_int8"].read_bytes()[:-100])
    with pytest.raises(KilnError, match="truncated"):
        read_bmodel(path)
    with pytest.raises(KilnError):
        _told(sophon_environment, path)
