"""Parent and child on a stand-in of the vendor's modules: answers, limits, deaths, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.runtime import SophonRuntime
from facekiln.errors import KilnError

# Same calls as pyruntime_bm of tpu_mlir 1.26; what it does is written in the file that it loads.
PYRUNTIME = """
import os, sys, time
import numpy as np

LIBRARIES = ["", "libcmodel_1684.so", "libcmodel_1684x.so", "libcmodel_1688.so"]

class Tensor:
    def __init__(self, name, value, dtype="f32", qscale=1.0, qzero_point=0):
        self.name, self.data, self.dtype = name, value, dtype
        self.qscale, self.qzero_point = qscale, qzero_point

class Model:
    def __init__(self, path, device, library):
        self.does = open(path).read()
        # As libbmlib.so opens it, by its bare name.
        link = os.path.join(os.environ["LD_LIBRARY_PATH"], "libcmodel.so")
        self.library = os.path.basename(os.path.realpath(link))
        os.write(1, b"begin to cmodel init...\\nmult engine c_model init\\n")
        if self.does == "wrong chip":
            os.write(1, b"[BMRT][load_bmodel:1875] WRONG:Error: runtime arch[BM1684] is not the same\\n")
            os.abort()
        self.networks = ["a", "b"] if self.does == "two nets" else ["a"]

    def Net(self, name):
        return Net(self.does, self.library)

class Net:
    def __init__(self, does, library):
        self.does, self.library = does, library
        self.inputs = [Tensor("input", np.zeros((2, 3), np.float32))]
        codes = np.array([[0, 10], [-128, 127]], np.int8)
        half = np.array([[0x3F80], [0xC000]], np.uint16)
        self.outputs = [
            Tensor("double_Mul", np.zeros((2, 3), np.float32)),
            Tensor("codes_Conv", codes, "i8", 0.5, 10),
            Tensor("half_Cast", half, "bf16", 0.0),
        ]

    def forward_dynamic(self, shapes):
        print("[0] do_allreduce: 0.")
        if self.does == "hang":
            time.sleep(600)
        if self.does == "die":
            os.write(1, b"[BMRT] FATAL: device mem alloc failed\\n")
            os.abort()
        if self.does == "raise":
            raise RuntimeError("no such layer")
        if self.does == "where":
            self.outputs[0].data[:] = LIBRARIES.index(self.library)
        else:
            self.outputs[0].data[:] = 2 * self.inputs[0].data
        return [[2, 3], [2, 2], [2, 1]]
"""
PYMLIR = """
import os
import numpy as np

def set_mem_mode(mode):
    assert mode == "value_mem"

class module:
    def load(self, path):
        self.input_names, self.output_names = ["input"], ["out_Add"]
        self.values = {"input": np.zeros((1, 4), np.float32), "out_Add": np.zeros((1, 4), np.float32)}

    def get_tensor(self, name):
        return self.values[name]

    def set_tensor(self, name, value, shape):
        self.values[name] = value

    def invoke(self, express):
        # As the real one: weights are read at each run, by a bare name, from the working folder.
        weights = np.load("weights.npz")["w"]
        self.values["mid_Conv"] = self.values["input"] * weights
        self.values["out_Add"] = self.values["mid_Conv"] + 1

    def get_all_tensor(self):
        return self.values
"""
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment whose Python is this one and whose modules are the stand-ins."""
    made = Environment(tmp_path / "env", "0" * 12, "1.26", True, tmp_path / "ready")
    (made.tool_root / "python").mkdir(parents=True)
    (made.tool_root / "lib").mkdir()
    (made.tool_root / "python" / "pyruntime_bm.py").write_text(PYRUNTIME)
    (made.tool_root / "python" / "pymlir.py").write_text(PYMLIR)
    for name in ("libcmodel_1684.so", "libcmodel_1684x.so", "libcmodel_1688.so"):
        (made.tool_root / "lib" / name).touch()
    made.python.parent.mkdir()
    made.python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    made.python.chmod(0o755)
    return made


