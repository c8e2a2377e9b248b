"""A real graph, end to end, on a miniature model: built, proved, rebuilt only where something changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.checkout import Checkout, copy_checkout

TARGETS = [
    "results/torchscript/tiny_64.pt",
    *(
        f"results/parity/{artifact}.json"
        for artifact in (
            "torchscript/tiny_64.pt",
            "onnx/tiny_64.onnx",
            "onnx/tiny_64.sim.onnx",
            "caffe/tiny_64.caffemodel",
            "nnie/tiny_64.wk",
            "nnie/tiny_64_int16.wk",
        )
    ),
]

# One worker runs all of them, as they share one checkout and put back what they change.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("built")]


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which every artifact of the miniature model is built; tests put back what they change."""
    checkout = copy_checkout(root, tmp_path_factory.mktemp("built"))
    checkout.snakemake("--", *TARGETS)
    return checkout


def test_every_edge_is_proved(built: Checkout) -> None:
    for target in TARGETS[1:]:
        report = json.loads((built.folder / target).read_text())
        assert report["passed"], target
        assert report["gates"], target
        assert report["emulated"] == target.endswith(".wk.json"), target
    readers = json.loads((built.folder / "results/parity/caffe/tiny_64.caffemodel.json").read_text())[
        "outputs"
    ]
    assert "caffe-opencv" in readers


def test_explain_tells_the_way_from_the_recipe_to_the_file(built: Checkout) -> None:
    done = built.facekiln("explain", "results/nnie/tiny_64.wk")
    assert done.returncode == 0, done.stderr
    for words in (
        "EMULATED",
        "edit NNIE-",
        "caffe/tiny_64.caffemodel",
        "onnx/tiny_64.sim.onnx",
        "checkpoints/tiny.pth",
        "passed",
    ):
        assert words in done.stdout, words


def test_inspect_says_emulated(built: Checkout) -> None:
    done = built.facekiln("nnie", "inspect", "results/nnie/tiny_64_int16.wk")
    assert done.returncode == 0, done.stderr
    assert "EMULATED" in done.stdout
    assert "16" in done.stdout


def test_second_run_does_nothing(built: Checkout) -> None:
    assert "Nothing to be done" in built.snakemake("--", *TARGETS).stderr


def test_touching_files_rebuilds_nothing(built: Checkout) -> None:
    """A fresh clone or a restored cache has new times on old content."""
    now = time.time()
    for folder in ("results", "workflow", "config"):
        for path in (built.folder / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                os.utime(path, (now, now))
    assert built.planned(*TARGETS) == {}


def test_editing_the_caffe_converter_rebuilds_from_caffe_on(built: Checkout) -> None:
    source = built.folder / "workflow/facekiln/caffe/convert.py"
    before = source.read_text()
    try:
        source.write_text(f"{before}\n# edited\n")
        planned = built.planned(*TARGETS)
    finally:
        source.write_text(before)
    assert planned["convert_caffe"] == 1
    assert not {
        "train_checkpoint",
        "export_onnx",
        "simplify_onnx",
        "make_calibration",
        "trace_torchscript",
    } & set(planned)
    assert built.planned(*TARGETS) == {}


def test_changing_one_model_leaves_the_others(built: Checkout) -> None:
    path = built.folder / "config/models/retinaface.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("leaky_slope: 0.1", "leaky_slope: 0.2"))
        assert built.planned(*TARGETS) == {}
    finally:
        path.write_text(before)


def test_same_inputs_give_the_same_bytes(built: Checkout) -> None:
    """Rebuild the quantised files from the same Caffe pair in another folder, at another time."""
    names = ["results/nnie/tiny_64.wk", "results/caffe/tiny_64.caffemodel", "results/onnx/tiny_64.sim.onnx"]
    before = {name: (built.folder / name).read_bytes() for name in names}
    built.snakemake("--force", "--", "results/nnie/tiny_64.wk")
    built.snakemake("--force", "--", "results/caffe/tiny_64.caffemodel")
    built.snakemake("--force", "--", "results/onnx/tiny_64.sim.onnx")
    for name in names:
        assert (built.folder / name).read_bytes() == before[name], name
    built.snakemake("--", *TARGETS)


def test_failing_gate_names_the_layer_and_leaves_no_report(built: Checkout) -> None:
    """Damage one weight of the Caffe file: the report must name the first layer that feels it."""
    damaged = built.folder / "damaged"
    damaged.mkdir()
    for ending in (".prototxt", ".heads.json", ".caffemodel", ".caffemodel.kiln.json"):
        (damaged / f"tiny_64{ending}").write_bytes(
            (built.folder / f"results/caffe/tiny_64{ending}").read_bytes()
        )
    done = built.facekiln("caffe", "inspect", "damaged/tiny_64.prototxt", "damaged/tiny_64.caffemodel")
    assert done.returncode == 0, done.stderr
    _damage(built, damaged / "tiny_64")
    done = built.facekiln(
        "parity",
        "compare",
        "results/onnx/tiny_64.sim.onnx",
        "damaged/tiny_64.caffemodel",
        "--output",
        "damaged/p.json",
    )
    assert done.returncode == 3, done.stderr
    assert "gate '" in done.stderr
    assert "stages first differ at" in done.stderr
    assert not (damaged / "p.json").exists()
    assert (damaged / "p.failed.json").exists()


def _damage(checkout: Checkout, stem: Path) -> None:
    """Scale the weights of one convolution in the middle of the network."""
    code = (
        "from facekiln.caffe.reader import read_net\nfrom facekiln.caffe.writer import write_net\n"
        f"stem = {str(stem)!r}\n"
        "net = read_net(stem + '.prototxt', stem + '.caffemodel')\n"
        "layer = [each for each in net.layers if each.type == 'Convolution'][20]\n"
        "layer.blobs[0] = layer.blobs[0] * 1.5\n"
        "write_net(net, stem + '.prototxt', stem + '.caffemodel')\n"
        "print(layer.tops[0])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=checkout.environment(), cwd=checkout.folder)
