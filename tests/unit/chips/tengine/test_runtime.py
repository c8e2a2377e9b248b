"""The child process that the real library runs in, here with a stand-in for the child."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from facekiln.chips.tengine import runtime
from facekiln.chips.tengine.convert import convert
from facekiln.chips.tengine.simulate import Simulation
from facekiln.chips.tengine.writer import tmfile_bytes
from facekiln.errors import KilnError
from support.tengine_networks import network, numbers, small_detector

SHAPE = (1, 3, 3, 4)
# Answers with its input doubled, and notes that it was started; see `runtime_child` for the form.
CHILD = """
import array, json, os, sys, time
open({log!r}, "a").write("started\\n")
out = os.fdopen(1, "wb")
def answer(told, data=b""):
    text = json.dumps(told).encode()
    out.write(len(text).to_bytes(4, "little") + text + data); out.flush()
answer({{"version": "9.9-test"}})
while line := sys.stdin.buffer.readline():
    asked = json.loads(line)
    values = array.array("f", sys.stdin.buffer.read(asked["bytes"]))
    {body}
    data = array.array("f", [2 * v for v in values]).tobytes()
    answer({{"outputs": [{{"shape": asked["shape"], "dtype": "<f4", "bytes": len(data)}}]}}, data)
open({log!r}, "a").write("ended\\n")
"""


@pytest.fixture
def tmfile(tmp_path: Path) -> Path:
    path = tmp_path / "x.tmfile"
    path.write_bytes(tmfile_bytes(convert(network([("Relu", ["x"], ["y"], {})], SHAPE)).graph))
    return path


def _child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str = "pass") -> Path:
    child, log = tmp_path / "child.py", tmp_path / "log"
    child.write_text(CHILD.format(log=str(log), body=body))
    monkeypatch.setenv(runtime.VARIABLE, __file__)
    monkeypatch.setattr(runtime.runtime_child, "__file__", str(child))
    return log


def test_one_child_answers_all_runs(tmfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _child(tmp_path, monkeypatch)
    with runtime.Session(tmfile) as session:
        assert session.version == "9.9-test"
        for seed in range(5):
            feed = numbers(*SHAPE, seed=seed)
            np.testing.assert_array_equal(session.run(feed)["y"], 2 * feed)
    assert log.read_text() == "started\n"
    with pytest.raises(KilnError, match="has ended"):
        session.run(numbers(*SHAPE))


def test_the_child_gets_codes_and_gives_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quantised input is given by its own scale and zero point, outputs come back by theirs."""
    from facekiln.chips.tengine.format import UINT8, Quant
    from facekiln.chips.tengine.quantise import quantise

    graph = convert(network([("LeakyRelu", ["x"], ["y"], {"alpha": 0.5})], SHAPE)).graph
    scales = {"x": Quant(0.1, 100), "y": Quant(0.5, 30)}
    path = tmp_path / "q.tmfile"
    path.write_bytes(tmfile_bytes(quantise(graph, scales, UINT8)))
    _child(tmp_path, monkeypatch)
    text = (tmp_path / "child.py").read_text()
    text = text.replace('array("f"', 'array("B"').replace("<f4", "|u1").replace("2 * v", "v // 2")
    (tmp_path / "child.py").write_text(text)
    with runtime.Session(path) as session:
        found = session.run(np.full(SHAPE, -2.0, np.float32))["y"]
    # -2 is code 80; 40 comes back, which is (40 - 30) * 0.5.
    np.testing.assert_allclose(found, 5.0)


def test_the_child_is_given_as_many_threads_as_were_asked_for(
    tmfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library counts cores by OpenMP, whose threads spin while they wait unless they are told not to."""
    body = 'sys.exit(os.environ["OMP_NUM_THREADS"] + os.environ["OMP_WAIT_POLICY"] + sys.argv[4])'
    _child(tmp_path, monkeypatch, body)
    with pytest.raises(KilnError, match="3passive3"), runtime.Session(tmfile, threads=3) as session:
        session.run(numbers(*SHAPE))


def test_a_session_that_is_forgotten_ends_its_child(
    tmfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _child(tmp_path, monkeypatch)
    session = runtime.Session(tmfile)
    process = session._process
    del session
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.kill(os.getpid(), 11)", r"crashed Tengine \(SIGSEGV"),
        ("sys.exit('Tengine: run_graph failed (-1)')", "refused it: Tengine: run_graph failed"),
        ("time.sleep(60)", "took too long"),
    ],
)
def test_a_run_that_fails_is_told_and_ends_the_child(
    tmfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    _child(tmp_path, monkeypatch, body)
    session = runtime.Session(tmfile)
    if "sleep" in body:
        session._timeout = 1.0  # to load it may take its time
    with pytest.raises(KilnError, match=message):
        session.run(numbers(*SHAPE))
    assert session._process.poll() is not None


def test_the_inputs_shape_stays(tmfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _child(tmp_path, monkeypatch)
    with runtime.Session(tmfile) as session:
        session.run(numbers(*SHAPE))
        with pytest.raises(KilnError, match="shape changed"):
            session.run(numbers(1, 3, 3, 5))


def test_a_stage_records_the_librarys_version(
    tmfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    from facekiln.config import load_config
    from facekiln.parity.executors import open_stage

    log, config = _child(tmp_path, monkeypatch), load_config(root / "config")
    model = config.model("ulfd_rfb_320")
    stage = open_stage(tmfile, model, config, reader="runtime")
    assert (stage.name, stage.version, stage.emulated) == ("tengine-runtime", "9.9-test", False)
    for seed in range(3):
        picture = np.random.default_rng(seed).integers(0, 255, (*SHAPE[2:], 3), np.uint8)
        assert stage.run(picture)["y"].shape == SHAPE
    assert log.read_text() == "started\n"
    assert open_stage(tmfile, model, config).version is None


def test_the_library_itself_run_after_run(tmp_path: Path) -> None:
    if not os.environ.get(runtime.VARIABLE):
        pytest.skip(f"no Tengine here: set {runtime.VARIABLE} to libtengine-lite.so")
    path = tmp_path / "small.tmfile"
    path.write_bytes(tmfile_bytes(convert(small_detector()).graph))
    simulation = Simulation(path, threads=1)
    own = os.sched_getaffinity(0)
    with runtime.Session(path) as session:
        assert session.version[0].isdigit()
        feeds = [numbers(1, 3, 8, 8, seed=seed) for seed in range(4)]
        # The library's buffers are reused: what an earlier run gave must not change with a later one.
        found = [session.run(feed) for feed in feeds]
        # It pins its threads, to none that this process was not given.
        assert os.sched_getaffinity(session._process.pid) <= own
    assert os.sched_getaffinity(0) == own
    for feed, one in zip(feeds, found, strict=True):
        for name, values in simulation.run(feed).items():
            np.testing.assert_allclose(one[name], values, atol=1e-5)
