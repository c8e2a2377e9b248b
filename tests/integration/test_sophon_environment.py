"""The real tpu_mlir: made where asked for, proved, and run on a real network.

It is used where it is made already ($FACEKILN_TOOLCHAINS, or .toolchains of this checkout). Making it takes
1.7 GB, an index and a minute or two: set FACEKILN_MAKE_SOPHON=1 for that.
"""

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facekiln.chips.sophon.environment import Environment, fault_of, wanted
from facekiln.chips.sophon.make import make_environment
from facekiln.chips.sophon.probe import flag, release_of
from facekiln.chips.sophon.proof import prove
from facekiln.chips.sophon.settings import load_settings
from facekiln.chips.sophon.tool import job_folder, run_tool
from facekiln.config import load_config
from facekiln.errors import KilnError

MAKE = "FACEKILN_MAKE_SOPHON"
NET = "ulfd_rfb_320_upstream.onnx"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def tools(root: Path) -> Environment:
    """The real environment, or a skip."""
    settings, config = load_settings(root / "config"), load_config(root / "config")
    if not os.environ.get("FACEKILN_TOOLCHAINS"):
        config = replace(config, toolchains=str(root / ".toolchains"))
    environment = wanted(settings, config)
    if fault_of(environment) and os.environ.get(MAKE):
        return make_environment(settings, config)
    if fault_of(environment):
        pytest.skip(f"{environment.folder}: {fault_of(environment)}; set {MAKE}=1 to make it here (1.7 GB)")
    return environment


@pytest.fixture(scope="session")
def job(tools: Environment, mirror: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network, an input, and top.mlir with its reference."""
    folder = tmp_path_factory.mktemp("rfb")
    shutil.copy(mirror(NET), folder / "net.onnx")
    np.savez(
        folder / "in.npz", input=np.random.default_rng(0).normal(size=(1, 3, 240, 320)).astype(np.float32)
    )
    run_tool(
        tools,
        "model_transform",
        [
            *("--model_name", "net", "--model_def", "net.onnx", "--input_shapes", "[[1,3,240,320]]"),
            *("--test_input", "in.npz", "--test_result", "top.npz", "--mlir", "net.mlir"),
        ],
        folder=folder,
        log=folder / "transform.log",
        timeout_minutes=3,
    )
    return folder


def deploy(tools: Environment, folder: Path, *more: str, minutes: float = 4) -> str:
    return run_tool(
        tools,
        "model_deploy",
        [
            *("--mlir", "net.mlir", "--test_input", "net_in_f32.npz", "--test_reference", "top.npz"),
            *("--model", "out.bmodel", *more),
        ],
        folder=folder,
        log=None,
        timeout_minutes=minutes,
    )


def test_proved_in_spite_of_the_users_own_environment(
    tools: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "onnx", "torch"):
        (tmp_path / f"{name}.py").write_text("raise ImportError(__file__)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("TPUC_ROOT", "/nowhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert prove(tools) == {"tool": release_of(tools), "python": prove(tools)["python"]}
    assert release_of(tools).startswith("v1.26-")


def test_it_has_both_names_of_the_chip_option(tools: Environment) -> None:
    assert flag(tools, "model_deploy", ["--processor"]) == "--processor"
    assert flag(tools, "model_deploy", ["--chip"]) == "--chip"
    with pytest.raises(KilnError, match="has none of --target"):
        flag(tools, "model_deploy", ["--target"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--quantize", "INT8", "--chip", "bm1684x"), "no threshold for some layer"),
        (("--quantize", "F16", "--chip", "bm1684"), "the chip does not do this precision"),
        (("--quantize", "F32", "--chip", "bm9999"), "knows no chip 'bm9999'"),
        (("--quantize", "F16", "--chip", "bm1684x", "--tolerance", "1.0,1.0"), "misses the tolerance"),
        (("--quantize", "F32", "--chip", "bm1684x", "--nonsense"), "unrecognized arguments: --nonsense"),
    ],
)
def test_real_failures_tell_their_cause(
    tools: Environment, job: Path, options: tuple[str, ...], told: str
) -> None:
    with pytest.raises(KilnError, match=told):
        deploy(tools, job, *options)


def test_a_file_that_is_cut_short(tools: Environment, job: Path) -> None:
    deploy(tools, job, "--quantize", "F32", "--chip", "bm1684x", "--skip_validation")
    whole = (job / "out.bmodel").read_bytes()
    (job / "cut.bmodel").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(KilnError, match=r"cut\.bmodel is cut short or damaged"):
        run_tool(tools, "model_tool", ["--info", "cut.bmodel"], folder=job, log=None, timeout_minutes=1)


def test_a_newer_file_than_its_runtime_reads(tools: Environment, job: Path) -> None:
    import onnx

    model = onnx.load(job / "net.onnx")
    model.ir_version = 11
    onnx.save(model, job / "new.onnx")
    with pytest.raises(KilnError, match="IR version is above 9"):
        run_tool(
            tools,
            "model_transform",
            [
                *("--model_name", "new", "--model_def", "new.onnx", "--input_shapes", "[[1,3,240,320]]"),
                *("--test_input", "in.npz", "--test_result", "new.npz", "--mlir", "new.mlir"),
            ],
            folder=job,
            log=None,
            timeout_minutes=3,
        )


def test_a_hang_is_ended_with_everything_that_it_started(tools: Environment, job: Path) -> None:
    with pytest.raises(KilnError, match="took too long"):
        deploy(tools, job, "--quantize", "F32", "--chip", "bm1684", minutes=1.5 / 60)

    def left() -> list[Path]:
        return [
            path
            for path in Path("/proc").glob("[0-9]*/cwd")
            if os.access(path, os.R_OK) and os.path.realpath(path) == str(job.resolve())
        ]

    # What was killed may take a moment to go where cores are few.
    until = time.monotonic() + 60
    while left() and time.monotonic() < until:
        time.sleep(0.05)
    assert not left()


def test_jobs_of_two_chips_at_once(tools: Environment, job: Path, tmp_path: Path) -> None:
    """All simulate: the tool links one library of the environment to either chip in turn."""

    def build(chip: str) -> None:
        with job_folder(tmp_path / "out.bmodel") as folder:
            for name in ("net.mlir", "net_in_f32.npz", "top.npz", "net_top_f32_all_weight.npz"):
                shutil.copy(job / name, folder)
            assert deploy(tools, folder, "--quantize", "F32", "--chip", chip).count("npz compare PASSED") == 2

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(build, ["bm1684x", "bm1688", "bm1684x", "bm1688"]))
    assert not list(tmp_path.iterdir())
