"""A wrong name gets the nearest that a rule makes, and what is wrong with it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.config import Config, load_config
from facekiln.suggest import suggest

# As Snakemake writes the outputs of the rules.
_CHIP = r"sophon/{chip,[a-z0-9]+}/{model,\w+}_{size,\d+}_{precision,[a-z]+\d+}_{batch,\d+}b{cores,|_\d+core}"
_BENCHED = r"{artifact,(?:onnx|sophon/\w+)/[\w-]+(?:\.sim)?\.(?:onnx|bmodel)}"
PATTERNS = [
    r"nnie/{model,\w+}_{size,\d+}{precision,|_int16}.wk",
    r"nnie/{model,\w+}_{size,\d+}{precision,|_int16}.cfg",
    r"magicmind/{model,\w+}_{size,\d+}_{precision,(force|qint8)_[a-z0-9_]+}_{batch,\d+(-\d+)?}b.mm",
    rf"{_CHIP}.bmodel",
    rf"{_CHIP}.twin/final.mlir",
    r"tengine/{model,\w+}_{size,\d+}.tmfile",
    r"tengine/{model,\w+}_{size,\d+}_{precision,uint8|int8}.tmfile",
    r"tengine/{model,\w+}_{size,\d+}_{precision,uint8|int8}.scale",
    *(rf"ncnn/{{model,\w+}}_{{size,\d+}}{kind}" for kind in (".param", ".bin", "_fp16.bin", "_int8.param")),
    r"ncnn/{model,\w+}_{size,\d+}_int8.table",
    r"onnx/{model,\w+}_{size,\d+}.onnx",
    r"onnx/{model,\w+}_{size,\d+}.sim.onnx",
    "tables/latency.csv",
    r"tables/{table,[a-z][a-z0-9_]*}.md",
    "parity/{artifact}.json",
    rf"bench/{{board,\w+}}/{_BENCHED}.json",
    r"eval/{evaluator,port|matlab}/{backend,[\w-]+}/{artifact}/{dataset,[\w@]+}.json",
    r"eval/{evaluator,voc}/{backend,[\w-]+}/{artifact}/{dataset,[\w@]+}.json",
    r"predictions/{backend,(?!board-)[\w-]+}/{artifact}/{dataset,[\w@]+}",
    "gates/golden/{artifact}.json",
    "gates/batch/{artifact}.json",
]


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return load_config(root / "config")


@pytest.mark.parametrize(
    ("asked", "name", "reason"),
    [
        # The wrong model, size, type of number, ending; in each chip's own words.
        ("nnie/retinafac_640.wk", "nnie/retinaface_640.wk", "no model 'retinafac'"),
        ("nnie/retinaface_641.wk", "nnie/retinaface_640.wk", "no size '641'"),
        (
            "nnie/retinaface_640_int8.wk",
            "nnie/retinaface_640.wk",
            "too much: names without a precision are of int8",
        ),
        ("nnie/retinaface_640_int61.wk", "nnie/retinaface_640_int16.wk", "no precision 'int61'"),
        ("nnie/retinaface_640.wkk", "nnie/retinaface_640.wk", "'wkk' stands where 'wk' belongs"),
        ("tengine/retinaface_640_fp32.tmfile", "tengine/retinaface_640.tmfile", "are of float32"),
        (
            "tengine/retinaface_640_uint4.tmfile",
            "tengine/retinaface_640_uint8.tmfile",
            "no precision 'uint4'",
        ),
        ("tengine/retinaface_640.tm", "tengine/retinaface_640.tmfile", "'tm' stands where 'tmfile' belongs"),
        ("tengine/retinaface_640_int8.scales", "tengine/retinaface_640_int8.scale", "'scales' stands where"),
        ("ncnn/retinaface_640.params", "ncnn/retinaface_640.param", "'params' stands where 'param' belongs"),
        (
            "ncnn/retinaface_640_fp61.bin",
            "ncnn/retinaface_640_fp16.bin",
            "'fp61' stands where 'fp16' belongs",
        ),
        ("ncnn/retinaface_640.table", "ncnn/retinaface_640_int8.table", "it lacks '_int8'"),
        (
            "magicmind/retinaface_640_int8_1b.mm",
            "magicmind/retinaface_640_qint8_mixed_float16_1b.mm",
            "no precision 'int8'",
        ),
        (
            "magicmind/retinaface_640_fp16_4b.mm",
            "magicmind/retinaface_640_force_float16_4b.mm",
            "no precision 'fp16'",
        ),
        (
            "magicmind/retinaface_640_fp32_4b.mm",
            "magicmind/retinaface_640_force_float32_4b.mm",
            "no precision 'fp32'",
        ),
        (
            "magicmind/retinaface_640_force_float16.mm",
            "magicmind/retinaface_640_force_float16_1b.mm",
            "its batch is missing",
        ),
        (
            "magicmind/retinaface_640_force_float16_4.mm",
            "magicmind/retinaface_640_force_float16_4b.mm",
            "",
        ),
        ("magicmind/_int8_1b.mm", "magicmind/", "its model is missing"),
        (
            "sophon/bm1684x/retinaface_640_F16_1b.bmodel",
            "sophon/bm1684x/retinaface_640_fp16_1b.bmodel",
            "no precision 'F16'",
        ),
        (
            "sophon/bm1684x/retinaface_640_int8.bmodel",
            "sophon/bm1684x/retinaface_640_int8_1b.bmodel",
            "its batch is missing",
        ),
        (
            "sophon/bm1688/retinaface_640_int8_1b_2cores.bmodel",
            "sophon/bm1688/retinaface_640_int8_1b_2core.bmodel",
            "no cores '2cores'",
        ),
        (
            "sophon/retinaface_640_int8_4b.bmodel",
            "sophon/bm1684/retinaface_640_int8_4b.bmodel",
            "its chip is missing",
        ),
        (
            "sophon/bm1688/retinaface_640_int8_1b.twin",
            "sophon/bm1688/retinaface_640_int8_1b.twin/final.mlir",
            "it lacks '/final.mlir'",
        ),
        ("tables/latncy.csv", "tables/latency.csv", "'latncy' stands where 'latency' belongs"),
        ("tables/acuracy.md", "tables/accuracy.md", "no table 'acuracy'"),
        # Names with another artifact's in them.
        ("parity/nnie/retinaface_640.wk", "parity/nnie/retinaface_640.wk.json", "it lacks '.json'"),
        (
            "parity/ncnn/retinaface_640.params.json",
            "parity/ncnn/retinaface_640.param.json",
            "'params' stands where",
        ),
        (
            "bench/local/onnx/retinaface_640.sim.onx.json",
            "bench/local/onnx/retinaface_640.sim.onnx.json",
            "'onx' stands where 'onnx' belongs",
        ),
        (
            "eval/prt/nnie-emulator/nnie/retinaface_640.wk/wider_val.json",
            "eval/port/nnie-emulator/nnie/retinaface_640.wk/wider_val.json",
            "no evaluator 'prt'",
        ),
        (
            "eval/port/nnie-emulato/nnie/retinaface_640.wk/wider_va@ulfd.json",
            "eval/port/nnie-emulator/nnie/retinaface_640.wk/wider_val@ulfd.json",
            "",
        ),
        (
            "predictions/onnxruntim/onnx/retinaface_640.onnx/procedural",
            "predictions/onnxruntime/onnx/retinaface_640.onnx/procedural",
            "no backend 'onnxruntim'",
        ),
        (
            "gates/goldn/nnie/retinaface_640_int8.wk.json",
            "gates/golden/nnie/retinaface_640.wk.json",
            "",
        ),
    ],
)
def test_the_nearest_name_and_why(
    config: Config, root: Path, monkeypatch: pytest.MonkeyPatch, asked: str, name: str, reason: str
) -> None:
    monkeypatch.chdir(root)  # boards and datasets are read from its config/
    found = suggest(asked, PATTERNS, config)
    assert found is not None
    assert found.name == name or (name.endswith("/") and found.name.startswith(name))
    assert reason in found.reason


@pytest.mark.parametrize(
    "asked", ["nnie", "nnie/x", "tables/0123456789", "", "/", "elsewhere/retinaface_640.wk"]
)
def test_what_is_like_nothing_gets_no_suggestion(config: Config, asked: str) -> None:
    assert suggest(asked, PATTERNS, config) is None


@given(st.text(st.sampled_from("nieparty/_.0146wkjsonretfcb@"), max_size=40))
def test_any_text_is_answered(asked: str) -> None:
    config = load_config(Path(__file__).parents[2] / "config")
    found = suggest(f"parity/{asked}", PATTERNS, config)
    assert found is None or found.name.startswith("parity/")


def test_a_chip_without_a_type_is_not_offered_it(config: Config) -> None:
    # The BM1684 has no float16 unit.
    found = suggest("sophon/bm1684/retinaface_640_half_1b.bmodel", PATTERNS, config)
    assert found and not found.name.startswith("sophon/bm1684/retinaface_640_fp16")
