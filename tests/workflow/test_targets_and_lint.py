"""What a user types wrong is answered in words; the rules stay clean."""

from pathlib import Path

import pytest

from support.checkout import Checkout


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("results/nnie/retinafac_640.wk", "unknown model 'retinafac'; did you mean 'retinaface'?"),
        ("results/nnie/retinaface_641.wk", "size 641 is not a multiple of 32"),
        ("results/nnie/retinaface_672.wk", "unknown size of model 'retinaface' '672'"),
        ("results/nnie/tiny_72.wk", "height 72 is not a multiple of 32"),
        ("results/nnei/retinaface_640.wk", "did you mean 'nnie'?"),
        ("results/nnie/retinaface.wk", "names in results/nnie/ are: "),
        ("results/checkpoints/retinafac.pth", "did you mean 'retinaface'?"),
        ("results/parity/nnie/retinafac_640.wk.json", "did you mean 'retinaface'?"),
    ],
)
def test_wrong_target_gets_a_suggestion(checkout: Checkout, target: str, answer: str) -> None:
    done = checkout.snakemake("-n", "--", target, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert answer in told
    assert "MissingRuleException" not in told
    assert "Traceback (most recent call last)" not in told


def test_unknown_config_key_stops_before_any_job(checkout: Checkout) -> None:
    done = checkout.snakemake(
        "-n", "--config", "weigths=published", "--", "results/nnie/tiny_64.wk", check=False
    )
    assert done.returncode == 1
    assert "unknown key 'weigths'; did you mean 'weights'?" in done.stdout + done.stderr


def test_weights_decide_which_rule_makes_the_checkpoint(checkout: Checkout) -> None:
    assert checkout.planned("results/checkpoints/tiny.pth") == {"train_checkpoint": 1}
    done = checkout.snakemake(
        "-n", "--config", "weights=published", "--", "results/checkpoints/retinaface.pth"
    )
    assert "fetch_checkpoint" in done.stdout


@pytest.mark.parametrize("name", ["latency.md", "magicmind.md", "magicmind_ap.csv", "sophon.md"])
def test_a_table_with_a_rule_of_its_own_is_asked_of_no_other(checkout: Checkout, name: str) -> None:
    done = checkout.snakemake("-n", "--", f"results/tables/{name}")
    assert f"make_{name.split('.')[0].removesuffix('_ap')}_table" in done.stdout
    assert "InputFunctionException" not in done.stdout + done.stderr


def test_lint_is_clean(checkout: Checkout) -> None:
    done = checkout.snakemake("--lint", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_rule_runs_python_or_a_shadow(root: Path) -> None:
    """`run:` and `shadow:` start a whole Snakemake per job (900 ms against 5)."""
    for path in (root / "workflow" / "rules").glob("*.smk"):
        words = path.read_text().split()
        assert "run:" not in words, path
        assert "shadow:" not in words, path
