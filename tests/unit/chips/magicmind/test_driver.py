"""The driver, run as the vendor's interpreter runs it, before a stand-in SDK that checks its calls."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from facekiln.chips.magicmind import driver
from facekiln.chips.magicmind.build_config import build_config
from facekiln.chips.magicmind.job import DRIVER, OUTPUT, Job, run_job, write_job
from facekiln.chips.magicmind.names import batch_from
from facekiln.chips.magicmind.settings import MagicmindSettings, SdkSettings, settings_from
from facekiln.config import Model, load_config
from facekiln.errors import KilnError

SDK = Path(__file__).parents[3] / "support/fake_sdk"


def _python37() -> str | None:
    """Return a Python 3.7 with numpy, as the vendor's image has it: $FACEKILN_PYTHON37, or in PATH."""
    for name in (os.environ.get("FACEKILN_PYTHON37"), "python3.7"):
        path = shutil.which(name) if name else None
        code = "import sys, numpy; sys.exit(sys.version_info[:2] != (3, 7))"
        if path and not subprocess.run([path, "-c", code], capture_output=True, check=False).returncode:
            return path
    return None


@pytest.fixture(params=["this Python", "Python 3.7"])
def python(request: pytest.FixtureRequest) -> str:
    """An interpreter that runs the driver."""
    if request.param == "this Python":
        return sys.executable
    return _python37() or pytest.skip("no Python 3.7 with numpy: set FACEKILN_PYTHON37")


