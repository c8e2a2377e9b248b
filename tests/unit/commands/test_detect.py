"""`facekiln detect`: the same faces from any stage, in the picture's own pixels."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from facekiln.cli import main
from facekiln.commands import detect as module
from facekiln.config import load_config
from facekiln.graph.export import export_onnx, save_onnx
from facekiln.models.registry import build_network
from facekiln.vision.image import read_image, write_image


class Stages:
    """A checkpoint and its ONNX graph at 64 x 64, with weights that find something."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config"
        shutil.copytree(root / "config", self.config)
        path = self.config / "models" / "retinaface.yaml"
        declared = yaml.safe_load(path.read_text())
        declared["sizes"] = {64: [64, 64], 96: [96, 96]}
        path.write_text(yaml.safe_dump(declared, sort_keys=False))
        model = load_config(self.config).model("retinaface")
        torch.manual_seed(3)
        network = build_network(model).eval()
        self.pth = folder / "retinaface.pth"
        torch.save(network.state_dict(), self.pth)
        self.onnx = folder / "retinaface_64.onnx"
        save_onnx(export_onnx(network, model, "64", 11), self.onnx)
        self.image = folder / "a" / "bïld.png"
        write_image(self.image, np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8))

    def detect(self, *arguments: str | Path, model: str = "retinaface") -> int:
        return main(["detect", "--config", str(self.config), "--model", model, *map(str, arguments)])


@pytest.fixture(scope="module")
def stages(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(root, tmp_path_factory.mktemp("stages"))


def faces(text: str) -> np.ndarray:
    return np.array(
        [[float(value) for value in line.split()] for line in text.splitlines() if line[0] == " "]
    )


def test_two_stages_find_the_same_faces(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    threshold = ["--threshold", "0.3"]
    assert stages.detect("--stage", stages.pth, "--size", "64", *threshold, stages.image) == 0
    first = capsys.readouterr().out
    assert stages.detect("--stage", stages.onnx, *threshold, stages.image) == 0
    second = capsys.readouterr().out
    found = faces(first)
    assert first.startswith(f"{stages.image}: {len(found)} face")
    assert len(found) > 0
    assert np.allclose(found, faces(second), atol=0.02)


def test_the_threshold_decides(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    assert stages.detect("--stage", stages.pth, "--size", "64", "--threshold", "1", stages.image) == 0
    assert capsys.readouterr().out == f"{stages.image}: 0 faces\n"
    assert stages.detect("--stage", stages.pth, "--size", "64", "--threshold", "1.5", stages.image) == 1
    assert "limit: 0..1" in capsys.readouterr().err


@pytest.mark.published
def test_the_published_checkpoint_at_original_size_and_at_640(
    stages: Stages,
    root: Path,
    mirror: Callable[[str], Path],
    data: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = ["--config", str(root / "config"), "--stage", mirror("retinaface_mnet025.pth")]
    assert stages.detect(*stage, "--original", data("images/det41.jpg")) == 0
    original = capsys.readouterr().out
    assert "det41.jpg: 3 faces" in original
    # det41.jpg is 640 x 640, so both must agree; the boxes are near those of another RetinaFace on it:
    # mnet.25 in Caffe finds 134 246 194 340, 458 86 522 172 and 226 321 270 385.
    assert stages.detect(*stage, "--size", "640", data("images/det41.jpg")) == 0
    assert capsys.readouterr().out == original
    boxes = faces(original)[:, 1:]
    expected = np.array([[134, 246, 194, 340], [458, 86, 522, 172], [226, 321, 270, 385]])
    assert np.abs(np.sort(boxes, axis=0) - np.sort(expected, axis=0)).max() < 12


def test_pictures_are_drawn_and_the_given_ones_untouched(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stages.image.read_bytes()
    twin = tmp_path / stages.image.name
    twin.write_bytes(before)
    drawn = tmp_path / "drawn"
    run = ["--stage", stages.onnx, "--threshold", "0.3", "--draw", drawn]
    assert stages.detect(*run, stages.image, twin) == 0
    assert sorted(path.name for path in drawn.iterdir()) == ["0000_bïld.png", "0001_bïld.png"]
    picture = read_image(drawn / "0000_bïld.png")
    assert picture.shape == (50, 80, 3)
    assert (picture != read_image(stages.image)).any()
    assert stages.image.read_bytes() == before
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stage", "{pth}"], "say --size LABEL, or --original"),
        (["--stage", "{pth}", "--size", "65"], "unknown size of model 'retinaface' '65'"),
        (["--stage", "{onnx}", "--original"], "is built for one size"),
        (["--stage", "{onnx}", "--size", "96"], "onnxruntime: cannot run a 96x96 picture"),
        (["--stage", "none.pth", "--original"], "none.pth: does not exist"),
        (["--stage", "{image}", "--size", "64"], "is of no kind that can be run here"),
    ],
)
def test_what_cannot_be_run_is_told(
    stages: Stages, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(pth=stages.pth, onnx=stages.onnx, image=stages.image) for word in arguments]
    assert stages.detect(*given, stages.image) == 1
    assert words in capsys.readouterr().err


def test_a_stage_named_after_another_model_is_refused(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stages.detect("--stage", stages.onnx, stages.image, model="retinaface_1mb") == 1
    assert "is of model 'retinaface' by its name, not 'retinaface_1mb'" in capsys.readouterr().err


def test_an_unknown_model_gets_a_suggestion(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    assert stages.detect("--stage", stages.pth, stages.image, model="retinafac") == 1
    assert "did you mean 'retinaface'" in capsys.readouterr().err


def test_a_broken_picture_is_told(stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.jpg"
    page.write_text("<html></html>")
    assert stages.detect("--stage", stages.onnx, page) == 1
    assert "page.jpg: is a web page" in capsys.readouterr().err


class Fake:
    """A stage whose scores had no softmax, made by no vendor tool."""

    name, precision, emulated = "fake", "int8", True

    def __init__(self, priors: int) -> None:
        self.priors = priors

    def run(self, _picture: np.ndarray) -> dict[str, np.ndarray]:
        conf = np.tile(np.float32([4, -4]), (1, self.priors, 1))
        return {
            "loc": np.zeros((1, self.priors, 4), np.float32),
            "conf": conf,
            "landms": np.zeros((1, self.priors, 10), np.float32),
        }


def test_emulation_and_raw_scores_are_told(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("facekiln.parity.executors.open_stage", lambda *_: Fake(2 * (64 + 16 + 4)))
    assert stages.detect("--stage", "retinaface_64.wk", stages.image) == 0
    told = capsys.readouterr()
    assert "fake, int8, EMULATED" in told.err
    assert "scores are -4 to 4, not 0..1: is a softmax missing?" in told.err
    assert told.out.endswith(": 0 faces\n")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, contextlib\n"
        "from facekiln.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['detect', '--help'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_an_onnx_stage_needs_no_torch(stages: Stages) -> None:
    arguments = [
        "detect",
        "--config",
        stages.config,
        "--model",
        "retinaface",
        "--stage",
        stages.onnx,
        stages.image,
    ]
    code = (
        "import sys\nfrom facekiln.cli import main\n"
        f"assert main({list(map(str, arguments))!r}) == 0\nsys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_drawn_pictures_keep_their_names_where_they_can() -> None:
    assert module._drawn_names([Path("a/x.jpg"), Path("b/y.jpg")]) == ["x.png", "y.png"]
    assert module._drawn_names([Path("a/x.jpg"), Path("b/x.png")]) == ["0000_x.png", "0001_x.png"]
