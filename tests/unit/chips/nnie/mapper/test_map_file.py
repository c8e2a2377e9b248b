"""From a Caffe pair to a .wk by the command line, with records; job folders that can be carried elsewhere."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from facekiln.artifact import sha256_of
from facekiln.caffe.net import Layer
from facekiln.caffe.reader import read_prototxt
from facekiln.caffe.writer import write_net
from facekiln.chips.nnie.mapper.cfg import read_cfg
from facekiln.chips.nnie.runtime import WkRuntime
from facekiln.chips.nnie.wk.inspect import describe
from facekiln.cli import main
from facekiln.provenance import read_record
from facekiln.vision.heads import HeadMap, heads_to_json
from facekiln.vision.preprocess import fit
from support.sshd import wait_until

MODEL = """title: tiny
network: none
licence: MIT
sizes: {24: [16, 24], 48: [48, 48]}
input: {name: data, colour: bgr, mean: [104, 117, 123], scale: [1, 1, 1]}
outputs: [loc]
weights: synthetic
"""


@dataclass
class Place:
    """A working folder with config, pair, heads and calibration set."""

    folder: Path

    def run(self, *arguments: str) -> int:
        return main(["nnie", *arguments])

    def map(self, *more: str) -> int:
        pair = ["--prototxt", "leg.prototxt", "--caffemodel", "leg.caffemodel", "--heads", "leg.heads.json"]
        return self.run("map", *pair, "--calibration", "cal", "--model", "tiny", "--size", "24", *more)


@pytest.fixture
def place(tmp_path: Path, tiny_net: Callable, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config/models").mkdir(parents=True)
    (tmp_path / "config/chips").mkdir()
    (tmp_path / "config/config.yaml").write_text("weights: synthetic\n")
    (tmp_path / "config/models/tiny.yaml").write_text(MODEL)
    (tmp_path / "config/chips/nnie.yaml").write_text("chip: hi3516dv300\n")
    net = tiny_net()
    net.layer("bbox").name = "/a/name/of/more/than/31/characters/bbox"
    net.layer("/a/name/of/more/than/31/characters/bbox").tops = ["/a/name/of/more/than/31/characters/bbox"]
    net.layers.insert(-2, Layer("crop", "Crop", ["sum", "a"], ["crop"], {"axis": 2}))
    net.layers[-1].bottoms = ["crop"]
    net.layers[-2:] = reversed(net.layers[-2:])
    write_net(net, tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    heads = [
        HeadMap("score", "conf", 0, 1, (16, 24), 2, 2, "anchor_major"),
        HeadMap("/a/name/of/more/than/31/characters/bbox", "loc", 0, 1, (16, 24), 2, 4, "anchor_major"),
    ]
    (tmp_path / "net.heads.json").write_text(json.dumps(heads_to_json(heads)))
    (tmp_path / "cal/images").mkdir(parents=True)
    rng = np.random.default_rng(3)
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"cal/images/{i}.png"), rng.integers(0, 256, (16, 24, 3), np.uint8))
    (tmp_path / "cal/list.txt").write_text("images/0.png\nimages/1.png\n")
    (tmp_path / "cal/calibration.json").write_text('{"size": [16, 24]}')
    made = Place(tmp_path)
    legal = ["net.prototxt", "net.caffemodel", "--heads", "net.heads.json", "--output-prefix", "leg"]
    assert made.run("legalise", *legal, "--model", "tiny", "--size", "24") == 0
    return made


def test_legalise_writes_files_and_records(place: Place) -> None:
    record = read_record("leg.prototxt")
    assert record is not None and not record.emulated
    assert {"NNIE-CROP", "NNIE-NAME", "NNIE-ORDER"} <= {edit["rule"] for edit in record.edits}
    assert record.inputs[0] == {"path": "net.prototxt", "sha256": sha256_of("net.prototxt")}
    assert record.facts["parity"]["max_relative"] < 1e-4
    (short, long), *_ = record.facts["original_names"].items()
    assert len(short) <= 31 and long == "/a/name/of/more/than/31/characters/bbox"
    # bbox comes before cls in the ABI, and the heads file says so with the new names.
    assert read_prototxt("leg.prototxt").outputs == [short, "score"]
    assert [head["blob"] for head in json.loads(Path("leg.heads.json").read_text())["heads"]] == [
        short,
        "score",
    ]


def test_map_writes_the_wk_its_cfg_log_and_record(place: Place) -> None:
    assert place.map("--precision", "16", "--cfg", "out/tiny.cfg", "--output", "out/tiny.wk") == 0
    said = describe("out/tiny.wk")
    assert said["emulated"] and said["precision"] == "16 bit"
    config = read_cfg("out/tiny.cfg")
    assert (config.RGB_order, config.compile_mode, config.inputs[0].norm_type) == ("BGR", 1, 2)
    assert "begin net parsing...." in Path("out/tiny.wk.mapper.log").read_text()
    record = read_record("out/tiny.wk")
    assert record is not None and record.emulated and record.sha256 == sha256_of("out/tiny.wk")
    assert record.tools["nnie_mapper"] == "EMULATED" and record.facts["precision"] == "16 bit"
    assert {entry["path"] for entry in record.inputs} >= {"leg.prototxt", "cal/list.txt", "leg.heads.json"}
    runtime = WkRuntime("out/tiny.wk")
    assert [head.output for head in runtime.heads] == ["loc", "conf"]
    assert list(runtime.original_names.values()) == ["/a/name/of/more/than/31/characters/bbox"]
    assert runtime.input.mean.ravel().tolist() == [104, 117, 123]


def test_the_same_inputs_give_the_same_wk_and_record(place: Place) -> None:
    results = []
    for _ in range(2):
        assert place.map("--output", "x.wk") == 0
        results.append((Path("x.wk").read_bytes(), Path("x.wk.kiln.json").read_bytes()))
    assert results[0] == results[1]


def test_a_failed_mapping_leaves_no_wk(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    Path("cal/list.txt").write_text("images/none.png\n")
    assert place.map("--output", "x.wk") == 1
    assert not Path("x.wk").exists() and "images/none.png" in capsys.readouterr().err


def test_sizes_must_agree(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    Path("cal/calibration.json").write_text('{"size": [48, 48]}')
    assert place.map("--output", "x.wk") == 1
    assert "the calibration set has another size" in capsys.readouterr().err
    pair = ["net.prototxt", "net.caffemodel", "--output-prefix", "x", "--model", "tiny", "--size", "48"]
    assert place.run("legalise", *pair) == 1
    assert "not of size 48 of model 'tiny'" in capsys.readouterr().err


def test_a_job_folder_can_be_mapped_anywhere(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.map("--output", "x.wk") == 0
    pair = ["--prototxt", "leg.prototxt", "--caffemodel", "leg.caffemodel", "--heads", "leg.heads.json"]
    job = ["--calibration", "cal", "--model", "tiny", "--size", "24", "--job", "job"]
    assert place.run("cfg", *pair, *job) == 0
    assert "[norm_type] 2\n" in capsys.readouterr().out
    assert Path("job/mean0.txt").read_text() == "104.0\n117.0\n123.0\n"
    carried = Path("job").rename("carried")
    command = [sys.executable, "-m", "facekiln.chips.nnie.mapper", "mapper.cfg"]
    subprocess.run(command, cwd=carried, check=True, capture_output=True)
    assert (carried / "inst.wk").read_bytes() == Path("x.wk").read_bytes()


def test_a_users_cfg_wins(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.txt").write_text("1\n2\n3\n")
    Path("mine.cfg").write_text(
        "[prototxt_file] other.prototxt\n[caffemodel_file] other.caffemodel\n[image_list] none.txt\n"
        "[image_type] 1\n[norm_type] 5\n[mean_file] mine.txt\n[data_scale] 0.5\n[RGB_order] RGB\n"
    )
    assert place.map("--from-cfg", "mine.cfg", "--output", "x.wk") == 0
    runtime = WkRuntime("x.wk")
    assert (runtime.input.order, runtime.input.scale) == ("RGB", 0.5)
    assert runtime.input.mean.ravel().tolist() == [1, 2, 3]
    assert place.map("--from-cfg", "mine.cfg", "--precision", "16", "--output", "x.wk") == 1
    assert "is not --precision 16" in capsys.readouterr().err


def test_a_local_mapper_is_recorded_for_what_it_made(place: Place, mirror: Callable[[str], Path]) -> None:
    wk = shlex.quote(str(mirror("mnet_640_inst.wk")))
    Path("mapper.sh").write_text(f"#!/bin/sh\ncp {wk} inst.wk\necho 'end quant files writing'\n")
    Path("mapper.sh").chmod(0o755)
    Path("config/chips/nnie.yaml").write_text("mapper: {mode: local, command: [./mapper.sh]}\n")
    assert place.map("--precision", "16", "--output", "x.wk") == 0
    record = read_record("x.wk")
    assert record is not None and not record.emulated
    assert record.tools["nnie_mapper"] == "1.2.1.0 B020 19010713251682"


def test_mode_can_be_chosen_by_hand(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.map("--mode", "ssh", "--output", "x.wk") == 1
    assert "by ssh is not possible yet" in capsys.readouterr().err


def test_check_inspect_and_run(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("check", "net.prototxt", "net.caffemodel") == 1
    assert "crop: Crop is not an NNIE layer" in capsys.readouterr().err
    assert place.run("check", "leg.prototxt", "leg.caffemodel") == 0
    assert place.map("--output", "x.wk") == 0
    capsys.readouterr()
    assert place.run("inspect", "x.wk") == 0
    assert capsys.readouterr().out.startswith("*** EMULATED")
    assert place.run("inspect", "--json", "x.wk") == 0
    assert json.loads(capsys.readouterr().out)["emulated"] is True
    cv2.imwrite("wide.png", np.full((40, 90, 3), 128, np.uint8))
    assert place.run("run", "x.wk", "wide.png", "--output", "values") == 0
    told = capsys.readouterr()
    assert "1x4x16x24" in told.out and "EMULATED" in told.err
    assert np.load("values/score.npy").shape == (1, 4, 16, 24)
    data = bytearray(Path("x.wk").read_bytes())
    data[0x0C] ^= 1
    Path("x.wk").write_bytes(data)
    assert place.run("inspect", "x.wk") == 1
    assert "PROBLEM: the CRC" in capsys.readouterr().out


@pytest.mark.parametrize("policy", ["letterbox", "stretch"])
def test_a_picture_is_resized_as_the_model_declares(
    place: Place, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("config/models/tiny.yaml").write_text(MODEL.replace("[1, 1, 1]}", f"[1, 1, 1], resize: {policy}}}"))
    for name in ("tiny_24.wk", "x.wk"):
        assert place.map("--output", name) == 0
    picture = np.random.default_rng(3).integers(0, 256, (40, 90, 3)).astype(np.uint8)
    cv2.imwrite("wide.png", picture)
    capsys.readouterr()
    assert place.run("run", "tiny_24.wk", "wide.png", "--output", "by_name") == 0
    assert "letterboxed" not in capsys.readouterr().err
    assert place.run("run", "x.wk", "wide.png", "--model", "tiny", "--output", "by_option") == 0
    assert place.run("run", "x.wk", "wide.png", "--output", "unknown") == 0
    assert "says no model" in capsys.readouterr().err
    assert place.run("run", "x.wk", "wide.png", "--model", "tinny") == 1
    assert "did you mean 'tiny'" in capsys.readouterr().err
    expected = WkRuntime("x.wk").run(fit(picture, (16, 24), policy)[0])["score"]
    assert np.array_equal(np.load("by_name/score.npy"), expected)
    assert np.array_equal(np.load("by_option/score.npy"), expected)
    assert np.array_equal(np.load("unknown/score.npy"), expected) == (policy == "letterbox")


def test_a_cancelled_job_leaves_no_mapper_behind(place: Place) -> None:
    # Snakemake and clusters end a job with SIGTERM; the mapper is in a session of its own.
    pids = place.folder / "pids"
    Path("mapper.sh").write_text(
        f"#!/bin/sh\nsleep 300 &\necho $! $$ > {pids}.part; mv {pids}.part {pids}; wait\n"
    )
    Path("mapper.sh").chmod(0o755)
    Path("config/chips/nnie.yaml").write_text("mapper: {mode: local, command: [./mapper.sh]}\n")
    pair = ["--prototxt", "leg.prototxt", "--caffemodel", "leg.caffemodel", "--calibration", "cal"]
    rest = ["--model", "tiny", "--size", "24", "--output", "x.wk"]
    process = subprocess.Popen(
        [sys.executable, "-m", "facekiln", "nnie", "map", *pair, *rest], stderr=subprocess.DEVNULL
    )
    wait_until(pids.exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 128 + signal.SIGTERM

    def ended(pid: str) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        except OSError:
            return True

    # What was killed may take a moment to go where cores are few.
    wait_until(lambda: all(map(ended, pids.read_text().split())))
    assert not Path("x.wk").exists()