@pytest.fixture
def model(root: Path) -> Model:
    """RetinaFace as declared."""
    return load_config(root / "config").model("retinaface")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The calls that the stand-in got."""
    monkeypatch.setenv("PYTHONPATH", str(SDK))
    monkeypatch.setenv("FAKE_MM_LOG", str(tmp_path / "calls"))
    monkeypatch.delenv("FAKE_MM", raising=False)
    return lambda: (tmp_path / "calls").read_text().splitlines()


def _sdk(**changes: object) -> SdkSettings:
    return settings_from({"sdk": {"mode": "local", **changes}}).sdk


def _job(
    tmp_path: Path,
    model: Model,
    precision: str = "qint8_mixed_float16",
    pictures: str = "1",
    settings: MagicmindSettings | None = None,
    **changes: object,
) -> Path:
    settings = settings or settings_from({})
    network = tmp_path / "net.onnx"
    network.write_bytes(b"an ONNX file")
    told = {
        "name": "retinaface_640",
        "kind": "onnx",
        "files": [network],
        "dims": [1, 3, 32, 32],
        "build_config": build_config(settings, model.input, (32, 32), precision, batch_from(pictures)),
        "samples": np.arange(5 * 3 * 32 * 32, dtype=np.float32).reshape(5, 3, 32, 32),
        "algorithm": "linear",
        "batch": 2,
        "device": 0,
        "remote": None,
        "precisions": {},
    }
    folder = tmp_path / "job"
    folder.mkdir()
    write_job(folder, Job(**{**told, **changes}))  # type: ignore[arg-type]
    return folder


def test_a_quantised_build_calls_the_sdk_in_order(
    tmp_path: Path, model: Model, python: str, calls: Callable[[], list[str]]
) -> None:
    folder = _job(tmp_path, model, precisions={"conv2": "FLOAT32"})
    told = run_job(folder, _sdk(), [python])
    assert told["sdk"] == "1.7.0-fake" and told["samples"] == 4 and told["precisions"] == ["conv2"]
    assert told["inputs"] == [{"name": "input", "shape": [1, 32, 32, 3], "dtype": "UINT8"}]
    assert (folder / OUTPUT).read_text().startswith("FAKE ")
    made = calls()
    assert [line.split()[0] for line in made] == [
        "parse",
        "set_dimension",
        "parse_from_string",
        "set_precision",
        "set_output_type",
        "active",
        # Two batches of two; the fifth picture is a short rest.
        "sample",
        "sample",
        "calibrated",
        "build_model",
        "serialize_to_file",
    ]
    assert made[0] == "parse network.onnx" and made[1] == "set_dimension [1, 3, 32, 32]"
    config = json.loads(made[2].split(" ", 1)[1])
    assert config["archs"] == [{"mtp_372": [6, 8]}]
    assert config["insert_bn_before_firstnode"] == {"0": {"mean": [104, 117, 123], "var": [1, 1, 1]}}
    assert made[8] == f"calibrated 0 {float(np.arange(4 * 3 * 32 * 32, dtype=np.float32).sum()):.1f}"


def test_a_float_build_of_a_mutable_batch_needs_no_device(
    tmp_path: Path,
    model: Model,
    python: str,
    calls: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_MM", "no_device")
    folder = _job(
        tmp_path, model, "force_float16", "1-8", samples=None, dims=[-1, 3, 32, 32], algorithm="linear"
    )
    told = run_job(folder, _sdk(), [python])
    assert told["samples"] == 0 and told["inputs"][0]["shape"] == [-1, 32, 32, 3]
    (config,) = [
        json.loads(line.split(" ", 1)[1]) for line in calls() if line.startswith("parse_from_string")
    ]
    assert config["dim_range"] == {"0": {"min": [1, 3, 32, 32], "max": [8, 3, 32, 32]}}


@pytest.mark.parametrize(
    ("kind", "names", "first"),
    [
        ("torchscript", ["net.pt"], "parse network.pt"),
        ("caffe", ["net.caffemodel", "net.prototxt"], "parse network.caffemodel network.prototxt"),
    ],
)
def test_other_frameworks(
    tmp_path: Path, model: Model, calls: Callable[[], list[str]], kind: str, names: list[str], first: str
) -> None:
    files = [tmp_path / name for name in names]
    for file in files:
        file.write_bytes(b"x")
    run_job(_job(tmp_path, model, kind=kind, files=files), _sdk(), [sys.executable])
    assert calls()[0] == first


def test_nodes_that_the_parser_names_otherwise_are_found_by_their_place(
    tmp_path: Path, model: Model, python: str, calls: Callable[[], list[str]]
) -> None:
    wanted = {"/body/stem/Conv": "FLOAT16", "conv2": "FLOAT32"}
    job = _job(tmp_path, model, precisions=wanted, places={"/body/stem/Conv": 0, "conv2": 1})
    assert run_job(job, _sdk(), [python])["precisions"] == ["conv1", "conv2"]
    assert [line for line in calls() if line.startswith("set_precision")] == [
        "set_precision conv1 0 FLOAT16",
        "set_precision conv2 0 FLOAT32",
    ]


@pytest.mark.parametrize("fault", ["pairs", "pairs,bools"])
def test_an_older_release_gets_names_alone(
    tmp_path: Path, model: Model, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("FAKE_MM", fault)
    run_job(_job(tmp_path, model), _sdk(), [sys.executable])
    tried = [json.loads(line.split(" ", 1)[1])["archs"] for line in calls() if "archs" in line]
    assert tried == [[{"mtp_372": [6, 8]}], ["mtp_372"]]


@pytest.mark.parametrize(
    ("fault", "changes", "message"),
    [
        ("parse", {}, r"Parser\.parse.*GridSample is not supported(?s:.)*source"),
        ("calibrate", {}, r"Calibrator\.calibrate.*range of conv1 is empty"),
        ("no_device", {}, r"no device 0 here(?s:.)*sdk\.remote"),
        ("no_samples", {}, "took no sample"),
        ("no_file", {}, "there is none"),
        ("old", {"algorithm": "eqnm"}, "no EQNM_ALGORITHM"),
        ("", {"precisions": {"conv9": "FLOAT32"}}, r"conv9(?s:.)*"),
        ("", {"precisions": {"conv1": "FLOAT7"}}, "no FLOAT7"),
        ("", {"batch": 6}, r"smaller than a batch"),
        ("crash", {}, r"exit status -11"),
    ],
)
def test_what_the_sdk_refuses_is_told_in_its_words(
    tmp_path: Path,
    model: Model,
    calls: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    changes: dict[str, object],
    message: str,
) -> None:
    monkeypatch.setenv("FAKE_MM", fault)
    with pytest.raises(KilnError, match=message):
        run_job(_job(tmp_path, model, **changes), _sdk(), [sys.executable])  # type: ignore[arg-type]
    assert not (tmp_path / "job" / driver.RESULT).exists()


def test_no_sdk(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(KilnError, match=r"cannot be imported(?s:.)*vendor's image"):
        run_job(_job(tmp_path, model), _sdk(), [sys.executable])


def test_a_hung_build_is_ended(tmp_path: Path, model: Model) -> None:
    folder = _job(tmp_path, model)
    (folder / DRIVER).write_text("import time; time.sleep(60)")
    with pytest.raises(KilnError, match="took too long"):
        run_job(folder, _sdk(timeout_minutes=0.01), [sys.executable])


def _script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_on_a_licensed_machine_through_ssh(
    tmp_path: Path, model: Model, calls: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """What ssh does: the last argument goes to a shell there, whose folder is another."""
    body = f'for last; do :; done; echo "$@" >{tmp_path}/asked; cd / && exec sh -c "$last"'
    ssh = _script(tmp_path / "ssh", body)
    sdk = _sdk(mode="ssh", ssh={"program": [ssh, "-p", "22"], "host": "licensed"})
    folder = _job(tmp_path, model)
    with caplog.at_level("INFO", logger="facekiln"), _heard():
        told = run_job(folder, sdk, [sys.executable])
    assert told["samples"] == 4 and (folder / OUTPUT).read_text().startswith("FAKE ")
    assert (tmp_path / "asked").read_text().startswith("-p 22 licensed ")
    assert "stage 5/6: build retinaface_640" in caplog.text and calls()[-1] == "serialize_to_file"


def test_what_fails_on_a_licensed_machine_is_told_in_its_words(
    tmp_path: Path, model: Model, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    del calls
    monkeypatch.setenv("FAKE_MM", "parse")
    ssh = _script(tmp_path / "ssh", 'for last; do :; done; exec sh -c "$last"')
    sdk = _sdk(mode="ssh", ssh={"program": [ssh], "host": "h"})
    with pytest.raises(KilnError, match=r"Parser\.parse.*GridSample"):
        run_job(_job(tmp_path, model), sdk, [sys.executable])


@pytest.mark.parametrize(
    ("remote", "network", "expected"),
    [(None, None, "none"), ("mlu:9009", None, "bridge"), ("mlu:9009", "host", "host")],
)
def test_in_the_vendors_image(
    tmp_path: Path,
    model: Model,
    calls: Callable[[], list[str]],
    remote: str | None,
    network: str | None,
    expected: str,
) -> None:
    """The container has no network but where another machine calibrates, and gets the cards' devices."""
    body = f"""echo "$@" >{tmp_path}/asked
while [ "$1" != magicmind:1.7 ]; do [ "$1" = --volume ] && job=${{2%:/job}}; shift; done; shift
cd "$job" && exec "$@"
"""
    docker = {"program": _script(tmp_path / "docker", body), "image": "magicmind:1.7", "network": network}
    sdk = _sdk(mode="docker", docker=docker, remote=remote)
    told = run_job(_job(tmp_path, model, remote=remote), sdk, [sys.executable], sdk.docker_network)
    asked = (tmp_path / "asked").read_text()
    assert f"--network {expected} " in asked and "--device=/dev/cambricon_dev0" in asked
    assert asked.strip().endswith(f"magicmind:1.7 {sys.executable} driver.py .")
    assert told["samples"] == 4 and ("active 0" in calls()) == (remote is None)


