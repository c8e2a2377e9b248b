"""SOPHON's rules: what is shared, what is refused when it is asked for."""

from pathlib import Path

import pytest

from support.checkout import Checkout


@pytest.fixture(autouse=True)
def no_toolchains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment is made yet, whatever this machine has."""
    monkeypatch.setenv("FACEKILN_TOOLCHAINS", str(tmp_path / "no_toolchains"))


def test_one_transform_serves_all_chips_and_precisions(checkout: Checkout) -> None:
    jobs = checkout.planned(
        "results/sophon/bm1684/tiny_64_fp32_1b.bmodel",
        "results/sophon/bm1684x/tiny_64_fp16_1b.bmodel",
        "results/sophon/bm1684x/tiny_64_int8_1b.bmodel",
        "results/sophon/cv186x/tiny_64_int8_1b.bmodel",
        "results/sophon/bm1688/tiny_64_fp16_1b_2core.bmodel",
    )
    assert jobs["make_sophon_environment"] == 1
    assert jobs["transform_sophon"] == 1
    assert jobs["calibrate_sophon"] == 1
    assert jobs["compile_sophon"] == 5


def test_a_batch_has_a_transform_and_a_table_of_its_own(checkout: Checkout) -> None:
    jobs = checkout.planned(
        "results/sophon/bm1684x/tiny_64_int8_1b.bmodel", "results/sophon/bm1684x/tiny_64_int8_4b.bmodel"
    )
    assert jobs["transform_sophon"] == 2
    assert jobs["calibrate_sophon"] == 2


def test_float_files_need_no_table(checkout: Checkout) -> None:
    assert "calibrate_sophon" not in checkout.planned("results/sophon/bm1684x/tiny_64_fp16_1b.bmodel")


def test_a_twin_comes_behind_its_bmodel(checkout: Checkout) -> None:
    jobs = checkout.planned("results/sophon/bm1684x/tiny_64_int8_1b.twin/final.mlir")
    assert jobs["compile_sophon"] == jobs["twin_sophon"] == 1


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("bm1684/tiny_64_fp16_1b", "bm1684 has no fp16: its tensor units compute in float32 and int8 only"),
        ("bm1685/tiny_64_fp32_1b", "unknown SOPHON chip 'bm1685'; did you mean 'bm1688'?"),
        ("bm1684x/tiny_64_int4_1b", "unknown SOPHON precision 'int4'; did you mean 'int8'?"),
        ("bm1684x/tiny_64_fp16_8b", "no files are made for batches of 8"),
        ("bm1684x/tiny_64_fp16_1b_2core", "bm1684x has no 2 cores to compile for"),
        ("bm1684x/tinny_64_fp16_1b", "unknown model 'tinny'; did you mean 'tiny'?"),
        ("bm1684x/tiny_65_fp16_1b", "unknown size of model 'tiny' '65'"),
        ("bm1684x/tiny_64_fp16", "names in results/sophon/ are: "),
    ],
)
def test_what_cannot_be_is_refused_when_asked_for(checkout: Checkout, target: str, answer: str) -> None:
    done = checkout.snakemake("-n", "--", f"results/sophon/{target}.bmodel", check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert answer in told
    assert "MissingRuleException" not in told
    assert "Traceback (most recent call last)" not in told
