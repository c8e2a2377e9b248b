"""The real C model and the quantised twin on a small network: same numbers, several chips at once, failures.

Needs the environment that `facekiln sophon environment --make` makes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from facekiln.chips.sophon.artifacts import Artifact
from facekiln.chips.sophon.compile_file import compile_file
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.outputs import meaning
from facekiln.chips.sophon.pollers import ENGINE, STEPS
from facekiln.chips.sophon.runtime import SophonRuntime
from facekiln.chips.sophon.settings import SophonSettings, load_settings
from facekiln.chips.sophon.tables import Tables
from facekiln.chips.sophon.transform import transform_file
from facekiln.chips.sophon.twin import twin_file
from facekiln.config import Model, load_config
from facekiln.errors import KilnError
from facekiln.parity.measure import measure
from facekiln.quant.run import Session
from facekiln.vision.image import write_image
from support.sophon import small_network

pytestmark = pytest.mark.slow
CHIPS = (("bm1684", "fp32"), ("bm1684x", "fp16"), ("bm1688", "fp16"))


@dataclass
class Bench:
    """A small network compiled for three chips, with twins, for one picture and for four."""

    model: Model
    settings: SophonSettings
    environment: Environment
    network: Path
    folder: Path

    def file(self, chip: str, precision: str, batch: int = 1) -> Path:
        """Return a .bmodel; its twin lies beside it."""
        artifact = Artifact(chip, "small", "8", precision, batch)
        path = self.folder / artifact.path
        if not path.is_file():
            top = self.folder / f"{batch}b"
            if not top.is_dir():
                pictures = self.folder / "set"
                transform_file(
                    self.network, pictures, self.model, "8", batch, self.settings, self.environment, top
                )
            deploy = self.settings.deploy
            compile_file(top, artifact, Tables(), deploy, self.environment, path)
            twin = path.with_suffix(".twin")
            twin_file(path, top, artifact, Tables(), deploy, self.environment, twin)
        return path

    def run(self, path: Path, x: np.ndarray, mode: str = "cmodel") -> dict[str, np.ndarray]:
        """Run once; outputs by the model's names."""
        with SophonRuntime(path, self.environment, mode, timeout_minutes=5) as runtime:
            found = runtime.run({"input": x})
        return {meant: found[name] for name, meant in meaning(found, self.model).items()}


@pytest.fixture(scope="module")
def bench(root: Path, sophon_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    settings = load_settings(root / "config")
    config = load_config(root / "config")
    place = tmp_path_factory.mktemp("bench")
    onnx.save(small_network(), place / "small.onnx")
    pictures = []
    for number in range(4):
        name = f"images/{number}.png"
        (place / "set" / "images").mkdir(parents=True, exist_ok=True)
        write_image(place / "set" / name, np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8))
        pictures.append({"path": name})
    (place / "set" / "calibration.json").write_text(json.dumps({"pictures": pictures, "set_sha256": "0"}))
    model = replace(config.model("ulfd_slim_320"), name="small", sizes={"8": (8, 8)})
    return Bench(model, settings, sophon_environment, place / "small.onnx", place)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(4, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(("chip", "precision"), CHIPS)
def test_c_model_twin_and_onnx_runtime_agree(
    bench: Bench, pictures: np.ndarray, chip: str, precision: str
) -> None:
    path = bench.file(chip, precision)
    expected = Session(onnx.load(bench.network)).run({"input": pictures[:1]})
    simulated = bench.run(path, pictures[:1])
    twin = bench.run(path.with_suffix(".twin"), pictures[:1], "twin")
    for name, value in expected.items():
        assert measure(value, simulated[name]).max_rel < (1e-5 if precision == "fp32" else 5e-3)
        assert measure(simulated[name], twin[name]).max_rel <= bench.settings.run.twin[precision]


def test_a_batch_gives_what_its_pictures_give(bench: Bench, pictures: np.ndarray) -> None:
    together = bench.run(bench.file("bm1684", "fp32", 4), pictures)
    for place in range(4):
        alone = bench.run(bench.file("bm1684", "fp32"), pictures[place : place + 1])
        for name, value in alone.items():
            apart = measure(value, together[name][place : place + 1]).max_rel
            assert apart <= bench.settings.run.batch["fp32"]


def test_chips_run_side_by_side(bench: Bench, pictures: np.ndarray) -> None:
    """Two rounds of three chips at once, each round's answers equal to those of a chip alone."""
    files = [bench.file(*chip) for chip in CHIPS]
    alone = [bench.run(path, pictures[:1]) for path in files]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(2):
            for path, first, second in zip(
                files, alone, pool.map(lambda one: bench.run(one, pictures[:1]), files), strict=True
            ):
                for name, value in first.items():
                    np.testing.assert_array_equal(second[name], value, err_msg=str(path))


def test_threads_that_only_poll_make_way(bench: Bench) -> None:
    """By the library's own names of its threads; without them this would silently be slow again."""
    with SophonRuntime(bench.file("bm1684x", "fp16"), bench.environment) as runtime:
        priorities = {
            (task / "comm").read_text().strip(): os.getpriority(os.PRIO_PROCESS, int(task.name))
            for task in Path(f"/proc/{runtime._process.pid}/task").iterdir()
        }
    engine = priorities.pop(ENGINE)
    assert {"TPU_GDMA", "CORE_MAIN"} <= priorities.keys()
    assert min(priorities.values()) == min(engine + STEPS, 19)


def test_every_tensor_of_a_twin_has_its_onnx_name(bench: Bench, pictures: np.ndarray) -> None:
    twin = bench.file("bm1684", "fp32").with_suffix(".twin")
    with SophonRuntime(twin, bench.environment, "twin") as runtime:
        every = runtime.run({"input": pictures[:1]}, every=True)
    assert {"scores_map_Conv", "boxes_map_Conv"} <= set(every)


@pytest.fixture
def broken(bench: Bench, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that damages a copy of a .bmodel."""

    def make(how: str) -> Path:
        data = bytearray(bench.file("bm1684", "fp32").read_bytes())
        path = tmp_path / f"{how}.bmodel"
        if how == "truncated":
            del data[len(data) // 2 :]
        else:  # another chip's name of the same length in the flatbuffer
            place = data.index(b"BM1684\0")
            data[place : place + 6] = b"BM1688"
        path.write_bytes(data)
        return path

    return make


def test_a_truncated_file_is_told(bench: Bench, broken: Callable[[str], Path]) -> None:
    with pytest.raises(KilnError, match="is truncated"):
        SophonRuntime(broken("truncated"), bench.environment)


def test_a_file_that_the_library_refuses_is_told_in_its_words(
    bench: Bench, broken: Callable[[str], Path], pictures: np.ndarray
) -> None:
    with (
        pytest.raises(KilnError, match=r"the C model of BM1688 (died|failed)"),
        SophonRuntime(broken("renamed"), bench.environment, timeout_minutes=1) as runtime,
    ):
        runtime.run({"input": pictures[:1]})


def test_a_limit_ends_a_real_run(bench: Bench, pictures: np.ndarray) -> None:
    runtime = SophonRuntime(bench.file("bm1684", "fp32"), bench.environment, timeout_minutes=1e-6)
    with pytest.raises(KilnError, match="took too long"):
        runtime.run({"input": pictures[:1]})
    with pytest.raises(KilnError, match="has ended"):
        runtime.run({"input": pictures[:1]})
