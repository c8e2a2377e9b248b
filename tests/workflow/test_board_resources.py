"""Jobs of one run on one board come one after the other, and boards do not wait for each other."""

from pathlib import Path

from support.checkout import copy_checkout

RULE = """
rule occupy_board:
    output:
        "results/occupied/{board}_{turn}",
    log:
        "logs/occupied/{board}_{turn}.log",
    resources:
        **one_job_per_board(),
    shell:
        "mkdir held_{wildcards.board} && sleep 0.4 && rmdir held_{wildcards.board} && touch {output}"
"""


def test_one_job_at_a_time_per_board(root: Path, tmp_path: Path) -> None:
    checkout = copy_checkout(root, tmp_path)
    checkout.edit_yaml(
        "config/boards.yaml", boards={name: {"host": "127.0.0.1", "user": "x"} for name in ("one", "two")}
    )
    rules = checkout.folder / "workflow" / "rules" / "unknown.smk"
    rules.write_text(RULE + rules.read_text())
    targets = [f"results/occupied/{board}_{turn}" for board in ("one", "two") for turn in range(3)]
    checkout.snakemake("--cores", "6", "--", *targets)  # mkdir fails where two jobs of a board meet


def test_wrong_board_entry_stops_before_any_job(root: Path, tmp_path: Path) -> None:
    checkout = copy_checkout(root, tmp_path)
    checkout.edit_yaml("config/boards.yaml", boards={"one": {"hots": "127.0.0.1"}})
    done = checkout.snakemake("-n", "--", "results/nnie/tiny_64.wk", check=False)
    assert done.returncode == 1
    assert "unknown key 'hots'; did you mean 'host'?" in done.stdout + done.stderr
