"""Fingerprints follow imports: a change reaches what uses it and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from facekiln import fingerprint as module
from facekiln.data.declared import KINDS
from facekiln.fingerprint import fingerprint, modules_behind
from facekiln.predictions.board_names import BOARD_CODE


def test_imports_are_followed_and_plumbing_is_left_out() -> None:
    behind = modules_behind("facekiln.graph.simplify")
    assert "facekiln.graph.export" in behind
    assert not {"facekiln.errors", "facekiln.config"} & set(behind)
    runtime = modules_behind("facekiln.chips.sophon.runtime")
    assert not [name for name in runtime if name.endswith((".pollers", ".tool", ".process"))]


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


@pytest.mark.parametrize("how", ['with_name("job.sh")', "with_name('job.sh')"])
def test_a_file_beside_a_module_is_part_of_it(package: Path, how: str) -> None:
    (package / "d.py").write_text(f"from pathlib import Path\nTEXT = Path(__file__).{how}\n")
    _forget()
    absent = fingerprint("facekiln.a")
    (package / "job.sh").write_text("echo 1\n")
    _forget()
    before, other = fingerprint("facekiln.a"), fingerprint("facekiln.c")
    assert before != absent
    (package / "job.sh").write_text("echo 2\n")
    _forget()
    assert fingerprint("facekiln.a") != before
    assert fingerprint("facekiln.c") == other


@pytest.mark.parametrize("rule", ["bench", "predict"])
@pytest.mark.parametrize("script", ["board.sh", "latency_child.py", "infer_child.py"])
def test_results_of_boards_depend_on_what_runs_there(
    rule: str, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(module._PACKAGE, tmp_path / "facekiln", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "_PACKAGE", tmp_path / "facekiln")
    of = BOARD_CODE if rule == "predict" else ("facekiln.boards.bench", "facekiln.boards.bench_board")
    _forget()
    before = fingerprint(*of)
    with (tmp_path / "facekiln" / "boards" / script).open("a") as stream:
        stream.write("# changed\n")
    _forget()
    changed = fingerprint(*of) != before
    _forget()
    assert changed is (
        script == "board.sh" or script == ("latency" if rule == "bench" else "infer") + "_child.py"
    )


# ---- modules that are imported by name


def test_a_module_in_quotes_is_behind(package: Path) -> None:
    """As tables of readers name them. In words, or asked for a fingerprint, a name is no dependency."""
    (package / "e.py").write_text(
        '"""Use `fingerprint("facekiln.a")`; see facekiln.c."""\nTABLE = {"x": ("facekiln.room.b", \'f\')}\n'
    )
    assert modules_behind("facekiln.e") == ["facekiln.d", "facekiln.e", "facekiln.room.b"]


def test_every_rule_that_opens_datasets_follows_their_readers(root: Path) -> None:
    """A repaired reader of annotations makes its predictions, audits, trainings and evaluations anew."""
    readers = {kind.module for kind in KINDS.values()}
    rules = {
        match[1]: re.findall(r'"(facekiln[\w.]+)"', match[2])
        for path in sorted((root / "workflow/rules").glob("*.smk"))
        for match in re.finditer(r"(?ms)^rule (\w+):.*?\bcode=fingerprint\(([^)]*)\)", path.read_text())
    }
    behind = {rule: set(modules_behind(*modules)) for rule, modules in rules.items()}
    opening = {rule for rule, modules in behind.items() if "facekiln.data.declared" in modules}
    assert {
        "predict_shard",
        "merge_predictions",
        "train_checkpoint",
        "check_dataset",
        "evaluate_wider",
        "evaluate_voc",
        "evaluate_landmarks",
    } <= opening
    assert all(readers <= behind[rule] for rule in opening)


@pytest.mark.parametrize(
    "opener",
    [
        "facekiln.predictions.run",
        "facekiln.training.train",
        "facekiln.evaluation.voc_record",
        "facekiln.evaluation.landmarks_record",
        "facekiln.data.audit",
    ],
)
def test_what_opens_datasets_has_the_readers_behind_it(opener: str) -> None:
    assert {"facekiln.data.wider_mat", "facekiln.data.voc", "facekiln.data.wflw"} <= set(
        modules_behind(opener)
    )


def test_the_wider_rule_knows_what_reads_detections_and_writes_records(root: Path) -> None:
    rule = (root / "workflow/rules/evaluation.smk").read_text().partition("rule evaluate_voc")[0]
    behind = modules_behind(*re.findall(r'"(facekiln\.[\w.]+)"', rule))
    for name in ("wider", "wider_record", "wider_truth", "read_any", "read_text", "detections", "stamp"):
        assert f"facekiln.evaluation.{name}" in behind


def test_no_module_is_imported_by_a_name_put_together(root: Path) -> None:
    """Such a name cannot be followed. The command line's own decide no byte."""
    found = [
        path.name
        for path in (root / "workflow/facekiln").rglob("*.py")
        if re.search(r"import_module\(\s*f[\"']", path.read_text())
    ]
    assert found == ["cli.py"]


def test_help_and_light_verbs_import_no_reader() -> None:
    code = (
        "import sys; from facekiln.cli import main\n"
        "for words in (['--help'], ['eval', '--help'], ['dataset', 'list']):\n"
        "    try: main(words)\n"
        "    except SystemExit: pass\n"
        "from facekiln.data.declared import KINDS\n"
        "print(sorted({kind.module for kind in KINDS.values()} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
