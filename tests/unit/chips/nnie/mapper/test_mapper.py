"""The emulated nnie_mapper: the vendor tool's interface, limits and log, and a .wk that says what it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.schema import message_class
from facekiln.chips.nnie.engine import gfpq
from facekiln.chips.nnie.mapper.log import STAGES
from facekiln.chips.nnie.mapper.mapper import main
from facekiln.chips.nnie.runtime import WkRuntime
from facekiln.chips.nnie.wk.inspect import describe
from facekiln.chips.nnie.wk.read import read_wk

Make = Callable[..., Path]


@pytest.fixture
def mapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Path], tuple[int, str]]:
    """Run the emulator inside a job folder; return its exit status and its log."""

    def run(folder: Path, cfg: str = "x.cfg") -> tuple[int, str]:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("FACEKILN_CONFIG", raising=False)
        status = main([cfg])
        return status, capsys.readouterr().out

    return run


def test_the_log_has_the_vendors_stages_in_order(job: Make, mapped) -> None:
    status, log = mapped(job(log_level=3))
    assert status == 0
    lines = log.splitlines()
    assert lines[0] == "Mapper Version 0.0.0.0 (NNIE_1.2) EMULATED by facekiln"
    assert [line for line in lines if line.startswith(("begin", "end"))] == [
        line for stage in STAGES.values() for line in stage
    ]
    # Spelling as published logs have it.
    assert "begin net quantalizing(CPU)...." in lines and "end NNIE[0] memory allocating" in lines


@pytest.mark.parametrize(("mode", "precision", "width"), [(0, "8 bit", 1), (1, "16 bit", 2)])
def test_the_wk_says_what_it_is(job: Make, mapped, mode: int, precision: str, width: int) -> None:
    folder = job(compile_mode=mode, internal_stride=32, instruction_name="out/tiny")
    assert mapped(folder)[0] == 0
    said = describe(folder / "out/tiny.wk")
    assert said["emulated"] and not said["problems"] and said["precision"] == precision
    (segment,) = said["segments"]
    assert [node["shape_hwc"] for node in segment["inputs"]] == [[16, 24, 3]]
    assert segment["inputs"][0]["kind"] == "RGB U8"
    assert [(n["name"], n["shape_hwc"]) for n in segment["outputs"]] == [
        ("bbox", [16, 24, 8]),
        ("score", [16, 24, 4]),
    ]
    assert said["alignment"] == 32 and said["payload"]["calibration_pictures"] == 3
    first = read_wk(folder / "out/tiny.wk").report[0]
    assert (first.op, first.elem_bytes, first.row_stride) == (0x2C, width, 32 if width == 1 else 64)
    # The random pictures reach 255: z of 0..255 is 0 at 8 bit and -384 at 16 bit (libgfpq 1.1.5).
    assert first.z == {1: 0, 2: -384}[width]


def test_the_same_inputs_give_the_same_bytes_whatever_the_paths(job: Make, mapped, tmp_path: Path) -> None:
    first, second = job("first"), job("elsewhere/second", instruction_name="another")
    mapped(first)
    mapped(second)
    data = (first / "inst.wk").read_bytes()
    assert data == (second / "another.wk").read_bytes()
    mapped(first)
    assert data == (first / "inst.wk").read_bytes()
    assert str(tmp_path).encode() not in data


def test_threads_do_not_change_the_bytes(job: Make, mapped) -> None:
    results = []
    for threads in (1, 3):
        folder = job(f"t{threads}")
        (folder / "config/chips").mkdir(parents=True)
        (folder / "config/chips/nnie.yaml").write_text(f"emulator: {{threads: {threads}}}\n")
        mapped(folder)
        results.append((folder / "inst.wk").read_bytes())
    assert results[0] == results[1]


def test_relative_paths_belong_to_the_current_directory(job: Make, mapped) -> None:
    folder = job()
    (folder / "cfgs").mkdir()
    (folder / "x.cfg").rename(folder / "cfgs/x.cfg")
    assert mapped(folder, "cfgs/x.cfg")[0] == 0
    assert (folder / "inst.wk").is_file() and (folder / "RUNTIME.txt").is_file()


def broken_list(folder: Path) -> None:
    (folder / "list.txt").write_text("images/0.png\nimages/none.png\n")


def cut_picture(folder: Path) -> None:
    whole = (folder / "images/1.png").read_bytes()
    (folder / "images/1.png").write_bytes(whole[: len(whole) // 2])


def gif(folder: Path) -> None:
    (folder / "list.txt").write_text("images/0.gif\n")


def empty_list(folder: Path) -> None:
    (folder / "list.txt").write_text("\n\n")


def no_list(folder: Path) -> None:
    (folder / "list.txt").unlink()


def other_weights(folder: Path) -> None:
    (folder / "net.caffemodel").write_bytes((folder / "net.caffemodel").read_bytes()[:-40])


def wrong_mean(folder: Path) -> None:
    (folder / "mean.txt").write_text("1\n2\n")


@pytest.mark.parametrize(
    ("spoil", "keys", "message"),
    [
        (broken_list, {}, "images/none.png"),
        (cut_picture, {}, "images/1.png: "),
        (gif, {}, "images/0.gif"),
        (empty_list, {}, "list.txt: the image list is empty"),
        (no_list, {}, "list.txt: the image list cannot be read: No such file"),
        (other_weights, {}, "net.caffemodel"),
        (wrong_mean, {"norm_type": 2, "mean_file": "mean.txt"}, "one float per channel"),
        (None, {"norm_type": 2, "mean_file": "none.txt"}, "none.txt: the mean file cannot be read"),
        (None, {"prototxt_file": "none.prototxt"}, "none.prototxt"),
        (None, {"compile_mod": 1}, "did you mean 'compile_mode'"),
        (None, {"compile_mode": 2}, "names end in `_hp`"),
        (None, {"image_type": 3}, "conversion from YUV is not public"),
        (None, {"net_type": 1}, "[net_type]: is not emulated"),
        (None, {"gfpq_param_file": "g.txt"}, "its syntax is not public"),
    ],
)
def test_failures_name_the_cause_and_leave_no_wk(
    job: Make, mapped, spoil: Callable[[Path], None] | None, keys: dict[str, object], message: str
) -> None:
    folder = job(**keys)
    (folder / "inst.wk").write_bytes(b"of an earlier run")
    if spoil:
        spoil(folder)
    status, log = mapped(folder)
    assert status == 1
    error = log[log.index("ERROR: file: ") :]
    assert message in error
    assert "end binary code generating" not in log
    if "compile_mod" not in keys:
        assert not (folder / "inst.wk").exists()


def test_limits_are_enforced_with_the_tools_words(job: Make, mapped, tiny_net) -> None:
    net = tiny_net()
    net.layers.append(Layer("Transpose_174", "Permute", ["bbox"], ["p"], {"order": [0, 3, 1, 2]}))
    status, log = mapped(job(net=net, log_level=0))
    assert status == 1
    # The vendor's text, from published logs.
    assert "layer name: [Transpose_174]. error:" in log
    assert "Permute can only support (0,1,2,3) -> (0,2,3,1) order!" in log
    assert "ERROR: file: restrictions  rule: NNIE-PERMUTE" in Path("mapper_error.log").read_text()


def test_hp_names_and_modes(job: Make, mapped, tiny_net) -> None:
    net = tiny_net(name="b_hp")
    status, log = mapped(job("low", net=net, compile_mode=0))
    assert status == 1 and "layer name: [b_hp]. error:`_hp` with compile_mode 0" in log
    folder = job("mixed", net=net, compile_mode=2)
    assert mapped(folder)[0] == 0
    assert describe(folder / "inst.wk")["precision"] == "mixed"
    runtime = WkRuntime(folder / "inst.wk")
    assert runtime.bits == 16
    low = job("plain", net=tiny_net())
    mapped(low)
    assert describe(low / "inst.wk")["precision"] == "8 bit"


def test_check_only_needs_neither_weights_nor_pictures(job: Make, mapped, tiny_net) -> None:
    folder = job(is_check_prototxt=1)
    (folder / "net.caffemodel").unlink()
    (folder / "list.txt").unlink()
    status, log = mapped(folder)
    assert status == 0 and "no known limit refuses" in log and not (folder / "inst.wk").exists()
    net = tiny_net()
    net.layers.append(Layer("crop", "Crop", ["bbox", "score"], ["c"], {"axis": 2}))
    assert mapped(job("bad", net=net, is_check_prototxt=1))[0] == 1


def test_data_of_zeros_is_warned_of_in_the_vendors_words(job: Make, mapped, tiny_net) -> None:
    net = tiny_net()
    net.layer("bbox").blobs = [np.zeros_like(blob) for blob in net.layer("bbox").blobs]
    status, log = mapped(job(net=net))
    assert status == 0
    assert log.count("data containing only zeros; set max value to 1e-6.") == 2
    assert "WARNING: file: quantise  name: bbox" in log


def test_pictures_of_another_size_are_resized_and_told(job: Make, mapped) -> None:
    status, log = mapped(job(size=(33, 40)))
    assert status == 0 and "3 pictures were resized (linear); the vendor tool's filter is not known" in log
    assert "resized" not in mapped(job("same"))[1]


def test_black_pictures_are_warned_of(job: Make, mapped) -> None:
    folder = job()
    cv2.imwrite(str(folder / "images/1.png"), np.zeros((16, 24, 3), np.uint8))
    assert "images/1.png is all black or all white" in mapped(folder)[1]


def hex_values(path: Path, kind: str) -> np.ndarray:
    words = path.read_text().split()
    values = np.array([int(word, 16) for word in words], np.uint32)
    return values.astype(np.int32) if kind == "fixed" else values


def test_dumps_at_log_level_3(job: Make, mapped) -> None:
    folder = job(log_level=3)
    mapped(folder)
    dumps = folder / "mapper_quant"
    names = {path.name for path in dumps.iterdir()}
    assert {
        "a_weight.hex",
        "a_weight-anti.float",
        "a_bias.hex",
        "a_input0_3_16_24_quant.nonlinear.hex",
        "a_input0_3_16_24_anti_quant.linear.float",
        "a_output0_4_16_24_quant.linear.hex",
    } <= names
    runtime = WkRuntime(folder / "inst.wk")
    # Dumps belong to the last picture of the list.
    last = cv2.imread(str(folder / "images/2.png"))
    prepared = runtime.prepare(last)
    codes = hex_values(dumps / "a_input0_3_16_24_quant.nonlinear.hex", "codes")
    assert (codes.reshape(prepared.shape) == gfpq.encode(prepared, 0, 8)).all()
    floats = np.loadtxt(dumps / "a_input0_3_16_24_anti_quant.linear.float", dtype=np.float32)
    assert np.allclose(floats.reshape(prepared.shape), gfpq.quantise(prepared, 0, 8), atol=1e-5)
    fixed = hex_values(dumps / "bbox_output0_8_16_24_quant.linear.hex", "fixed")
    assert (fixed.reshape(1, 8, 16, 24) / 4096 == runtime.run(last)["bbox"]).all()
    assert len((dumps / "a_weight.hex").read_text().split()[0]) == 2
    assert (folder / "mapper_debug.log").is_file() and (folder / "mapper_error.log").read_text() == ""
    assert "Output: bbox [bond_1][8][16][24]" in (folder / "RUNTIME.txt").read_text()


def test_no_log_level_no_log_files(job: Make, mapped) -> None:
    folder = job()
    mapped(folder)
    assert not (folder / "mapper_debug.log").exists() and not (folder / "mapper_quant").exists()


def test_slashes_in_names_of_dumps(job: Make, mapped, tiny_net) -> None:
    net: Net = tiny_net()
    net.layer("a").name = "body/a"
    folder = job(net=net, log_level=3)
    mapped(folder)
    assert (folder / "mapper_quant/body_a_weight.hex").is_file()


@pytest.mark.parametrize(("norm", "kind"), [(2, "txt"), (5, "txt"), (1, "binaryproto"), (4, "binaryproto")])
def test_means_and_scales(job: Make, mapped, norm: int, kind: str) -> None:
    folder = job(norm_type=norm, mean_file=f"mean.{kind}", data_scale=0.5)
    mean = np.broadcast_to(np.float32([10, 20, 30]).reshape(3, 1, 1), (3, 16, 24))
    if kind == "txt":
        (folder / "mean.txt").write_text("10\n20\n30\n")
    else:
        blob = message_class("BlobProto")(channels=3, height=16, width=24)
        blob.data.append(mean.astype("<f4").tobytes())
        (folder / "mean.binaryproto").write_bytes(blob.SerializeToString())
    assert mapped(folder)[0] == 0
    picture = cv2.imread(str(folder / "images/0.png"))
    planes = picture[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
    # (x - mean) * scale, in this order; the network sees RGB.
    expected = (planes - mean) * (0.5 if norm > 2 else 1)
    assert np.array_equal(WkRuntime(folder / "inst.wk").prepare(picture)[0], expected)


def test_gray_and_bgr_inputs(job: Make, mapped, tiny_net) -> None:
    gray = job("gray", net=tiny_net(channels=1), RGB_order="BGR")
    bgr = job("bgr", RGB_order="BGR")
    assert mapped(gray)[0] == mapped(bgr)[0] == 0
    assert describe(gray / "inst.wk")["segments"][0]["inputs"][0]["kind"] == "gray U8"
    assert describe(bgr / "inst.wk")["segments"][0]["inputs"][0]["kind"] == "BGR U8"
    picture = cv2.imread(str(bgr / "images/0.png"))
    assert np.array_equal(WkRuntime(bgr / "inst.wk").prepare(picture)[0], picture.transpose(2, 0, 1))


def test_feature_map_inputs(job: Make, mapped) -> None:
    folder = job(image_type=0)
    values = np.random.default_rng(0).normal(size=(2, 3 * 16 * 24))
    lines = [" ".join(map(str, values[0])), ",".join(map(str, values[1]))]
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    assert mapped(folder)[0] == 0
    runtime = WkRuntime(folder / "inst.wk")
    assert runtime.facts["calibration_pictures"] == 2 and not runtime.input.image
    (folder / "list.txt").write_text("1 2 3\n")
    status, log = mapped(folder)
    assert status == 1 and "a line must hold one whole tensor" in log and "line 1" in log


def test_it_is_a_program(job: Make, tmp_path: Path) -> None:
    folder = job()
    command = [sys.executable, "-m", "facekiln.chips.nnie.mapper"]
    done = subprocess.run([*command, "x.cfg"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Mapper Version 0.0.0.0 (NNIE_1.2) EMULATED by facekiln\n")
    assert (folder / "inst.wk").is_file()


def test_one_argument_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2 == main(["a.cfg", "b.cfg"])
    assert "usage: nnie_mapper_emu X.cfg" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert main(["none.cfg"]) == 1
