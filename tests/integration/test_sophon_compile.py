"""ONNX to .bmodel with the real compiler and simulator: bit-identity, preprocessing, what a failure leaves.

Needs the environment that `facekiln sophon environment --make` makes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from facekiln.artifact import sha256_of
from facekiln.chips.sophon.artifacts import Artifact
from facekiln.chips.sophon.bmodel import read_bmodel
from facekiln.chips.sophon.clock import EPOCH
from facekiln.chips.sophon.compile_file import compile_file
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.mlir import read_mlir
from facekiln.chips.sophon.qtable import Qtable, write_qtable
from facekiln.chips.sophon.settings import SophonSettings, load_settings
from facekiln.chips.sophon.tables import Tables
from facekiln.chips.sophon.tool import job_folder, run_tool
from facekiln.chips.sophon.transform import preprocess_arguments, stage, transform_file
from facekiln.chips.sophon.twin import twin_file
from facekiln.config import Input, Model, load_config
from facekiln.errors import KilnError
from facekiln.provenance import read_record
from facekiln.vision.image import read_image, write_image
from facekiln.vision.preprocess import Resize, to_tensor
from support.sophon import small_network

pytestmark = pytest.mark.slow


@dataclass
class Bench:
    """A small model, its calibration set, and the real tools."""

    model: Model
    settings: SophonSettings
    environment: Environment
    network: Path
    calibration: Path

    def transform(self, output: Path, batch: int = 1) -> Path:
        """Make a top.mlir's folder."""
        transform_file(
            self.network,
            self.calibration,
            self.model,
            "8",
            batch,
            self.settings,
            self.environment,
            output,
        )
        return output

    def table(self, top: Path, output: Path) -> Path:
        """Make a calibration table by the tool's own program."""
        with job_folder(output) as job:
            stage(top, job)
            (job / "set").mkdir()
            (job / "set" / "a.npz").write_bytes((job / "input.npz").read_bytes())
            arguments = ["top.mlir", "--dataset=set", "--input_num=1", "--tune_num=0", "-o=out.table"]
            run_tool(self.environment, "run_calibration", arguments, folder=job, log=None, timeout_minutes=5)
            output.write_bytes((job / "out.table").read_bytes())
        return output

    def compile(self, top: Path, artifact: Artifact, folder: Path, tables: Tables | None = None) -> Path:
        """Make a .bmodel."""
        output = folder / artifact.path
        compile_file(top, artifact, tables or Tables(), self.settings.deploy, self.environment, output)
        return output


@pytest.fixture(scope="module")
def bench(root: Path, sophon_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    settings = load_settings(root / "config")
    config = load_config(root / "config")
    place = tmp_path_factory.mktemp("bench")
    onnx.save(small_network(), place / "small.onnx")
    pictures = []
    (place / "set" / "images").mkdir(parents=True)
    for number in range(4):
        name = f"images/{number}.png"
        write_image(place / "set" / name, np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8))
        pictures.append({"path": name})
    (place / "set" / "calibration.json").write_text(json.dumps({"pictures": pictures, "set_sha256": "0"}))
    model = replace(config.model("ulfd_slim_320"), name="small", sizes={"8": (8, 8)})
    return Bench(model, settings, sophon_environment, place / "small.onnx", place / "set")