@pytest.fixture
def bmodel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes a file that does something, for a chip."""
    chips: dict[Path, str] = {}
    monkeypatch.setattr(
        "facekiln.chips.sophon.runtime_files.read_bmodel",
        lambda path: SimpleNamespace(chip=chips[Path(path)]),
    )

    def make(does: str, chip: str = "BM1684") -> Path:
        path = tmp_path / f"{does.replace(' ', '_')}_{chip}.bmodel"
        path.write_text(does)
        chips[path] = chip
        return path

    return make


def gone(pid: int) -> bool:
    """Whether a process has ended, waited for at most a minute; who collects its state is not our matter."""
    for _ in range(600):
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.1)
                continue
        return True
    return False


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary folders of this test alone, whatever else runs on the machine."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def litter() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("facekiln-sophon-*"))


def test_outputs_are_real_numbers_whatever_codes_the_file_has(
    bmodel: Callable[..., Path], environment: Environment
) -> None:
    before = litter()
    with SophonRuntime(bmodel("work"), environment) as runtime:
        assert [(item.name, item.shape, item.dtype) for item in runtime.inputs] == [
            ("input", (2, 3), "float32")
        ]
        assert runtime.batch == 2
        for factor in (1, 3):  # loaded once, asked often
            found = runtime.run({"input": X * factor})
            np.testing.assert_array_equal(found["double_Mul"], 2 * factor * X)
        np.testing.assert_array_equal(found["codes_Conv"], [[-5, 0], [-69, 58.5]])
        np.testing.assert_array_equal(found["half_Cast"], [[1], [-2]])
        assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
        # The link is gone while the child still runs, so that a kill of us leaves nothing.
        assert litter() <= before
        process = runtime._process
    assert process.poll() == -signal.SIGKILL
    with pytest.raises(KilnError, match="has ended"):
        runtime.run({"input": X})


def test_chips_side_by_side_have_their_own_library(
    bmodel: Callable[..., Path], environment: Environment
) -> None:
    # As the tool leaves it after a run for another chip.
    (environment.tool_root / "lib" / "libcmodel.so").symlink_to("libcmodel_1688.so")
    chips = ("BM1684", "BM1684X", "CV186X")
    runtimes = [SophonRuntime(bmodel("where", chip), environment) for chip in chips]
    for _ in range(2):
        found = [runtime.run({"input": X})["double_Mul"][0, 0] for runtime in runtimes]
        assert found == [1, 2, 3]
    for runtime in runtimes:
        runtime.close()


def test_a_run_that_hangs_is_ended_at_the_limit(
    bmodel: Callable[..., Path], environment: Environment
) -> None:
    runtime = SophonRuntime(bmodel("hang"), environment)
    runtime._minutes = 0.01  # to load it may take its time
    pid = runtime._process.pid
    with pytest.raises(KilnError, match=r"took too long for one run.*\n?.*0\.01 minutes"):
        runtime.run({"input": X})  # 10 minutes without the limit
    assert gone(pid)


def test_an_interrupt_ends_the_child(
    bmodel: Callable[..., Path], environment: Environment, request: pytest.FixtureRequest
) -> None:
    # A shell starts its background jobs with interruptions ignored; without this, nothing would end the run.
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runtime = SophonRuntime(bmodel("hang"), environment)
    pid = runtime._process.pid
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()  # in here, as it would end all tests
        runtime.run({"input": X})
    assert gone(pid)


def test_the_child_ends_with_a_parent_that_is_killed(
    bmodel: Callable[..., Path], environment: Environment
) -> None:
    """Even in the middle of a run, when it reads no requests."""
    program = (
        "import sys; from pathlib import Path; import numpy as np; from types import SimpleNamespace\n"
        "from facekiln.chips.sophon import runtime, runtime_files\n"
        "from facekiln.chips.sophon.environment import Environment\n"
        "runtime_files.read_bmodel = lambda path: SimpleNamespace(chip='BM1684')\n"
        "folder = Path(sys.argv[2])\n"
        "r = runtime.SophonRuntime(sys.argv[1], Environment(folder, '0', '1.26', True, folder))\n"
        "print(r._process.pid, flush=True)\n"
        "r.run({'input': np.zeros((2, 3), np.float32)})\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, bmodel("hang"), environment.folder], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)


@pytest.mark.parametrize(
    ("does", "what"),
    [
        ("wrong chip", r"died at loading it \(SIGABRT\)[\s\S]*runtime arch\[BM1684\]"),
        ("die", r"died at one run \(SIGABRT\)[\s\S]*device mem alloc failed"),
        ("raise", "RuntimeError: no such layer"),
        ("two nets", "it has 2 nets: a, b"),
    ],
)
def test_a_child_that_fails_is_told_with_its_last_words(
    bmodel: Callable[..., Path], environment: Environment, does: str, what: str
) -> None:
    with pytest.raises(KilnError, match=what) as failure, SophonRuntime(bmodel(does), environment) as runtime:
        runtime.run({"input": X})
    assert "cmodel init" not in str(failure.value)


def test_other_inputs_are_refused_and_harm_nothing(
    bmodel: Callable[..., Path], environment: Environment
) -> None:
    with SophonRuntime(bmodel("work"), environment) as runtime:
        for feeds in ({"input": X[:1]}, {"image": X}, {}):
            with pytest.raises(KilnError, match="other inputs"):
                runtime.run(feeds)
        assert runtime.run({"input": X})["double_Mul"].shape == (2, 3)


def test_a_dropped_runtime_leaves_no_child(bmodel: Callable[..., Path], environment: Environment) -> None:
    runtime = SophonRuntime(bmodel("work"), environment)
    pid = runtime._process.pid
    del runtime
    assert gone(pid)


def test_a_truncated_file_is_told_before_anything_runs(tmp_path: Path, environment: Environment) -> None:
    path = tmp_path / "x.bmodel"
    path.write_bytes((0xFF55AAEE).to_bytes(4, "little") + bytes(30))
    with pytest.raises(KilnError, match=r"x\.bmodel"):
        SophonRuntime(path, environment)


def test_an_unknown_chip_is_refused(bmodel: Callable[..., Path], environment: Environment) -> None:
    with pytest.raises(KilnError, match=r"without C model here.*BM1690"):
        SophonRuntime(bmodel("work", "BM1690"), environment)


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    folder = tmp_path / "x.twin"
    folder.mkdir()
    (folder / "final.mlir").write_text('module @x attributes {module.weight_file = "weights.npz"} {}')
    np.savez(folder / "weights.npz", w=np.float32(3))
    return folder


def test_a_twin_finds_its_weights_and_shows_every_tensor(twin: Path, environment: Environment) -> None:
    x = np.ones((1, 4), np.float32)
    with SophonRuntime(twin, environment, "twin") as runtime:
        np.testing.assert_array_equal(runtime.run({"input": x})["out_Add"], 4 * x)
        every = runtime.run({"input": 2 * x}, every=True)
    assert list(every) == ["input", "out_Add", "mid_Conv"]
    np.testing.assert_array_equal(every["mid_Conv"], 6 * x)


def test_a_twin_without_weights_is_told(twin: Path, environment: Environment) -> None:
    (twin / "weights.npz").unlink()
    with pytest.raises(KilnError, match="its weights are not beside it"):
        SophonRuntime(twin, environment, "twin")


def test_the_c_model_shows_outputs_only(bmodel: Callable[..., Path], environment: Environment) -> None:
    with (
        pytest.raises(KilnError, match="outputs only"),
        SophonRuntime(bmodel("work"), environment) as runtime,
    ):
        runtime.run({"input": X}, every=True)
