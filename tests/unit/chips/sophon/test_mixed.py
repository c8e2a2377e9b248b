"""Mixed precision: tables, plans, the proof in the quantised network's own text (form of tpu_mlir 1.26)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from facekiln.artifact import read_json
from facekiln.chips.sophon.mixed import aliases, heads_of, kept_in_float, most_sensitive, plan, prove_obeyed
from facekiln.chips.sophon.mlir import element_of, known_in, parse_mlir
from facekiln.chips.sophon.plan import plan_file, search_by_tool
from facekiln.chips.sophon.qtable import Qtable, check_qtable, parse_qtable, qtable_text
from facekiln.chips.sophon.settings import MixedSettings, load_settings
from facekiln.chips.sophon.targets import SophonTargets
from facekiln.chips.sophon.tool import job_folder
from facekiln.config import load_config
from facekiln.errors import GateError, KilnError
from support.sophon import fake_environment

# input -> Conv -> LeakyRelu -> Conv + Relu, fused -> two heads (Conv), of which one is split -> Concat
TOP = """\
module @m attributes {module.chip = "ALL", module.state = "TOP_F32"} {
  func.func @main(%arg0: tensor<1x3x8x8xf32>) -> (tensor<1x8xf32>) {
    %0 = "top.Input"(%arg0) {x = 1} : (tensor<1x3x8x8xf32>) -> tensor<1x3x8x8xf32> loc(#loc1)
    %1 = "top.Weight"() : () -> tensor<8x3x3x3xf32> loc(#loc2)
    %2 = "top.Conv"(%0, %1) {x = 1} : (tensor<1x3x8x8xf32>, tensor<8x3x3x3xf32>) -> tensor<1x8x8x8xf32> loc(#loc3)
    %3 = "top.LeakyRelu"(%2) {x = 1} : (tensor<1x8x8x8xf32>) -> tensor<1x8x8x8xf32> loc(#loc4)
    %4 = "top.Conv"(%3, %1) {x = 1} : (tensor<1x8x8x8xf32>, tensor<8x3x3x3xf32>) -> tensor<1x8x8x8xf32> loc(#loc5)
    %5 = "top.Conv"(%4, %1) {x = 1} : (tensor<1x8x8x8xf32>, tensor<8x3x3x3xf32>) -> tensor<1x4x1x1xf32> loc(#loc6)
    %6 = "top.Conv"(%3, %1) {x = 1} : (tensor<1x8x8x8xf32>, tensor<8x3x3x3xf32>) -> tensor<1x4x1x1xf32> loc(#loc7)
    %7:2 = "top.Split"(%6) {x = 1} : (tensor<1x4x1x1xf32>) -> (tensor<1x2x1x1xf32>, tensor<1x2x1x1xf32>) loc(#loc10)
    %8 = "top.Concat"(%5, %7#1) {x = 1} : (tensor<1x4x1x1xf32>, tensor<1x2x1x1xf32>) -> tensor<1x8xf32> loc(#loc11)
    return %8 : tensor<1x8xf32> loc(#loc)
  } loc(#loc)
} loc(#loc)
#loc = loc(unknown)
#loc1 = loc("input")
#loc2 = loc("weight")
#loc3 = loc("a_Conv")
#loc4 = loc("a1_LeakyRelu")
#loc5 = loc("b1_Relu")
#loc6 = loc("h1_Conv")
#loc7 = loc("h2_Conv_move_ahead_relu")
#loc8 = loc("s1_Split")
#loc9 = loc("s2_Split")
#loc10 = loc(fused[#loc8, #loc9])
#loc11 = loc("out_Concat")
"""  # noqa: E501
NETWORK = parse_mlir(TOP, "top.mlir")
LOWERED = """\
module @m attributes {module.chip = "bm1684x", module.state = "TPU_LOWERED"} {
    %1 = "tpu.Conv2D"(%0) {x = [1, 2]} : (tensor<1x3x8x8x!quant.uniform<i8:f32, 0.5>>, tensor<8xi32>) -> tensor<1x8x8x8x!quant.uniform<u8:f32, 0.25>> loc(#loc1)
    %2 = "tpu.Cast"(%1) : (tensor<1x8x8x8x!quant.uniform<u8:f32, 0.25>>) -> tensor<1x8x8x8xf16> loc(#loc2)
    %3 = "tpu.Softmax"(%2) : (tensor<1x8x8x8xf16>) -> tensor<1x8x8x8x!quant.calibrated<f16<0.0:1.0>>> loc(#loc3)
}
#loc1 = loc("a_Conv")
#loc2 = loc("a_Convp_Softmax_f16")
#loc3 = loc("p_Softmax")
"""  # noqa: E501


def model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["a"], name="first"),
        helper.make_node("LeakyRelu", ["a"], ["a1"], name="leaky"),
        helper.make_node("Conv", ["a1", "w"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["b1"], name="relu"),
        helper.make_node("Conv", ["b1", "w"], ["h1"], name="head1"),
        helper.make_node("Conv", ["a1", "w"], ["h2"], name="head2"),
    ]
    start = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])
    end = helper.make_tensor_value_info("h1", TensorProto.FLOAT, [1, 4, 1, 1])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1, 1], [1.0])
    return helper.make_model(helper.make_graph(nodes, "m", [start], [end], [weight]))


def settings(*keep: str, chip: str = "bm1684x", precision: str = "F16") -> MixedSettings:
    return MixedSettings("ours", {chip: keep}, 0, {chip: precision}, 0.99, 1)


def test_the_text_of_a_network() -> None:
    assert [op.kind for op in NETWORK.ops] == [
        *("Input", "Conv", "LeakyRelu", "Conv", "Conv", "Conv", "Split", "Concat")
    ]
    assert NETWORK.by_name["s2_Split"].names == ("s1_Split", "s2_Split")
    assert NETWORK.op("out_Concat").operands == ("h1_Conv", "s2_Split")
    assert NETWORK.outputs == ("out_Concat",) and NETWORK.state == "TOP_F32"
    with pytest.raises(KilnError, match="did you mean 'a_Conv'"):
        NETWORK.op("a_Conf")
    with pytest.raises(KilnError, match="holds no operators"):
        parse_mlir("nothing")


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("tensor<1x3x240x320x!quant.uniform<i8:f32, 0.0078740157480314959>>", "INT8"),
        ("tensor<1x16x120x160x!quant.uniform<u8:f32, 0.011673969411764705>>", "INT8"),
        ("tensor<1x4420x2x!quant.calibrated<f16<0.000000e+00:1.000000e+00>>>", "F16"),
        ("tensor<1x4420x2xf16>", "F16"),
        ("tensor<1x4420x4xbf16>", "BF16"),
        ("tensor<f32>", "F32"),
        ("tensor<1x8xsi32>", "si32"),
    ],
)
def test_elements(kind: str, precision: str) -> None:
    assert element_of(kind) == precision


def test_heads_and_what_is_behind_them() -> None:
    assert heads_of(NETWORK) == (["h1_Conv", "h2_Conv_move_ahead_relu"], ["s1_Split", "out_Concat"])


def test_onnx_names_are_found_where_they_were_fused_or_moved() -> None:
    found = aliases(NETWORK, model())
    assert found["second"] == found["b"] == found["b1"] == "b1_Relu"
    assert found["head2"] == "h2_Conv_move_ahead_relu"
    assert found["a"] == "a_Conv" and found["leaky"] == "a1_LeakyRelu"


def test_words_and_names() -> None:
    def kept(*words: str) -> list[str]:
        return kept_in_float(NETWORK, model(), words)

    assert kept("stem:1") == ["a_Conv", "a1_LeakyRelu"]
    assert kept("stem") == ["a_Conv", "a1_LeakyRelu", "b1_Relu", "h1_Conv"]
    assert kept("outputs") == ["s1_Split", "out_Concat"]
    assert kept("heads") == ["h1_Conv", "h2_Conv_move_ahead_relu", "s1_Split", "out_Concat"]
    assert kept("second") == ["b1_Relu"]
    assert kept_in_float(NETWORK, model(), (), ["b"]) == ["b1_Relu"]
    with pytest.raises(KilnError, match="did you mean 'heads'"):
        kept("head")


def test_an_unknown_name_is_told_with_the_nearest_few_of_hundreds() -> None:
    with pytest.raises(KilnError) as told:
        known_in(NETWORK, "/body/conv_21", [f"/body/conv{number}" for number in range(300)])
    text = str(told.value)
    assert "unknown operator '/body/conv_21'; did you mean '/body/conv21' or " in text
    assert text.count("/body/conv") == 4 and len(text) < 300
    assert "none of 300 names" in text and "all operators stand in top.mlir" in text


def test_a_plan_per_chip() -> None:
    table = plan(NETWORK, model(), "bm1684x", settings("stem:1"))
    assert table.modes == {"a_Conv": "F16", "a1_LeakyRelu": "F16"}
    assert plan(NETWORK, model(), "bm1684x", settings()).modes == {}
    with pytest.raises(KilnError, match="bm1684 has no F16"):
        plan(NETWORK, model(), "bm1684", settings("stem", chip="bm1684"))


@given(st.dictionaries(st.from_regex(r"[a-z/._0-9]{1,20}", fullmatch=True), st.sampled_from(["F32", "F16"])))
def test_qtables_survive(modes: dict[str, str]) -> None:
    table = Qtable(modes, ("# chip: x",))
    assert parse_qtable(qtable_text(table)) == table


def test_a_model_may_have_a_list_of_its_own_for_some_chips(tmp_path: Path, root: Path) -> None:
    mixed = replace(
        settings("outputs"),
        keep_float={"bm1684x": ("outputs",), "bm1684": ("outputs",)},
        models={"slim": {"bm1684x": ("a",)}},
    )
    assert mixed.kept("bm1684x", "slim") == ("a",)
    assert (
        mixed.kept("bm1684", "slim") == mixed.kept("bm1684x", "rfb") == mixed.kept("bm1684x") == ("outputs",)
    )
    own, shared = (plan(NETWORK, model(), "bm1684x", mixed, model_name=name) for name in ("slim", "rfb"))
    assert list(own.modes) == ["a_Conv", "a1_LeakyRelu"]
    assert "a_Conv" not in shared.modes
    top, file, output = tmp_path / "top.mlir", tmp_path / "m.onnx", tmp_path / "a.qtable"
    top.write_text(TOP)
    onnx.save(model(), file)
    whole = replace(load_settings(root / "config"), mixed=mixed)
    plan_file(top, file, "bm1684x", whole, load_config(root / "config"), output, model="slim")
    assert parse_qtable(output.read_text()).modes == own.modes
    assert read_json(tmp_path / "a.qtable.kiln.json")["settings"]["keep_float"] == ["a"]


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"ulfd_slm_320": {"keep_float": {"bm1684": []}}}, "unknown model 'ulfd_slm_320'.*'ulfd_slim_320'"),
        ({"retinaface": {"keep_float": {"bm1864": []}}}, "unknown SOPHON chip 'bm1864'.*'bm1684'"),
    ],
)
def test_a_list_of_no_model_or_chip_is_refused(root: Path, models: dict[str, Any], told: str) -> None:
    config = load_config(root / "config")
    config.chips["sophon"]["mixed"]["models"] = models
    with pytest.raises(KilnError, match=f"chips/sophon.yaml: mixed.models: {told}"):
        SophonTargets(config)


def test_the_tools_qtable_loses_its_clock() -> None:
    text = "# generated time: 2026-11-21 10:22:52.355601\n# chip: bm1684x\n# op_name   quantize_mode\na F16\n"
    assert parse_qtable(text) == parse_qtable(text.replace("10:22", "11:33"))
    assert parse_qtable(text + "a F16\n").modes == {"a": "F16"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a F16\na F32\n", "gives 'a' two modes"),
        ("a F61\n", "did you mean 'F16'"),
        ("a\n", "not a name and a mode"),
        ("a b F16\n", "not a name and a mode"),
    ],
)
def test_faulty_qtables_are_refused(text: str, said: str) -> None:
    with pytest.raises(KilnError, match=said):
        parse_qtable(text)


def test_a_qtable_names_operators_of_its_network() -> None:
    with pytest.raises(KilnError, match="did you mean 'a_Conv'"):
        check_qtable(Qtable({"a_Conf": "F16"}), NETWORK, "bm1684x")
    with pytest.raises(KilnError, match="bm1684 has no F16"):
        check_qtable(Qtable({"a_Conv": "F16"}), NETWORK, "bm1684")


def test_precisions_are_read_back(tmp_path: Path) -> None:
    lowered = tmp_path / "x_tpu.mlir"
    lowered.write_text(LOWERED)
    proved = prove_obeyed(lowered, Qtable({"p_Softmax": "F16", "a_Conv": "INT8"}), "INT8")
    assert proved.kept == 2 and proved.counts == {"INT8": 1, "F16": 1}
    with pytest.raises(GateError, match=r"'a_Conv' \(Conv2D\) is computed in INT8"):
        prove_obeyed(lowered, Qtable({"a_Conv": "F16"}), "INT8")
    with pytest.raises(GateError, match="'b_Relu' is not in the quantised network"):
        prove_obeyed(lowered, Qtable({"b_Relu": "F16"}), "INT8")
    assert prove_obeyed(lowered, None, "INT8").kept == 0
    for precision in ("F16", "F32"):
        with pytest.raises(GateError, match=r"'a_Conv' \(Conv2D\) is computed in INT8, which nothing asked"):
            prove_obeyed(lowered, None, precision)


def test_sensitivities(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(
        '{"layers": [{"op": "", "tensor": ""}, {"op": "Conv", "tensor": "b"}, {"op": "Conv", "tensor": "a"}]}'
    )
    assert most_sensitive(path, 1) == ["b"]
    path.write_text("[]")
    with pytest.raises(KilnError, match="no table of sensitivities"):
        most_sensitive(path, 1)


def test_the_file_of_a_plan(tmp_path: Path, root: Path) -> None:
    top, file, output = tmp_path / "top.mlir", tmp_path / "m.onnx", tmp_path / "a.qtable"
    top.write_text(TOP)
    onnx.save(model(), file)
    made = plan_file(
        top, file, "bm1684", load_settings(root / "config"), load_config(root / "config"), output
    )
    assert set(made.modes.values()) == {"F32"}
    assert parse_qtable(output.read_text()).modes == made.modes
    assert (tmp_path / "a.qtable.kiln.json").is_file()


HELP = "  [--search {search_threshold,search_qtable,fast_search,mix_search,False}]\n"


def test_a_search_of_the_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends well without a file where int8 suffices, and fast_search begins with a table."""
    given: list[list[str]] = []
    found = "# generated time: now\na_Conv F16\n"

    def run(_: Any, arguments: list[str], **rest: Any) -> str:
        given.append(arguments)
        if found:
            (rest["folder"] / "found.qtable").write_text(found)
            return "job done"
        return "job success, current int8 cos:0.9999 is higher than expected_cos:0.99,no need"

    monkeypatch.setattr("facekiln.chips.sophon.plan.run_search", run)
    monkeypatch.setattr("facekiln.chips.sophon.plan.help_of", lambda *_: HELP)
    (tmp_path / "top.mlir").write_text(TOP)
    table = tmp_path / "a.table"
    table.write_text("x 1 0 1\n")

    def search(by: str, table: Path | None = None) -> Qtable:
        with job_folder(tmp_path / "x") as folder:
            return search_by_tool(
                fake_environment(tmp_path),
                tmp_path / "top.mlir",
                "bm1684",
                replace(settings(chip="bm1684", precision="F32"), by=by),
                [np.zeros((1, 3, 8, 8), np.float32)],
                folder,
                table,
            )

    assert search("tool:search_qtable").modes == {"a_Conv": "F16"}
    assert given[0][given[0].index("--fp_type") + 1] == "F32"
    assert search("tool:fast_search", table).modes == {"a_Conv": "F16"}
    with pytest.raises(KilnError, match="begins with a calibration table"):
        search("tool:fast_search")
    with pytest.raises(KilnError, match="no search 'slow'"):
        search("tool:slow")
    found = ""
    assert search("tool:search_qtable").modes == {}


def test_what_the_rules_ask_for(root: Path) -> None:
    config = load_config(root / "config")
    targets = SophonTargets(config)
    wildcards = SimpleNamespace(chip="bm1684x", model="retinaface", size="640", batch="4")
    files = targets.for_calibrate(wildcards)
    assert files["single"] == "results/sophon/calibration/retinaface_640_1b.table"
    wildcards.batch = "1"
    assert "single" not in targets.for_calibrate(wildcards)
    assert set(targets.for_plan(wildcards)) == {"top", "onnx"} and targets.plan_options(wildcards) == ""
    targets.settings = replace(targets.settings, mixed=replace(targets.settings.mixed, most_layers=3))
    assert targets.plan_options(wildcards) == "--sensitivity results/quant/retinaface_640/sensitivity.json"
    targets.settings = replace(targets.settings, mixed=replace(targets.settings.mixed, by="tool:fast_search"))
    assert "--table results/sophon/calibration/retinaface_640_1b.table" in targets.plan_options(wildcards)
    wildcards.chip = "bm1685"
    with pytest.raises(KilnError, match="did you mean 'bm168"):
        targets.for_plan(wildcards)
