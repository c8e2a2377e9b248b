"""Predictions on a board by the workflow: who makes them, and what a wrong name is told."""

from pathlib import Path

from support.checkout import copy_checkout

BOARDS = {
    "one": {"host": "127.0.0.1", "user": "x", "runtimes": {"onnxruntime": {"tool": "python3"}}},
    "two": {"host": "127.0.0.1", "user": "x", "chip": "rk3328", "runtimes": {"tm_benchmark": {"tool": "t"}}},
}
ONNX = "onnx/tiny_64.sim.onnx/procedural"


def test_predictions_on_a_board(root: Path, tmp_path: Path) -> None:
    checkout = copy_checkout(root, tmp_path)
    checkout.edit_yaml("config/boards.yaml", boards=BOARDS)
    planned = checkout.planned(f"results/eval/voc/board-one/{ONNX}.json")
    assert (planned["predict_on_board"], planned["evaluate_voc"]) == (1, 1)
    assert "predict_shard" not in planned and "merge_predictions" not in planned
    planned = checkout.planned(f"results/gates/pipelines/onnxruntime/board-one/{ONNX}.json")
    assert (planned["predict_on_board"], planned["merge_predictions"], planned["check_pipelines"]) == (
        1,
        1,
        1,
    )
    assert checkout.planned(f"results/predictions/board-one/{ONNX}.log")["predict_on_board"] == 1
    for target, said in (
        (f"board-onee/{ONNX}", "did you mean 'one'"),
        (f"board-two/{ONNX}", "board 'two' declares nothing that runs pictures through such files"),
        ("board-two/tengine/tiny_64.tmfile/procedural", "two.runtimes.tm_benchmark.infer"),
        ("board-one/onnx/tiny_64.sim.onnx/procedurl", "did you mean 'procedural'"),
    ):
        done = checkout.snakemake("-n", "--", f"results/predictions/{target}", check=False)
        assert done.returncode == 1 and said in done.stdout + done.stderr, done.stdout + done.stderr


def test_a_table_takes_a_boards_evaluation(root: Path, tmp_path: Path) -> None:
    checkout = copy_checkout(root, tmp_path)
    entries = [f"voc/onnxruntime/{ONNX}", f"voc/board-one/{ONNX}"]
    checkout.edit_yaml("config/boards.yaml", boards=BOARDS)
    checkout.edit_yaml("config/config.yaml", tables={"accuracy": {"evaluations": entries}})
    planned = checkout.planned("results/tables/accuracy.md")
    assert (planned["predict_on_board"], planned["evaluate_voc"]) == (1, 2)
