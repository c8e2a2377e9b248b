"""Tables: one protocol each, drops against the float parent, published figures that say how comparable."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from facekiln.cli import main
from facekiln.errors import KilnError
from facekiln.evaluation.published import Figure, ancestors, load_published, published_for
from facekiln.evaluation.stamp import Evaluation, read_evaluation, stamp_of, write_evaluation
from facekiln.evaluation.tables import by_protocol, float_parent, make_table, one_protocol
from facekiln.evaluation.tables_text import to_csv, to_html, to_markdown
from facekiln.provenance import write_record

WEIGHTS = "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220"
META: dict[str, Any] = {
    "model": "retinaface",
    "artifact": "onnx/retinaface_640.sim.onnx",
    "artifact_sha256": WEIGHTS,
    "precision": "float",
    "backend": "onnxruntime",
    "backend_version": "1.20",
    "emulated": False,
    "dataset": "wider_val",
    "dataset_digest": "0123456789abcdef",
    "images": 3226,
    "resize": "original",
    "interpolation": "linear",
    "size": None,
    "score_threshold": 0.02,
    "nms_iou": 0.4,
    "top_k": 5000,
    "keep": 750,
    "extent": 1,
    "nms_epsilon": 0.0,
}


def _write(path: Path, results: tuple[float, float, float] = (0.90, 0.88, 0.73), **changes: Any) -> Path:
    meta = {**META, **changes}
    stamp = stamp_of(meta, task="wider_ap", evaluator="port", evaluator_version="1", boxes="truncate")
    figures = dict(zip(("easy", "medium", "hard"), results, strict=True))
    write_evaluation(path, stamp=stamp, subject=meta, results=figures)
    return path


@pytest.fixture
def evaluations(tmp_path: Path) -> list[Evaluation]:
    """A float artifact and its two NNIE children, one of them better than its parent at one figure."""
    nnie = {"backend": "nnie-emulator", "emulated": True}
    paths = [
        _write(tmp_path / "float.json"),
        _write(
            tmp_path / "16.json",
            (0.901, 0.879, 0.729),
            artifact="nnie/retinaface_640_int16.wk",
            precision="int16",
            **nnie,
        ),
        _write(
            tmp_path / "8.json",
            (0.895, 0.87, 0.71),
            artifact="nnie/retinaface_640.wk",
            precision="int8",
            **nnie,
        ),
    ]
    return [read_evaluation(path) for path in paths]


def test_mixed_protocols_are_refused_with_fields_and_files(
    tmp_path: Path, evaluations: list[Evaluation]
) -> None:
    other = read_evaluation(_write(tmp_path / "other.json", score_threshold=0.5, resize="letterbox"))
    with pytest.raises(KilnError) as caught:
        one_protocol([*evaluations, other])
    message = str(caught.value)
    for word in (
        "float.json",
        "other.json",
        "score_threshold: 0.02 and 0.5",
        "resize: original and",
        "--split",
    ):
        assert word in message
    assert [len(group) for group in by_protocol([*evaluations, other])] == [3, 1]


def test_backends_and_precisions_share_a_table(evaluations: list[Evaluation]) -> None:
    assert one_protocol(evaluations).dataset == "wider_val"


def test_drops_are_points_against_the_float_parent(evaluations: list[Evaluation]) -> None:
    table = make_table(evaluations, [])
    assert table.rows[0].drop == {}
    assert table.rows[1].drop == pytest.approx({"easy": -0.1, "medium": 0.1, "hard": 0.1})
    assert table.rows[2].drop == pytest.approx({"easy": 0.5, "medium": 1.0, "hard": 2.0})
    assert table.rows[2].parent == "onnx/retinaface_640.sim.onnx (onnxruntime)"


def test_the_nearest_float_ancestor_is_the_parent(tmp_path: Path, evaluations: list[Evaluation]) -> None:
    caffe = read_evaluation(
        _write(tmp_path / "c.json", artifact="caffe/retinaface_640.caffemodel", backend="caffe-opencv")
    )
    assert float_parent(evaluations[2], [*evaluations, caffe]) == caffe


def test_another_models_float_figure_is_no_parent(tmp_path: Path, evaluations: list[Evaluation]) -> None:
    other = read_evaluation(
        _write(tmp_path / "o.json", artifact="onnx/rfb_1mb_640.sim.onnx", model="rfb_1mb")
    )
    assert float_parent(evaluations[2], [other, evaluations[2]]) is None


def test_a_rise_of_an_error_is_a_drop(tmp_path: Path) -> None:
    def landmarks(name: str, nme: float, **changes: Any) -> Evaluation:
        meta = {**META, **changes}
        stamp = stamp_of(meta, task="landmarks", evaluator="nme", evaluator_version="1")
        write_evaluation(
            tmp_path / name,
            stamp=stamp,
            subject=meta,
            results={"nme": nme, "failure_rate": 0.1, "auc": 0.5},
        )
        return read_evaluation(tmp_path / name)

    parent = landmarks("a.json", 0.050)
    child = landmarks("b.json", 0.056, artifact="nnie/retinaface_640.wk", precision="int8")
    assert make_table([parent, child], []).rows[1].drop["nme"] == pytest.approx(0.6)


def _figure(**protocol: Any) -> Figure:
    stated = {
        "evaluator": "port",
        "dataset": "wider_val",
        "images": 3226,
        "resize": "original",
        "size": None,
        "score_threshold": 0.02,
        "nms_iou": 0.4,
        "boxes": "truncate",
    }
    return Figure(
        "retinaface",
        WEIGHTS,
        "wider_ap",
        "float",
        {"easy": 0.907, "medium": 0.8816},
        {key: value for key, value in {**stated, **protocol}.items() if value != "unstated"},
        "as its script does",
        "https://example.org",
    )


def test_a_published_figure_says_what_differs(evaluations: list[Evaluation]) -> None:
    assert _figure().note(evaluations[0]) == "same protocol"
    assert "other threshold (0.8, here 0.02)" in _figure(score_threshold=0.8).note(evaluations[0])
    assert "other resize (short_side, here original)" in _figure(resize="short_side").note(evaluations[0])
    assert "other size (640x640, here own)" in _figure(size=[640, 640]).note(evaluations[0])
    assert "NMS not stated" in _figure(nms_iou="unstated").note(evaluations[0])
    assert "other precision (float, here int8)" in _figure().note(evaluations[2])


def test_the_nearest_protocol_of_the_same_weights_is_shown(evaluations: list[Evaluation]) -> None:
    far, near = _figure(resize="short_side", score_threshold=0.5), _figure(resize="short_side")
    assert published_for(evaluations[0], [far, near]) is near


def test_figures_of_other_weights_are_never_shown(tmp_path: Path) -> None:
    # A checkpoint trained here has the published model's name but not its weights.
    trained = read_evaluation(_write(tmp_path / "x.json", artifact_sha256="ab" * 32))
    assert published_for(trained, [_figure()], tmp_path) is None


def test_weights_are_followed_through_sidecars(tmp_path: Path, sha256: Any) -> None:
    checkpoint, graph = tmp_path / "c.pth", tmp_path / "g.onnx"
    checkpoint.write_bytes(b"weights")
    graph.write_bytes(b"graph")
    write_record(graph, verb="onnx export", inputs=[checkpoint])
    assert ancestors(graph, sha256(graph)) == {sha256(graph), sha256(checkpoint)}
    graph.write_bytes(b"another")  # a file that was replaced since tells nothing
    assert ancestors(graph, "ab" * 32) == {"ab" * 32}


def test_tables_tell_marks_drops_and_comparability(evaluations: list[Evaluation]) -> None:
    table = make_table(evaluations, [_figure(score_threshold=0.8)])
    markdown = to_markdown([table])
    assert markdown.count("**EMULATED**") == 2
    assert "OTHER PROTOCOL [1]" in markdown
    assert "[1] other threshold (0.8, here 0.02). Published: as its script does" in markdown
    assert table.stamp.id() in markdown
    assert "0.50 / 1.00 / 2.00" in markdown
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [row["mark"] for row in rows] == ["", "EMULATED", "EMULATED"]
    assert rows[0]["published_easy"] == "0.907"
    assert float(rows[0]["difference_easy_points"]) == pytest.approx(-0.7)
    assert rows[0]["published_hard"] == rows[0]["difference_hard_points"] == ""
    assert rows[0]["published_is"].startswith("other threshold")
    assert float(rows[2]["drop_hard_points"]) == pytest.approx(2.0)
    assert {row["protocol"] for row in rows} == {table.stamp.id()}
    page = to_html([table])
    assert "<b>EMULATED</b>" in page
    assert "<script" not in page
    assert "src=" not in page


def test_a_simulation_is_marked(tmp_path: Path) -> None:
    simulated = _write(
        tmp_path / "t.json",
        artifact="tengine/retinaface_640_int8.tmfile",
        precision="int8",
        backend="tengine-simulation",
    )
    markdown = to_markdown([make_table([read_evaluation(simulated)], [])])
    assert "tengine-simulation **SIMULATED**" in markdown
    assert "SIMULATED: a real file" in markdown


def test_the_command_writes_and_refuses(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = _write(tmp_path / "1.json"), _write(tmp_path / "2.json", size=[640, 640])
    arguments = ["table", "accuracy", "--config", str(root / "config"), "--results", str(tmp_path)]
    prefix = tmp_path / "tables" / "accuracy"
    assert main([*arguments, str(one), str(two), "--output", str(prefix)]) == 1
    assert "size: None and (640, 640)" in capsys.readouterr().err
    assert not prefix.with_name("accuracy.csv").exists()
    assert main([*arguments, str(one), "--output", str(prefix)]) == 0
    first = prefix.with_name("accuracy.md").read_bytes()
    assert prefix.with_name("accuracy.md.kiln.json").exists()
    assert main([*arguments, str(one), "--output", str(prefix)]) == 0
    assert prefix.with_name("accuracy.md").read_bytes() == first
    assert main([*arguments, str(one), str(two), "--split", "--output", str(prefix)]) == 0
    assert prefix.with_name("accuracy.md").read_text().count("Protocol `") == 2
    assert len(list(prefix.parent.glob("accuracy_*.csv"))) == 2


def test_the_published_rows_name_our_models_and_their_pinned_files(root: Path) -> None:
    from facekiln.config import load_config

    models = load_config(root / "config").models
    figures = load_published(root / "config")
    assert len(figures) > 15
    for figure in figures:
        published = models[figure.model].published
        assert published is not None
        assert figure.weights == published.sha256
    # The README of Pytorch_Retinaface: mobilenet0.25 at original size.
    assert any(figure.results == {"easy": 0.907, "medium": 0.8816, "hard": 0.7382} for figure in figures)


def test_a_virtual_board_is_told_in_the_record_and_in_every_row(tmp_path: Path) -> None:
    virtual = _write(tmp_path / "v.json", backend="board-v1", emulated=True, virtual=True)
    real = _write(tmp_path / "r.json", backend="board-se7", virtual=False)
    records = [read_evaluation(virtual), read_evaluation(real)]
    assert [record.subject.get("virtual") for record in records] == [True, None]
    table = make_table(records, [])
    assert [row.mark for row in table.rows] == ["VIRTUAL", ""]
    for text in (to_csv(table), to_markdown([table]), to_html([table])):
        assert "VIRTUAL" in text
    assert "no chip made this figure" in to_markdown([table])