@pytest.fixture(scope="module")
def top(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench.transform(tmp_path_factory.mktemp("tops") / "small_8_1b")


def everything(bench: Bench, folder: Path, artifact: Artifact) -> dict[str, str]:
    """Build from ONNX in a folder; return the hash of each file."""
    top = bench.transform(folder / "a folder" / "small_8_1b", artifact.batch)
    tables = Tables()
    if artifact.precision == "int8":
        tables = Tables(bench.table(top, folder / "small.table"), mixed(top, artifact, folder))
    made = bench.compile(top, artifact, folder, tables)
    named = {path.name: sha256_of(path) for path in sorted(top.iterdir()) if path.suffix in (".mlir", ".npz")}
    assert str(folder).encode() not in made.read_bytes()
    assert not any(str(folder).encode() in path.read_bytes() for path in top.glob("*.mlir"))
    return {**named, "bmodel": sha256_of(made)}


def mixed(top: Path, artifact: Artifact, folder: Path) -> Path | None:
    """Keep a convolution in float where there is float16, as the shipped settings do."""
    if artifact.chip != "bm1684x":
        return None
    first = next(op.name for op in read_mlir(top / "top.mlir").ops if op.kind == "Conv")
    write_qtable(folder / "small.qtable", Qtable({first: "F16"}))
    return folder / "small.qtable"


@pytest.mark.parametrize(
    "artifact",
    [
        Artifact("bm1684", "small", "8", "int8", 1),
        Artifact("bm1684x", "small", "8", "int8", 4),
        Artifact("bm1684", "small", "8", "fp32", 4),
        Artifact("bm1684x", "small", "8", "fp16", 1),
        Artifact("bm1688", "small", "8", "int8", 1, cores=2),
    ],
    ids=lambda artifact: artifact.stem + "_" + artifact.chip,
)
def test_two_folders_at_two_times_give_the_same_bytes(
    bench: Bench, tmp_path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = everything(bench, tmp_path / "first", artifact)
    # The clock is local time: another zone is another hour in the tool's own bytes, whatever the seconds are.
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    second = everything(bench, tmp_path / "second", artifact)
    assert first == second


def test_the_tools_own_bytes_do_differ_and_only_in_the_clock(
    bench: Bench, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw: list[bytes] = []

    def keep(data: bytes) -> bytes:
        raw.append(data)
        return data

    monkeypatch.setattr("facekiln.chips.sophon.compile_file.normalise", keep)
    for zone in ("UTC", "Asia/Tokyo"):
        monkeypatch.setenv("TZ", zone)
        bench.compile(top, Artifact("bm1684", "small", "8", "fp32", 1), tmp_path / zone)
    first, second = raw
    differing = [at for at, (one, other) in enumerate(zip(first, second, strict=True)) if one != other]
    assert differing
    assert differing[-1] - differing[0] < len(EPOCH)


def test_two_cores_compile_and_pass_the_simulator(bench: Bench, top: Path, tmp_path: Path) -> None:
    made = bench.compile(top, Artifact("bm1688", "small", "8", "fp16", 1, cores=2), tmp_path)
    assert read_bmodel(made).nets[0].stages[0].cores == 2
    record = read_record(made)
    assert record is not None
    assert record.facts["compiler_estimate"]["cycles"] > 0
    assert record.facts["simulated_against_quantised"]["cosine"] > 0.99


def test_a_twin_has_the_hash_that_the_compilation_noted(bench: Bench, top: Path, tmp_path: Path) -> None:
    artifact = Artifact("bm1684x", "small", "8", "fp16", 1)
    made = bench.compile(top, artifact, tmp_path)
    twin_file(made, top, artifact, Tables(), bench.settings.deploy, bench.environment, tmp_path / "twin")
    assert {path.name for path in (tmp_path / "twin").iterdir()} >= {"final.mlir", "weights.npz"}
    # Another precision is another model: the twin must not be made from it.
    other = replace(artifact, precision="fp32")
    with pytest.raises(KilnError, match="was compiled from another model"):
        twin_file(made, top, other, Tables(), bench.settings.deploy, bench.environment, tmp_path / "other")


def test_a_missed_tolerance_leaves_nothing(bench: Bench, top: Path, tmp_path: Path) -> None:
    deploy = replace(bench.settings.deploy, tolerance={"fp16": (1.0, 1.0)})
    artifact = Artifact("bm1684x", "small", "8", "fp16", 1)
    with pytest.raises(KilnError, match="model_deploy failed"):
        compile_file(top, artifact, Tables(), deploy, bench.environment, tmp_path / "a" / "b.bmodel")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_compile_that_takes_too_long_is_ended(bench: Bench, top: Path, tmp_path: Path) -> None:
    deploy = replace(bench.settings.deploy, timeout_minutes=0.01)
    artifact = Artifact("bm1684x", "small", "8", "fp16", 1)
    with pytest.raises(KilnError, match="took too long"):
        compile_file(top, artifact, Tables(), deploy, bench.environment, tmp_path / "a" / "b.bmodel")
    assert list((tmp_path / "a").iterdir()) == []


def tools_tensor(bench: Bench, picture: Path, declared: Input, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Return what model_transform makes of a picture by the options that we give it."""
    graph = small_network()
    for axis, side in zip((2, 3), size, strict=True):
        graph.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = side
    for output in graph.graph.output:
        output.type.tensor_type.shape.dim[1].dim_value = size[0] * size[1]
    with job_folder() as job:
        onnx.save(graph, job / "net.onnx")
        arguments = [
            "--model_name=small",
            "--model_def=net.onnx",
            f"--input_shapes=[[1,3,{size[0]},{size[1]}]]",
            *preprocess_arguments(declared),
            f"--test_input={picture}",
            "--test_result=top.npz",
            "--mlir=top.mlir",
        ]
        run_tool(bench.environment, "model_transform", arguments, folder=job, log=None, timeout_minutes=5)
        with np.load(job / "small_in_f32.npz") as given:
            values: np.ndarray[Any, Any] = given["input"]
            return values


@pytest.mark.parametrize("name", ["retinaface", "ulfd_slim_320", "pfpld", "ghostone"])
def test_the_tools_preprocessing_is_ours(bench: Bench, root: Path, tmp_path: Path, name: str) -> None:
    """On a picture of the network's size, as those of calibration sets are: equal to the bit."""
    declared = load_config(root / "config").model(name).input
    picture = tmp_path / "picture.png"
    write_image(picture, np.random.default_rng(3).integers(0, 256, (16, 24, 3), np.uint8))
    ours = to_tensor(read_image(picture), declared)
    assert np.array_equal(tools_tensor(bench, picture, declared, (16, 24)), ours)


@pytest.mark.parametrize(("name", "policy"), [("retinaface", "letterbox"), ("ulfd_slim_320", "stretch")])
def test_the_tool_fits_pictures_of_other_sizes_as_we_do(
    bench: Bench, root: Path, tmp_path: Path, name: str, policy: str
) -> None:
    """Aspect, padding at the right and bottom in black; it knows bilinear only, where we average areas."""
    declared = load_config(root / "config").model(name).input
    picture = tmp_path / "picture.png"
    write_image(picture, np.random.default_rng(4).integers(0, 256, (30, 20, 3), np.uint8))
    fitted, _ = Resize(policy, (15, 24), interpolation="linear")(read_image(picture))
    assert np.array_equal(tools_tensor(bench, picture, declared, (15, 24)), to_tensor(fitted, declared))
