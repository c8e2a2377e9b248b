"""Fingerprints follow imports: a change reaches what uses it and nothing else."""

from pathlib import Path

import pytest

from facekiln import fingerprint as module
from facekiln.fingerprint import fingerprint, modules_behind


def test_imports_are_followed_and_plumbing_is_left_out() -> None:
    behind = modules_behind("facekiln.graph.simplify")
    assert "facekiln.graph.export" in behind
    assert not {"facekiln.errors", "facekiln.config"} & set(behind)


def test_unknown_module_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError):
        modules_behind("facekiln.no_such_room")
    with pytest.raises(ModuleNotFoundError):
        modules_behind("os")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in place of ours: a imports b (over two lines), c stands alone."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").write_text("")
    (tmp_path / "a.py").write_text("from facekiln.room import (\n    b,\n)\n")
    (tmp_path / "room" / "b.py").write_text("def f():\n    import facekiln.d\n")
    (tmp_path / "c.py").write_text("x = 1\n")
    (tmp_path / "d.py").write_text("y = 1\n")
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    _forget()
    yield tmp_path  # type: ignore[misc]
    _forget()


def _forget() -> None:
    module._imports_of.cache_clear()
    module.fingerprint.cache_clear()


@pytest.mark.parametrize(("changed", "expected"), [("room/b.py", True), ("d.py", True), ("c.py", False)])
def test_a_change_reaches_what_imports_it(package: Path, changed: str, expected: bool) -> None:
    before = fingerprint("facekiln.a")
    with (package / changed).open("a") as stream:
        stream.write("# edited\n")
    _forget()
    assert (fingerprint("facekiln.a") != before) is expected
