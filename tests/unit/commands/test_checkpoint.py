"""`facekiln checkpoint`: what is proved before anything is written, and what is told."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from facekiln.cli import main
from facekiln.config import load_config
from facekiln.models.registry import build_network


class Folder:
    """A copy of the config folder, and checkpoints made for it."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config"
        shutil.copytree(root / "config", self.config)
        for path in (self.config / "models").iterdir():
            if path.stem not in ("retinaface", "retinaface_1mb", "retinaface_first"):
                path.unlink()
        (folder / "mirror").mkdir()

    def edit(self, model: str, **values: Any) -> None:
        path = self.config / "models" / f"{model}.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}, sort_keys=False))

    def pin(self, model: str, data: bytes, name: str = "w.pth") -> dict[str, Any]:
        """Put bytes into the mirror and make a model's `published:` say so."""
        (self.folder / "mirror" / name).write_bytes(data)
        published = {
            "url": "https://weights.example/w.pth",
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "source": "example/weights",
        }
        self.edit(model, published=published)
        return published

    def weights(self, **changes: torch.Tensor) -> bytes:
        torch.manual_seed(0)
        state = build_network(load_config(self.config).model("retinaface")).state_dict()
        path = self.folder / "made.pth"
        torch.save({**state, **changes}, path)
        data = path.read_bytes()
        path.unlink()
        return data

    def run(self, verb: str, *arguments: str | Path) -> int:
        return main(["checkpoint", verb, *map(str, arguments), "--config", str(self.config)])

    def fetch(self, *arguments: str | Path, model: str = "retinaface", mirror: bool = True) -> int:
        where = ["--mirror", self.folder / "mirror"] if mirror else []
        return self.run("fetch", "--model", model, "--output", self.output, *where, *arguments)

    @property
    def output(self) -> Path:
        return self.folder / "results" / "checkpoints" / "r.pth"


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.delenv("FACEKILN_MIRROR", raising=False)
    return Folder(root, tmp_path)


def test_fetches_from_the_mirror_and_records_what_it_is(folder: Folder) -> None:
    data = folder.weights()
    published = folder.pin("retinaface", data)
    assert folder.fetch("--weights", "published") == 0
    assert folder.output.read_bytes() == data
    record = json.loads(Path(f"{folder.output}.kiln.json").read_text())
    assert record["sha256"] == published["sha256"]
    assert record["facts"] == {
        "licence": "Apache-2.0",
        "source": published["source"],
        "url": published["url"],
    }
    assert record["settings"]["declaration"]["options"] == {"leaky_slope": 0.1}
    assert str(folder.folder / "mirror") not in json.dumps(record), "the same bytes from any mirror"
    assert sorted(path.name for path in folder.output.parent.iterdir()) == ["r.pth", "r.pth.kiln.json"]


def test_the_kind_of_weights_comes_from_the_config(folder: Folder) -> None:
    folder.pin("retinaface", folder.weights())
    assert folder.fetch() == 0
    mine = folder.folder / "mine.pth"
    mine.write_bytes(folder.weights(**{"ClassHead.0.conv1x1.bias": torch.ones(4)}))
    folder.edit("retinaface", weights="local", local={"path": str(mine)})
    assert folder.fetch() == 0
    assert folder.output.read_bytes() == mine.read_bytes()


