"""Cambricon's sample program: flags of both generations, progress, result files as the evaluator takes them.

Forms: magicmind_cloud, buildin/cv/detection/retinaface_pytorch/infer_cpp/src/infer.cpp. It prints numbers
with a stream's six digits, x and y rounded to whole pixels, and puts the path below --image_dir behind
pred_txts/.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from facekiln.chips.magicmind.infer_cpp import Watch, command, generation_of, infer
from facekiln.chips.magicmind.settings import SdkSettings, settings_from
from facekiln.cli import main
from facekiln.errors import KilnError
from facekiln.evaluation.read_any import read_any
from facekiln.evaluation.wider_truth import Truth

NAMES = (
    "0--Parade/0_Parade_marchingband_1_20",
    "0--Parade/0_Parade_marchingband_1_74",
    "1--Handshaking/1_a_9",
)
TRUTH = Truth(
    images=NAMES,
    counts=np.ones(3, np.int64),
    boxes=np.array([[1.0, 1, 9, 9]] * 3).T.copy(),
    kept=np.ones((3, 3), bool),
    source="the truth",
)
# As `ofs << std::round(...) << ' ' << w << ' ' << score << std::endl` writes them.
FILES = {
    NAMES[
        0
    ]: "0_Parade_marchingband_1_20.jpg\n2\n541 353 36.3051 43.9167 0.999878\n-3 12 1024.5 7 3.05176e-05\n",
    NAMES[1]: "0_Parade_marchingband_1_74.jpg\n0\n",
    NAMES[2]: "1_a_9.jpg\n1\n10 20 30 40 0.5\n",
}
HELP = {
    "batch_size": "    -batch_size (The batch size) type: int32 default: 1\n    -device_id (The device)",
    "batch": "    -batch (The batch size) type: int32 default: 1\n    -device_id (The device index of mlu)",
}
# A stand-in that takes the program's flags and no others, and prints and writes in its form.
PROGRAM = """#!{python}
import os, sys
known = set("device_id magicmind_model image_dir image_num file_list output_dir save_img {flag}".split())
if "--help" in sys.argv:
    print({help!r}); sys.exit(1)
flags = dict(item.lstrip("-").split("=", 1) for item in sys.argv[1:])
if set(flags) - known:
    sys.exit("ERROR: unknown command line flag %s" % (set(flags) - known))
files = {files!r}
print("================== Load Images ====================")
print("Total images: %d" % len(files))
for i, (name, text) in enumerate(sorted(files.items())):
    print("Inference img: %s.jpg\\t\\t\\t%d/%d" % (name.split("/")[1], i + 1, len(files)), flush=True)
    if name in {missing!r}:
        continue
    path = flags["output_dir"] + "/pred_txts/" + {below!r} + "/" + name + ".txt"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").write(text)
"""


def _program(
    path: Path,
    *,
    flag: str = "batch_size",
    below: str = "",
    missing: tuple[str, ...] = (),
    files: object = FILES,
) -> Path:
    text = PROGRAM.format(
        python=sys.executable, flag=flag, help=HELP[flag], files=files, below=below, missing=missing
    )
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def sdk() -> SdkSettings:
    return settings_from({}).sdk


@pytest.mark.parametrize("generation", ["batch_size", "batch"])
@pytest.mark.parametrize("below", ["", "images"])
def test_its_results_are_predictions(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, generation: str, below: str
) -> None:
    monkeypatch.chdir(root)
    (tmp_path / "a.mm").write_bytes(b"a vendor's file")
    program = _program(tmp_path / "infer", flag=generation, below=below)
    out = tmp_path / "out"
    told = ["--program", str(program), "--pictures", str(tmp_path), "--output", str(out), "--batch", "4"]
    assert main(["magicmind", "infer", str(tmp_path / "a.mm"), *told]) == 0
    for place in (out, out / "pred_txts"):
        found = read_any(place, TRUTH, official=False)
        assert found.counts.tolist() == [2, 0, 1]
        assert found.table[:, 0].tolist() == [541, 353, 36.3051, 43.9167, 0.999878]
        assert found.table[:, 1].tolist() == [-3, 12, 1024.5, 7, 3.05176e-05]


def test_what_goes_wrong(tmp_path: Path, sdk: SdkSettings) -> None:
    arguments = command(tmp_path / "a.mm", tmp_path, tmp_path / "out")
    short = _program(tmp_path / "short", missing=(NAMES[1],))
    with pytest.raises(KilnError, match=r"left result files out.*2 files.*3 pictures"):
        infer(short, arguments, tmp_path / "out", sdk)
    with pytest.raises(KilnError, match="earlier run"):
        infer(short, arguments, tmp_path / "out", sdk)
    empty = command(tmp_path / "a.mm", tmp_path, tmp_path / "none")
    with pytest.raises(KilnError, match="found no picture"):
        infer(_program(tmp_path / "empty", files={}), empty, tmp_path / "none", sdk)
    older = _program(tmp_path / "older", flag="batch")
    with pytest.raises(KilnError, match=r"unknown command line flag.*batch_size"):
        infer(older, command(tmp_path / "a.mm", tmp_path, tmp_path / "x"), tmp_path / "x", sdk)
    for wrong in ({"batch": 0}, {"count": 0}, {"count": -2}):
        with pytest.raises(KilnError, match="asks for no picture"):
            command(tmp_path / "a.mm", tmp_path, tmp_path, **wrong)


def test_flags_of_both_generations() -> None:
    assert [generation_of(text) for text in HELP.values()] == list(HELP)
    with pytest.raises(KilnError, match="neither"):
        generation_of("usage: infer")
    arguments = command(Path("m"), Path("p"), Path("o"), batch=4, file_list=Path("l"), generation="batch")
    assert arguments == [
        "--device_id=0",
        "--magicmind_model=m",
        "--image_dir=p",
        "--image_num=-1",
        "--output_dir=o",
        "--save_img=false",
        "--batch=4",
        "--file_list=l",
    ]


def test_progress_is_read_from_its_lines() -> None:
    watch = Watch()
    for line in (
        "Total images: 3226",
        "Inference img: 0_Parade_marchingband_1_20.jpg\t\t\t1/3226",
        "2023-03-24 10:01:13,080: INFO: infer.cpp:91] Start run...",
        "Inference img: a b.jpg\t\t\t17/3226",
    ):
        watch(line)
    watch.close()
    assert (watch.total, watch.seen) == (3226, 17)


def test_an_emulated_file_is_refused(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from facekiln.chips.magicmind.container import MAGIC

    monkeypatch.chdir(root)
    (tmp_path / "a.mm").write_bytes(MAGIC + b"x")
    told = ["--program", "infer", "--pictures", str(tmp_path), "--output", str(tmp_path / "o")]
    assert main(["magicmind", "infer", str(tmp_path / "a.mm"), *told]) == 1
    assert "no card runs" in capsys.readouterr().err
