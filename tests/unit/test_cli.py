"""The command line: fast to start, helpful, and with exit statuses that mean something."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from facekiln.cli import NOUNS, build_parser, main
from facekiln.errors import GateError, KilnError

HEAVY = ("torch", "onnx", "onnxruntime", "onnxsim", "cv2", "MNN", "snakemake")


def _imported(*arguments: str) -> set[str]:
    """Return which heavy packages a command imports, in a process of its own."""
    code = (
        "import sys\nfrom facekiln.cli import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(' '.join(n for n in {HEAVY!r} if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split("\n")[-1].split())


@pytest.mark.parametrize("noun", [None, *NOUNS])
def test_help_starts_without_anything_heavy(noun: str | None) -> None:
    assert _imported(*([noun] if noun else []), "--help") == set()


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_has_help_with_an_example(noun: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([noun, "--help"])
    assert ended.value.code == 0
    assert "usage: facekiln" in capsys.readouterr().out


@pytest.mark.parametrize("noun", NOUNS)
def test_every_verb_has_an_example(noun: str) -> None:
    parser = build_parser(noun)
    nouns = next(action for action in parser._actions if action.dest == "noun")
    sub = nouns.choices[noun]  # type: ignore[index]
    verbs = next((action for action in sub._actions if action.dest == "verb"), None)
    for each in verbs.choices.values() if verbs else [sub]:  # type: ignore[attr-defined]
        assert each.epilog is not None and "example" in each.epilog, each.prog


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (KilnError("x", file="f"), 1),
        (GateError("y"), 3),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 1),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 1),
    ],
)
def test_exit_status(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], raised: BaseException, status: int
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("facekiln.story.story_of", fail)
    assert main(["explain", "anything"]) == status
    assert "Traceback" not in capfd.readouterr().err


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--log", str(tmp_path), "models"]) == 1
    assert f"facekiln: error: {tmp_path}: Is a directory" in capfd.readouterr().err


def test_sigterm_clears_away_what_was_begun(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom facekiln import story\n"
        "from facekiln.artifact import atomic_path\nfrom facekiln.cli import main\n"
        "def begin(path):\n"
        "    with atomic_path(Path(path)) as part:\n"
        "        part.write_text('half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "story.story_of = begin\n"
        f"sys.argv = ['facekiln', 'explain', {str(tmp_path / 'x')!r}]\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130 and "interrupted" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("link", [False, True])
def test_an_output_never_replaces_its_input(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], link: bool
) -> None:
    source = tmp_path / "x.onnx"
    source.write_bytes(b"weights")
    output = tmp_path / "y.onnx" if link else source
    if link:
        output.symlink_to(source)
    assert main(["onnx", "simplify", str(source), "--output", str(output)]) == 1
    assert "is the output and an input" in capfd.readouterr().err
    assert source.read_bytes() == b"weights"


def test_a_conversion_never_replaces_its_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "x.onnx"
    source.write_bytes(b"weights")
    names = ["--prototxt", str(source), "--caffemodel", str(tmp_path / "b"), "--heads", str(tmp_path / "c")]
    assert main(["caffe", "convert", str(source), "--model", "pfpld", "--size", "112", *names]) == 1
    assert "is the output and an input" in capfd.readouterr().err


def test_log_file_gets_the_error(tmp_path: Path) -> None:
    assert main(["--log", str(tmp_path / "a" / "x.log"), "explain", str(tmp_path / "none")]) == 1
    assert "does not exist" in (tmp_path / "a" / "x.log").read_text()