def test_a_wrong_variant_is_refused_before_anything_is_written(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    published = folder.pin("retinaface", folder.weights())
    # A user copies the address of one model's weights into another model's file.
    folder.edit("retinaface_1mb", published=published)
    assert folder.fetch(model="retinaface_1mb") == 1
    told = capsys.readouterr().err
    assert "options.leaky_slope: 0.0, not 0.1" in told
    assert "build 'retinaface'" in told
    assert not folder.output.parent.exists()


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.pin("retinaface", folder.weights(**{"fc.weight": torch.ones(4)}))
    assert folder.fetch() == 1
    assert "1 unexpected (fc.weight)" in capsys.readouterr().err
    assert not folder.output.parent.exists()


def test_a_model_without_that_section_is_told(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.fetch("--weights", "local") == 1
    assert "retinaface.yaml: has no `local:`" in capsys.readouterr().err


def test_a_local_file_is_copied_once_it_is_proved(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    mine = folder.folder / "mïne.pth"
    mine.write_bytes(folder.weights())
    folder.edit("retinaface", local={"path": str(mine)})
    assert folder.fetch("--weights", "local") == 0
    assert "taken on trust" in capsys.readouterr().err
    record = json.loads(Path(f"{folder.output}.kiln.json").read_text())
    assert record["inputs"] == [{"path": str(mine), "sha256": hashlib.sha256(mine.read_bytes()).hexdigest()}]


def test_a_local_file_of_another_hash_than_pinned_is_refused(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = folder.folder / "mine.pth"
    mine.write_bytes(folder.weights())
    folder.edit("retinaface", local={"path": str(mine), "sha256": "0" * 64})
    assert folder.fetch("--weights", "local") == 1
    assert "is not the file that the config pins" in capsys.readouterr().err
    mine.unlink()
    assert folder.fetch("--weights", "local") == 1
    assert "cannot be read: No such file" in capsys.readouterr().err
    assert not folder.output.parent.exists()


def test_inspect_tells_an_unknown_file(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder.folder / "x.pth"
    state = build_network(load_config(folder.config).model("retinaface")).state_dict()
    prefixed = {f"module.{key}": value for key, value in state.items()}
    torch.save({"state_dict": prefixed, "epoch": 1}, path, _use_new_zipfile_serialization=False)
    assert folder.run("inspect", path) == 0
    told = capsys.readouterr().out
    assert "legacy format" in told
    assert "keys        300   (without the prefix 'module.')" in told
    assert "parameters  426,608" in told
    assert "of no model here" in told
    assert "fits        retinaface, retinaface_1mb, retinaface_first" in told
    assert "fitting is not enough" in told


def test_inspect_tells_our_own_file(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder.folder / "x.pth"
    model = load_config(folder.config).model("retinaface")
    meta = {"format": 1, "model": "retinaface", "declaration": model.declaration(), "metrics": {"ap": 0.25}}
    torch.save({"state_dict": build_network(model).state_dict(), "facekiln": meta}, path)
    assert folder.run("inspect", path) == 0
    told = capsys.readouterr().out
    assert "zip format" in told
    assert 'metrics: {"ap": 0.25}' in told
    assert "of no model here" not in told


@pytest.mark.published
def test_inspect_knows_a_published_file(
    folder: Folder, mirror: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.run("inspect", mirror("retinaface_mnet025.pth"), mirror("retinaface_1mb_slim.pth")) == 0
    first, second = capsys.readouterr().out.split("retinaface_1mb_slim.pth")
    assert "published   as model 'retinaface'" in first
    assert "parameters  343,488" in second  # as Face-Detector-1MB-with-landmark's table says, 0.343 M
    assert "fits        no model here" in second


@pytest.mark.published
def test_the_published_weights_are_fetched_for_real_from_a_mirror(
    folder: Folder, mirror: Callable[[str], Path]
) -> None:
    source = mirror("retinaface_mnet025.pth")
    assert folder.fetch("--mirror", source.parent, mirror=False) == 0
    assert folder.output.read_bytes() == source.read_bytes()


def test_inspect_works_outside_a_checkout(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder.folder / "x.pth"
    path.write_bytes(folder.weights())
    assert main(["checkpoint", "inspect", str(path), "--config", str(folder.folder / "none")]) == 0
    assert "not looked up" in capsys.readouterr().out


def test_inspect_calls_a_web_page_one(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder.folder / "x.pth"
    path.write_text("<html>404</html>")
    assert folder.run("inspect", path) == 1
    assert "is a web page or XML, not a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["checkpoint", "--help"], ["checkpoint", "fetch", "--help"]])
def test_help_needs_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys, contextlib\n"
        "from facekiln.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    main({arguments!r})\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
