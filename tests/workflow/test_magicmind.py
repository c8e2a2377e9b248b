"""The rules of MagicMind: files of every source, and what the tables ask for."""

from pathlib import Path

import pytest

from support.checkout import Checkout, copy_checkout

TABLE = "results/tables/magicmind.md"
BOARD = {"host": "h", "user": "u", "agent": True, "host_key": "ssh-ed25519 AAAA", "work": "/d"}
QINT8 = "results/magicmind/tiny_64_qint8_mixed_float16_4b.mm"


@pytest.fixture(scope="module")
def own(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout whose tables are of the miniature model."""
    checkout = copy_checkout(root, tmp_path_factory.mktemp("magicmind"))
    group = {"evaluator": "voc", "dataset": "procedural"}
    checkout.edit_yaml(
        "config/chips/magicmind.yaml", table={"models": [{"model": "tiny", "size": 64}], "accuracy": [group]}
    )
    return checkout


def test_without_a_board_the_table_is_of_accuracy(own: Checkout) -> None:
    jobs = own.planned(TABLE)
    assert jobs["make_magicmind_table"] == 1 and jobs["build_magicmind"] == 3
    # Three modes and the float ONNX.
    assert jobs["evaluate_voc"] == 4 and "bench_artifact" not in jobs


def test_one_rule_makes_the_files_and_no_accuracy_table_is_named_so(own: Checkout) -> None:
    jobs = own.planned(TABLE, *(f"results/tables/magicmind{end}" for end in (".csv", "_ap.csv", ".html")))
    assert jobs["make_magicmind_table"] == 1 and "make_accuracy_table" not in jobs


def test_boards_of_the_cards_are_measured(root: Path, tmp_path: Path) -> None:
    checkout = copy_checkout(root, tmp_path)
    runtimes = {"mm_run": {"tool": "/usr/local/neuware/bin/mm_run"}}
    boards = {
        "s4": {**BOARD, "chip": "mlu370_s4", "runtimes": runtimes},
        "se5": {**BOARD, "chip": "bm1684", "runtimes": {}},
    }
    checkout.edit_yaml("config/boards.yaml", boards=boards)
    table = {"models": [{"model": "tiny", "size": 64}], "batches": [1, "1-8"], "accuracy": []}
    checkout.edit_yaml("config/chips/magicmind.yaml", table=table)
    jobs = checkout.planned(TABLE)
    # Three modes of two batches on the one board that has a card; one ONNX behind them.
    assert jobs["bench_artifact"] == 6 and jobs["build_magicmind"] == 6 and "evaluate_voc" not in jobs


@pytest.mark.parametrize(
    ("source", "rule"), [("onnx", None), ("torchscript", "trace_torchscript"), ("caffe", "convert_caffe")]
)
def test_every_source_brings_its_file(root: Path, tmp_path: Path, source: str, rule: str | None) -> None:
    checkout = copy_checkout(root, tmp_path)
    sdk = {"mode": "local", "python": ["python3"]}
    checkout.edit_yaml("config/chips/magicmind.yaml", source=source, sdk=sdk, keep_sensitive=2)
    jobs = checkout.planned(QINT8)
    assert jobs["build_magicmind"] == 1 and jobs["measure_sensitivity"] == 1
    made = {"trace_torchscript", "convert_caffe"} & set(jobs)
    assert made == ({rule} if rule else set())


def test_a_stored_throughput_is_a_gate(root: Path, tmp_path: Path) -> None:
    checkout = copy_checkout(root, tmp_path)
    gate = "results/gates/throughput/local/onnx/tiny_64.sim.onnx.json"
    done = checkout.snakemake("-n", "--", gate, check=False)
    assert done.returncode == 1 and "no throughput is stored" in done.stdout + done.stderr
    stored = checkout.folder / "config/throughput/local/onnx/tiny_64.sim.onnx.json"
    stored.parent.mkdir(parents=True)
    stored.write_text("{}")
    assert checkout.planned(gate)["check_throughput"] == 1
    assert checkout.planned("results/gates/summary.json")["check_throughput"] == 1
