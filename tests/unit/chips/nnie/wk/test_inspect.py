"""What the inspector says about the published files and about our own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from facekiln.chips.nnie.wk import payload
from facekiln.chips.nnie.wk.inspect import describe, render


@pytest.mark.parametrize(
    ("name", "precision", "tmp"),
    [("mnet_640_inst.wk", "16 bit", 7_372_800), ("mnet_mergebn_640L_inst.wk", "8 bit", 3_686_400)],
)
def test_published_files(mirror, name: str, precision: str, tmp: int) -> None:
    said = describe(mirror(name))
    assert said["precision"] == precision and said["tmp_bytes"] == tmp
    assert said["mapper"] == {"nnie": "1.2", "version": "1.2.1.0", "build": "B020", "stamp": "19010713251682"}
    assert said["crc"]["ok"] and not said["problems"] and not said["emulated"]
    assert said["size_rule"]["appended"] == 0
    (segment,) = said["segments"]
    assert segment["inputs"][0] == {
        "name": "data",
        "shape_hwc": [640, 640, 3],
        "kind": "RGB U8",
        "flags": "00000100",
    }
    assert len(segment["outputs"]) == 9
    # A depthwise Convolution is one record per channel: hence 1,283 of them in a network of 62.
    assert said["report"]["ops"]["Convolution"] == 1283 and said["report"]["ops"]["report"] == 9
    assert said["report"]["z"]["input"] == [{"16 bit": -384, "8 bit": 0}[precision]]
    # All three cls outputs have one name after the cut: board code must address them by index.
    assert "outputs 6, 7, 8 share the name 'face_rpn_cls_prob_reshape_strid'" in said["warnings"][0]
    text = "\n".join(render(said))
    assert "NNIE 1.2" in text and f"{tmp:,}" in text and "EMULATED" not in text
    json.dumps(said, allow_nan=False)


def test_emulated_files_have_a_banner_and_their_facts(tmp_path: Path, small_wk) -> None:
    path = tmp_path / "x.wk"
    path.write_bytes(small_wk(payload.encode({"facts": {"bits": 8}, "weights": np.zeros(3, np.int8)})))
    said = describe(path)
    assert said["emulated"] and said["mapper"]["nnie"] is None and said["payload"] == {"bits": 8}
    lines = render(said)
    assert lines[0].startswith("*** EMULATED") and "payload      bits 8" in lines


def test_damage_is_told_not_hidden(tmp_path: Path, small_wk) -> None:
    data = bytearray(small_wk())
    data[0x0C] ^= 0xFF
    (tmp_path / "x.wk").write_bytes(data)
    said = describe(tmp_path / "x.wk")
    assert not said["crc"]["ok"]
    assert any(line.startswith("PROBLEM: the CRC") for line in render(said))


def test_appended_block_of_the_newest_mapper_is_no_problem(tmp_path: Path, small_wk) -> None:
    (tmp_path / "x.wk").write_bytes(small_wk() + b"appended")
    said = describe(tmp_path / "x.wk")
    assert said["size_rule"]["appended"] == 8 and not said["problems"]
    assert any("8 bytes are appended" in line for line in render(said))