@contextmanager
def _heard() -> Iterator[None]:
    """The package's logger does not propagate once a command has set it up."""
    log = logging.getLogger("facekiln")
    kept, log.propagate = log.propagate, True
    try:
        yield
    finally:
        log.propagate = kept


def test_the_drivers_lines_come_while_it_runs(
    tmp_path: Path, model: Model, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waits for a file that is made once its first stage is told: a log at the end would hang."""
    folder = _job(tmp_path, model)
    (folder / DRIVER).write_text(
        "import os, time\n"
        "say = lambda text: print(text, flush=True)\n"
        "say('facekiln: stage 1/6: read the job'); say('SDK: hello')\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
        "for i in range(1, 4): say('facekiln: sample %d/3' % i)\n"
        "open('result.json', 'w').write('{}'); open('model.mm', 'w').write('x')\n"
    )

    class Go(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "stage 1/6" in record.getMessage():
                (folder / "go").touch()

    handler, log = Go(), logging.getLogger("facekiln")
    log.addHandler(handler)
    try:
        with caplog.at_level("INFO", logger="facekiln"), _heard():
            run_job(folder, _sdk(timeout_minutes=3), [sys.executable])
    finally:
        log.removeHandler(handler)
    assert "| SDK: hello" in caplog.text and "calibrating" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ('__version__ = "1.7.0"', "1.7.0"),
        ("def get_version(): return '1.0.2'", "1.0.2"),
        ("def version(): raise RuntimeError('no')", "unknown"),
        ("__version__ = None\nversion = 11534336", "11534336"),
    ],
)
def test_the_version_is_asked_in_every_known_way(line: str, version: str) -> None:
    module = types.ModuleType("runtime")
    exec(line, module.__dict__)
    assert driver.sdk_version(module) == version


def test_a_damaged_or_old_job(tmp_path: Path, model: Model, calls: Callable[[], list[str]]) -> None:
    folder = _job(tmp_path, model)
    whole = (folder / driver.JOB).read_text()
    for text, message in (
        ("{", "cannot be read"),
        (whole.replace('"version": 2', '"version": 9'), "version 9"),
        (whole.replace('"kind"', '"sort"'), "no `kind`"),
    ):
        (folder / driver.JOB).write_text(text)
        with pytest.raises(KilnError, match=message):
            run_job(folder, _sdk(), [sys.executable])
    (folder / driver.JOB).write_text(whole)
    (folder / "network.onnx").unlink()
    with pytest.raises(KilnError, match=r"no network\.onnx"):
        run_job(folder, _sdk(), [sys.executable])


def test_the_driver_imports_nothing_but_the_standard_library_and_numpy() -> None:
    text = Path(driver.__file__).read_text()
    imports = {
        line.split()[1].split(".")[0]
        for line in text.splitlines()
        if line.strip().startswith(("import ", "from "))
    }
    assert imports - set(sys.stdlib_module_names) == {"numpy", "magicmind", "pkg_resources"}
