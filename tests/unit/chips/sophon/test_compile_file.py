"""A .bmodel lies at its place only when every check passed. The compiler itself: integration."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facekiln.artifact import sha256_of
from facekiln.chips.sophon import compile_file, twin
from facekiln.chips.sophon.artifacts import Artifact
from facekiln.chips.sophon.clock import EPOCH
from facekiln.chips.sophon.compile_file import Compiled
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.settings import DeploySettings
from facekiln.chips.sophon.tables import Tables
from facekiln.errors import GateError, KilnError
from facekiln.provenance import read_record, write_record
from support.bmodels import TIME, S, bmodel_bytes
from support.sophon import COMPARISON, fake_environment

INT8 = Artifact("bm1684x", "retinaface", "640", "int8", 4)
FP16 = Artifact("bm1688", "retinaface", "640", "fp16", 4, cores=2)
SETTINGS = DeploySettings(30.0, {"fp32": (0.99, 0.99), "fp16": (0.99, 0.9), "int8": (0.85, 0.45)})
INFO = "device mem size: 9476864 (weight: 1187840, instruct: 97024, runtime: 8192000)\n"
QUANTISED = COMPARISON.format(target="x_tpu_outputs.npz", reference="reference.npz", verdict="PASSED")
SIMULATED = COMPARISON.format(target="x_model_outputs.npz", reference="x_tpu_outputs.npz", verdict="PASSED")
NOTHING = "0 compared\nTarget    x_tpu_outputs.npz\nReference reference.npz\nnpz compare PASSED.\n"
LOWERED = """module @m attributes {module.state = "TPU_LOWERED", module.weight_file = "x_tpu_weights.npz"} {
    %0 = "tpu.Conv2D"(%arg0) : (tensor<1x2xf16>) -> tensor<1x2xf16> loc(#loc1)
    %1 = "tpu.Softmax"(%0) : (tensor<1x2xf16>) -> tensor<1x2xf16> loc(#loc2)
}
#loc1 = loc("conv")
#loc2 = loc("conf_Softmax")
"""

TOP = """module @m attributes {module.state = "TOP_F32", module.weight_file = "weights.npz"} {
    %0 = "top.Conv"(%arg0) : (tensor<1x2xf32>) -> tensor<1x2xf32> loc(#loc1)
}
#loc1 = loc("conv")
"""


class Tool:
    """Stands in for model_deploy and model_tool."""

    def __init__(self) -> None:
        self.deployed: list[str] = []
        self.printed = QUANTISED + SIMULATED
        self.times = [TIME]
        self.lowered = LOWERED
        self.leak = False
        self.cause: KilnError | None = None

    def __call__(self, _: Environment, name: str, arguments: list[str], **rest: Any) -> str:
        folder: Path = rest["folder"]
        if name == "model_tool":
            return INFO
        self.deployed = arguments
        (folder / "x_tpu.mlir").write_text(self.lowered)
        (folder / "x_tpu_weights.npz").write_bytes(b"quantised")
        if "--not_gen_bmodel" in arguments:
            return ""
        weights = str(folder).encode() if self.leak else b"w" * 64
        data = bmodel_bytes(time="".join(self.times), nets=(("net", (S(weights=weights),)),))
        (folder / "net.bmodel").write_bytes(data)
        if self.cause:
            raise self.cause
        return self.printed


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Tool:
    made = Tool()
    monkeypatch.setattr(compile_file, "run_tool", made)
    monkeypatch.setattr(compile_file, "flag", lambda _environment, _tool, names: names[0])
    monkeypatch.setattr(twin, "run_tool", made)
    return made


@pytest.fixture
def top(tmp_path: Path) -> Path:
    folder = tmp_path / "top"
    folder.mkdir()
    for name in ("top.mlir", "weights.npz", "input.npz", "reference.npz"):
        (folder / name).write_bytes(name.encode())
    (folder / "top.mlir").write_text(TOP)
    transformed(folder)
    return folder


def transformed(top: Path, **changes: Any) -> None:
    """Write the record that a transform leaves."""
    settings = {"model": "retinaface", "size": "640", "batch": 4, **changes}
    write_record(top / "top.mlir", verb="sophon transform", inputs=[], settings=settings)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "a.table"
    path.write_text("# op_name threshold min max\nconv 1 -1 1\n")
    return path


@pytest.fixture
def run(top: Path, tmp_path: Path) -> Callable[..., Compiled]:
    def call(artifact: Artifact = FP16, tables: Tables | None = None) -> Compiled:
        output = tmp_path / "out" / f"{artifact.stem}.bmodel"
        environment = fake_environment(tmp_path)
        return compile_file.compile_file(top, artifact, tables or Tables(), SETTINGS, environment, output)

    return call


def test_the_file_is_normal_and_its_record_tells_all(
    run: Callable[..., Compiled], tool: Tool, tmp_path: Path
) -> None:
    run()
    made = tmp_path / "out" / "retinaface_640_fp16_4b_2core.bmodel"
    assert EPOCH in made.read_bytes()
    assert TIME.encode() not in made.read_bytes()
    record = read_record(made)
    assert record is not None
    assert record.tools["tpu_mlir"] == "1.26"
    assert record.tools["lock"] == "0123456789ab"
    assert record.facts["device_memory"] == {
        "total": 9476864,
        "weight": 1187840,
        "instruct": 97024,
        "runtime": 8192000,
    }
    assert record.facts["simulated_against_quantised"]["cosine"] == pytest.approx(0.998049, abs=1e-6)
    assert [item["path"].rpartition("/")[2] for item in record.inputs] == [
        "top.mlir",
        "weights.npz",
        "input.npz",
    ]


def test_real_input_and_tolerance_are_always_given(run: Callable[..., Compiled], tool: Tool) -> None:
    run()
    assert tool.deployed == [
        "--mlir=top.mlir",
        "--processor=bm1688",
        "--quantize=F16",
        "--model=net.bmodel",
        "--num_core=2",
        "--test_input=input.npz",
        "--test_reference=reference.npz",
        "--tolerance=0.99,0.9",
    ]


@pytest.mark.parametrize(
    ("printed", "answer"),
    [
        ("", "no comparison"),
        (QUANTISED, "was not checked in the simulator"),
        (SIMULATED, "was not checked in the simulator"),
        (QUANTISED + SIMULATED.replace("PASSED", "FAILED"), "comparison failed"),
        (QUANTISED + SIMULATED.partition("npz compare")[0], "cut short"),
        # What npz_tool of 1.26 prints of a reference without the outputs, which it calls passed.
        (NOTHING + SIMULATED, "were not all compared with the float ones(.|\n)*reference.npz whole"),
    ],
)
def test_a_check_that_failed_or_is_missing_leaves_nothing(
    run: Callable[..., Compiled], tool: Tool, tmp_path: Path, printed: str, answer: str
) -> None:
    tool.printed = printed
    with pytest.raises(KilnError, match=answer):
        run()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failed_tool_leaves_nothing_though_it_left_a_file(
    run: Callable[..., Compiled], tool: Tool, tmp_path: Path
) -> None:
    tool.cause = KilnError("model_deploy failed: tolerance missed")
    with pytest.raises(KilnError, match="tolerance missed"):
        run()
    assert list((tmp_path / "out").iterdir()) == []


def test_an_older_file_stays_when_a_new_one_fails(
    run: Callable[..., Compiled], tool: Tool, tmp_path: Path
) -> None:
    run()
    made = tmp_path / "out" / "retinaface_640_fp16_4b_2core.bmodel"
    before = made.read_bytes()
    tool.printed = QUANTISED
    with pytest.raises(GateError):
        run()
    assert made.read_bytes() == before


def test_a_clock_too_many_and_a_leaked_folder_are_refused(
    run: Callable[..., Compiled], tool: Tool, tmp_path: Path
) -> None:
    tool.times = [TIME, TIME]
    with pytest.raises(KilnError, match="not reproducible"):
        run()
    tool.times, tool.leak = [TIME], True
    with pytest.raises(KilnError, match="the path of the folder that it was compiled in"):
        run()
    assert list((tmp_path / "out").iterdir()) == []


def test_int8_has_a_table_and_no_other_has(run: Callable[..., Compiled], tool: Tool, table: Path) -> None:
    with pytest.raises(KilnError, match="int8 needs a calibration table"):
        run(INT8)
    with pytest.raises(KilnError, match="fp16 takes no tables"):
        run(FP16, Tables(table))
    tool.lowered = LOWERED.replace("f16", "!quant.uniform<i8:f32, 0.5>")
    run(INT8, Tables(table))
    assert "--calibration_table=calibration.table" in tool.deployed


@pytest.mark.parametrize(
    ("text", "given"),
    [("# chip: bm1684x\n# op_name quantize_mode\n\n", False), ("# head\nconv F16\n", True)],
)
def test_a_qtable_is_given_only_where_it_has_rows(
    run: Callable[..., Compiled], tool: Tool, table: Path, tmp_path: Path, text: str, given: bool
) -> None:
    mixed = tmp_path / "a.qtable"
    mixed.write_text(text)
    tool.lowered = LOWERED if given else LOWERED.replace("f16", "!quant.uniform<i8:f32, 0.5>")
    run(INT8, Tables(table, mixed))
    assert ("--quantize_table=mixed.qtable" in tool.deployed) is given


@pytest.mark.parametrize(
    ("table_text", "mixed_text", "why"),
    [
        (b"", None, "has no thresholds"),
        (b"\x80garbage", None, "cannot be read"),
        (b"conv nan -1 1\n", None, "not finite"),
        (b"conv 1 -1 1\nconv 1 -1 1\n", None, "twice"),
        (b"other 1 -1 1\n", None, r"unknown operator 'other'.*\n.*is it the table of"),
        (None, b"", "is empty"),
        (None, b"\x80garbage", "cannot be read"),
        (None, b"other F16\n", "unknown operator 'other'"),
        (None, b"conv F15\n", "unknown quantisation mode"),
        (None, b"<html>\n", "is not a name and a mode.*\n.*sophon plan"),
    ],
)
def test_tables_that_are_not_this_networks_are_refused_before_the_tool_runs(
    run: Callable[..., Compiled],
    tool: Tool,
    table: Path,
    tmp_path: Path,
    table_text: bytes | None,
    mixed_text: bytes | None,
    why: str,
) -> None:
    mixed = tmp_path / "a.qtable"
    mixed.write_bytes(mixed_text if mixed_text is not None else b"# none\n")
    if table_text is not None:
        table.write_bytes(table_text)
    with pytest.raises(KilnError, match=why):
        run(INT8, Tables(table, mixed))
    assert not tool.deployed


@pytest.mark.parametrize("name", [".", "..", "/", "file", "top"])
def test_a_twin_is_not_written_over_something_else(
    run: Callable[..., Compiled], tool: Tool, top: Path, tmp_path: Path, name: str
) -> None:
    """A transform's folder has a weights.npz too, and would have been replaced whole."""
    run()
    (tmp_path / "file").write_text("mine")
    tool.deployed = []
    bmodel = tmp_path / "out" / f"{FP16.stem}.bmodel"
    output = Path(name) if name in (".", "..", "/") else tmp_path / name
    with pytest.raises(KilnError, match="name a new"):
        twin.twin_file(bmodel, top, FP16, Tables(), SETTINGS, fake_environment(tmp_path), output)
    assert not tool.deployed
    assert (tmp_path / "file").read_text() == "mine" and (top / "top.mlir").is_file()


@pytest.mark.parametrize("element", ["f32", "!quant.uniform<i8:f32, 0.5>"])
def test_a_file_that_computes_in_another_precision_than_its_name_says_leaves_nothing(
    run: Callable[..., Compiled], tool: Tool, tmp_path: Path, element: str
) -> None:
    """Each comparison passes: they are of outputs, and float32 has no more error than float16."""
    assert run().operators == {"F16": 2}
    output = tmp_path / "out" / f"{FP16.stem}.bmodel"
    output.unlink()
    tool.lowered = LOWERED.replace("f16", element)
    with pytest.raises(GateError, match=r"'conv' \(Conv2D\) is computed in"):
        run()
    assert not output.exists()


@pytest.mark.parametrize("changes", [{"model": "ghostone"}, {"size": "320"}, {"batch": 1}, None])
def test_a_transform_of_something_else_than_the_name_says_is_refused(
    run: Callable[..., Compiled], tool: Tool, top: Path, tmp_path: Path, changes: dict[str, Any] | None
) -> None:
    """A file of four pictures called _1b, or one network by another's name: the tool's checks all pass."""
    if changes is None:
        (top / "top.mlir.kiln.json").unlink()
    else:
        transformed(top, **changes)
    with pytest.raises(KilnError, match="is no transform of what retinaface_640_fp16_4b_2core"):
        run()
    assert not (tmp_path / "out" / f"{FP16.stem}.bmodel").exists()


@pytest.mark.parametrize("name", ["top.mlir", "weights.npz", "input.npz", "reference.npz"])
@pytest.mark.parametrize("damaged", [b"", b"<html>login</html>", None])
def test_a_transform_that_was_damaged_is_refused_before_the_tool_runs(
    run: Callable[..., Compiled], tool: Tool, top: Path, tmp_path: Path, name: str, damaged: bytes | None
) -> None:
    beside = {one: sha256_of(top / one) for one in ("weights.npz", "input.npz", "reference.npz")}
    facts = {"files_sha256": beside}
    settings = {"model": "retinaface", "size": "640", "batch": 4}
    write_record(top / "top.mlir", verb="sophon transform", inputs=[], settings=settings, facts=facts)
    run()
    tool.deployed = []
    if damaged is None:
        (top / name).unlink()
    else:
        (top / name).write_bytes(damaged)
    told = "(does not exist|cannot be read)" if damaged is None else "is not the file that was made"
    for make in (run, lambda: make_twin(top, tmp_path)):
        with pytest.raises(KilnError, match=rf"{name}: {told}(.|\n)*next step: make it"):
            make()
    assert not tool.deployed


def make_twin(top: Path, tmp_path: Path) -> Path:
    bmodel = tmp_path / "out" / f"{FP16.stem}.bmodel"
    output = bmodel.with_suffix(".twin")
    twin.twin_file(bmodel, top, FP16, Tables(), SETTINGS, fake_environment(tmp_path), output)
    return output


def test_a_twin_is_the_model_that_was_compiled(
    run: Callable[..., Compiled], tool: Tool, top: Path, tmp_path: Path
) -> None:
    done = run()
    folder = make_twin(top, tmp_path)
    assert "--not_gen_bmodel" in tool.deployed
    assert 'weight_file = "weights.npz"' in (folder / "final.mlir").read_text()
    assert (folder / "weights.npz").read_bytes() == b"quantised"
    record = read_record(folder / "final.mlir")
    assert record is not None
    assert record.facts["lowered_sha256"] == done.lowered
    assert record.inputs[0]["sha256"] == sha256_of(tmp_path / "out" / f"{FP16.stem}.bmodel")


def test_a_twin_of_something_else_is_refused(
    run: Callable[..., Compiled], tool: Tool, top: Path, tmp_path: Path
) -> None:
    run()
    tool.lowered = LOWERED.replace("@m", "@n")
    with pytest.raises(KilnError, match="was compiled from another model, table or release"):
        make_twin(top, tmp_path)
    bmodel = tmp_path / "out" / f"{FP16.stem}.bmodel"
    assert not bmodel.with_suffix(".twin").exists()
    bmodel.write_bytes(bmodel.read_bytes() + b" ")
    with pytest.raises(KilnError, match="is not the file that its record tells of"):
        make_twin(top, tmp_path)


def test_another_environment_is_another_record(top: Path, tool: Tool, tmp_path: Path) -> None:
    newer = replace(fake_environment(tmp_path), version="1.27", lock="ba9876543210")
    output = tmp_path / "new.bmodel"
    compile_file.compile_file(top, FP16, Tables(), SETTINGS, newer, output)
    record = read_record(output)
    assert record is not None
    assert (record.tools["tpu_mlir"], record.tools["lock"]) == ("1.27", "ba9876543210")


@pytest.mark.parametrize(
    ("chip", "version", "warned"),
    [("bm1684", "1.27", True), ("bm1684", "1.26", False), ("bm1688", "1.27", False)],
)
def test_a_newer_release_is_warned_of_on_bm1684(
    chip: str,
    version: str,
    warned: bool,
    top: Path,
    tool: Tool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tool.lowered = LOWERED.replace("f16", "f32")
    tool_of = replace(fake_environment(tmp_path), version=version)
    artifact = replace(FP16, chip=chip, precision="fp32", cores=1)
    with caplog.at_level("WARNING", logger="facekiln"):
        compile_file.compile_file(top, artifact, Tables(), SETTINGS, tool_of, tmp_path / "new.bmodel")
    assert ("use 1.26" in caplog.text) == warned
