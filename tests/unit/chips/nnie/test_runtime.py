"""Running an emulated .wk; refusing everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from facekiln.caffe.opencv import OpenCvNet
from facekiln.chips.nnie.mapper.mapper import main
from facekiln.chips.nnie.runtime import WkRuntime
from facekiln.errors import KilnError
from facekiln.provenance import write_record
from facekiln.vision.heads import HeadMap, heads_to_json


@pytest.fixture
def wk(job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a maker of an emulated .wk of the tiny network."""

    def make(folder: str = "job", before: Callable[[Path], None] | None = None, **keys: object) -> Path:
        place = job(folder, **keys)
        if before:
            before(place)
        monkeypatch.chdir(place)
        assert main(["x.cfg"]) == 0
        return place / "inst.wk"

    return make


@pytest.mark.parametrize(("mode", "bits", "least"), [(0, 8, 0.99), (1, 16, 0.9999)])
def test_outputs_are_near_floats_and_in_20_12(wk, tiny_net, mode: int, bits: int, least: float) -> None:
    path = wk(compile_mode=mode)
    runtime = WkRuntime(path)
    picture = cv2.imread(str(path.parent / "images/1.png"))
    outputs = runtime.run(picture)
    assert runtime.bits == bits and list(outputs) == ["bbox", "score"] == runtime.outputs
    data = picture[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    expected = OpenCvNet(tiny_net()).run({"data": data}, list(outputs))
    for name, values in outputs.items():
        assert values.dtype == np.float32 and values.shape == expected[name].shape
        assert (values * 4096 == np.rint(values * 4096)).all()
        a, b = values.ravel().astype(float), expected[name].ravel().astype(float)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert least < cosine < 1, name


def test_trace_is_in_execution_order_and_holds_the_outputs(wk) -> None:
    path = wk()
    runtime = WkRuntime(path)
    picture = cv2.imread(str(path.parent / "images/1.png"))
    trace = runtime.trace(picture)
    assert list(trace) == ["data", "a", "b", "sum", "bbox", "score"]
    assert np.array_equal(trace["bbox"], runtime.run(picture)["bbox"])


def test_prepared_tensors_are_taken_as_they_are(wk) -> None:
    path = wk()
    runtime = WkRuntime(path)
    picture = cv2.imread(str(path.parent / "images/1.png"))
    prepared = runtime.prepare(picture)
    assert prepared.dtype == np.float32
    assert np.array_equal(runtime.run(prepared)["score"], runtime.run(picture)["score"])


@pytest.mark.parametrize(
    "picture",
    [np.zeros((16, 25, 3), np.uint8), np.zeros((16, 24, 3), np.float32), np.zeros((16, 24), np.uint8)],
)
def test_other_pictures_are_refused(wk, picture: np.ndarray) -> None:
    with pytest.raises(KilnError, match=r"not an input.*uint8 \[16, 24, 3\] BGR"):
        WkRuntime(wk()).run(picture)


def test_heads_and_former_names_come_from_files_beside_the_prototxt(wk) -> None:
    heads = [HeadMap("bbox", "loc", 0, 1, (16, 24), 2, 4, "anchor_major")]

    def before(folder: Path) -> None:
        (folder / "net.heads.json").write_text(json.dumps(heads_to_json(heads)))
        prototxt = folder / "net.prototxt"
        write_record(prototxt, verb="t", inputs=[], facts={"original_names": {"bbox": "/a/long/name"}})

    runtime = WkRuntime(wk(before=before))
    assert runtime.heads == heads and runtime.original_names == {"bbox": "/a/long/name"}
    assert WkRuntime(wk("plain")).heads == []


def test_the_vendors_file_is_refused_with_the_reason(mirror) -> None:
    with pytest.raises(KilnError, match=r"only an NNIE can run.*mapper 1\.2\.1\.0"):
        WkRuntime(mirror("mnet_640_inst.wk"))


def test_damage_is_refused(wk, small_wk, tmp_path: Path) -> None:
    data = bytearray(wk().read_bytes())
    data[len(data) // 3] ^= 1
    (tmp_path / "d.wk").write_bytes(data)
    with pytest.raises(KilnError, match="is damaged: the CRC"):
        WkRuntime(tmp_path / "d.wk")
    (tmp_path / "p.wk").write_bytes(small_wk())
    with pytest.raises(KilnError, match="payload is damaged: KeyError"):
        WkRuntime(tmp_path / "p.wk")
    (tmp_path / "q.wk").write_bytes(small_wk(b"something else"))
    with pytest.raises(KilnError, match="not a facekiln payload"):
        WkRuntime(tmp_path / "q.wk")
