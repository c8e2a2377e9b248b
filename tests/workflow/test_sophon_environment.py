"""The rule that makes SOPHON's tools: asked for by name, made once, told where it cannot be."""

from pathlib import Path

import pytest

from facekiln.chips.sophon.environment import lock_of
from support.checkout import Checkout

STAMP = f".snakemake/facekiln/toolchains/sophon-{lock_of()}.ready"


@pytest.fixture(autouse=True)
def nothing_made_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No toolchains of this machine's, and no Python 3.10 to make them with."""
    monkeypatch.delenv("FACEKILN_TOOLCHAINS", raising=False)
    monkeypatch.setenv("FACEKILN_PYTHON310", "/nowhere/python3.10")


def test_planned_until_its_stamp_is_there(checkout: Checkout, tmp_path: Path) -> None:
    arguments = ("--config", f"toolchains={tmp_path}", "--", STAMP)
    assert "make_sophon_environment" in checkout.snakemake("-n", *arguments).stdout
    (tmp_path / Path(STAMP).name).touch()
    assert "Nothing to be done" in checkout.snakemake("-n", *arguments).stdout


def test_a_failure_is_told_and_leaves_nothing(checkout: Checkout, tmp_path: Path) -> None:
    failed = checkout.snakemake("--config", f"toolchains={tmp_path}", "--", STAMP, check=False)
    assert failed.returncode == 1
    told = failed.stdout + failed.stderr
    assert "/nowhere/python3.10: $FACEKILN_PYTHON310: will not do: cannot be started" in told
    assert [path.name for path in tmp_path.iterdir()] == [f"sophon-{lock_of()}.lock"]
