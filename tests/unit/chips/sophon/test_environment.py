"""Which environment is wanted, what is wrong with one, and what its processes are told."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from facekiln.artifact import write_json
from facekiln.chips.sophon import environment as room
from facekiln.chips.sophon.environment import (
    environment_of,
    fault_of,
    lock_of,
    share_toolchains,
    toolchains,
    wanted,
)
from facekiln.errors import KilnError
from support.sophon_stand_in import config, environment, make_folder, settings


def test_every_requirement_is_pinned_with_one_hash() -> None:
    text = re.sub(r"^#.*\n", "", room.REQUIREMENTS.read_text(), flags=re.MULTILINE)
    rows = re.findall(r"^(\S+)==(\S+) \\\n    --hash=sha256:([0-9a-f]{64})$", text, re.MULTILINE)
    assert len(rows) * 2 == len(text.splitlines())
    pins = {name.lower(): (version, sha256) for name, version, sha256 in rows}
    # The wheel's page on pypi.org; later releases compile BM1684 wrongly.
    assert pins["tpu_mlir"] == ("1.26", "8563aaba5ccab2a2b5c5ff2358e41d38ebbfb8889abd20712d1e209804421ef3")
    # Imported but not declared; the last generations of setuptools have no pkg_resources.
    assert "psutil" in pins and int(pins["setuptools"][0].split(".")[0]) < 81
    assert pins["opencv-python-headless"][0] == "4.8.0.74"
    # The real one has gigabytes, and pip would bring CUDA with it.
    assert "torch" not in pins


def test_lock_follows_requirements_stand_in_and_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = {lock_of()}
    assert lock_of() in locks
    monkeypatch.setattr(room, "RECIPE", room.RECIPE + 1)
    locks.add(lock_of())
    requirements = tmp_path / "sophon.txt"
    requirements.write_bytes(room.REQUIREMENTS.read_bytes().replace(b"1.26", b"1.27"))
    monkeypatch.setattr(room, "REQUIREMENTS", requirements)
    locks.add(lock_of())
    shutil.copytree(room.STAND_IN, tmp_path / "stand_in")
    with (tmp_path / "stand_in" / "torch.py").open("a") as stream:
        stream.write("# more\n")
    monkeypatch.setattr(room, "STAND_IN", tmp_path / "stand_in")
    locks.add(lock_of())
    assert len(locks) == 4 and all(re.fullmatch("[0-9a-f]{12}", lock) for lock in locks)


def test_another_release_is_another_identity_and_another_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = wanted(settings(), config(tmp_path))
    requirements = tmp_path / "sophon.txt"
    requirements.write_bytes(room.REQUIREMENTS.read_bytes().replace(b"tpu_mlir==1.26", b"tpu_mlir==1.27"))
    monkeypatch.setattr(room, "REQUIREMENTS", requirements)
    new = wanted(settings(), config(tmp_path))
    assert old.identity() == {"tpu_mlir": "1.26", "lock": old.lock}
    assert new.identity()["tpu_mlir"] == "1.27"
    assert old.stamp == tmp_path / f"sophon-{old.lock}.ready" != new.stamp
    assert old.folder != new.folder


def test_the_variable_wins_over_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert toolchains(config(tmp_path / "a")) == tmp_path / "a"
    assert toolchains(config(Path())) == tmp_path
    monkeypatch.setenv("FACEKILN_TOOLCHAINS", "b")
    assert toolchains(config(tmp_path / "a")) == tmp_path / "b"


def test_rules_see_the_stamp_of_any_folder_at_one_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FACEKILN_TOOLCHAINS", raising=False)
    first, second = (wanted(settings(), config(tmp_path / name)) for name in ("a", "b"))
    assert first.stamp != second.stamp
    assert first.stamp_of_rules == second.stamp_of_rules
    write_json(second.stamp, {})
    share_toolchains(config(tmp_path / "a"))
    assert not Path(first.stamp_of_rules).exists()
    monkeypatch.delenv("FACEKILN_TOOLCHAINS")
    share_toolchains(config(tmp_path / "b"), main=False)
    assert not Path(second.stamp_of_rules).exists()
    share_toolchains(config(tmp_path / "b"))
    assert Path(second.stamp_of_rules).samefile(second.stamp)
    assert [path.name for path in Path(second.stamp_of_rules).parent.parent.iterdir()] == ["toolchains"]


def test_what_is_in_the_links_place_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEKILN_TOOLCHAINS", str(tmp_path / "a"))
    Path(".snakemake/facekiln/toolchains").mkdir(parents=True)
    with pytest.raises(KilnError, match=r"toolchains: cannot be written.*\n.*can go"):
        share_toolchains(config(Path()))


def test_nothing_of_the_users_own_reaches_a_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = {
        "PYTHONPATH": "/theirs",
        "PYTHONHOME": "/theirs",
        "PYTHONSTARTUP": "/theirs.py",
        "VIRTUAL_ENV": "/theirs",
        "CONDA_PREFIX": "/theirs",
        "LD_LIBRARY_PATH": "/theirs/lib",
        "LD_PRELOAD": "/theirs.so",
        # What the envsetup.sh of TPU-MLIR's sources sets; the wheel takes what it finds.
        "TPUC_ROOT": "/theirs/tpu-mlir",
        "PPL_PROJECT_ROOT": "/theirs/ppl",
        "TPUC_OPT_TIMEOUT": "1s",
        "LC_ALL": "zh_CN.GB2312",
    }
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    made = environment(tmp_path)
    variables = made.variables(tmp_path)
    assert not [name for name, value in foreign.items() if variables.get(name) == value]
    assert variables["PYTHONNOUSERSITE"] == "1" and variables["PYTHONPATH"] == str(room.STAND_IN)
    assert variables["PATH"].split(":")[0] == str(made.folder / "bin")
    assert variables["OMP_NUM_THREADS"] == "2" and variables["TMPDIR"] == str(tmp_path)


def test_stand_in_for_torch_has_what_is_derived_from_and_nothing_else() -> None:
    code = (
        "import torch\n"
        "class A(torch.autograd.Function): pass\n"
        "class B(torch.nn.Module): pass\n"
        "assert torch.Tensor and torch.__version__ == '0'\n"
        "try: torch.tensor\n"
        "except AttributeError: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(room.STAND_IN)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "refused\n", done.stderr


def test_faults_are_told(tmp_path: Path) -> None:
    made = wanted(settings(), config(tmp_path))
    assert fault_of(made) == "it is not made"
    make_folder(made.folder)
    assert fault_of(made) == "its making was interrupted"
    made.marker.write_text('{"lock": "another"}')
    assert fault_of(made) == "its making was interrupted"
    made.marker.write_text(f'{{"lock": "{made.lock}"}}')
    assert fault_of(made) is None
    library = made.tool_root / "lib" / "third_party" / "libm.so.6"
    library.touch()
    assert "libm.so.6" in str(fault_of(made))
    library.unlink()
    made.python.unlink()
    made.python.symlink_to("/nowhere/python3.10")
    assert "/nowhere/python3.10" in str(fault_of(made))


def test_a_missing_environment_is_answered_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="facekiln sophon environment --make") as told:
        environment_of(settings(), config(tmp_path))
    assert "it is not made" in str(told.value)


def test_an_environment_of_the_users_own(tmp_path: Path) -> None:
    made = environment(tmp_path)
    assert made.own and made.version == "1.26" and fault_of(made) is None
    assert made.stamp == tmp_path / "toolchains" / f"own-{made.lock}.ready"
    (made.packages / "onnx-1.14.1.dist-info").mkdir()
    again = wanted(settings(folder=str(made.folder)), config(tmp_path / "toolchains"))
    assert again.lock != made.lock
    with pytest.raises(KilnError, match=r"environment\.folder: is no Python 3\.10 environment"):
        wanted(settings(folder=str(tmp_path)), config(tmp_path))
