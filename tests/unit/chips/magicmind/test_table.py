"""The two tables of the vendor's sample: what stands beside what, and what must not be overlooked."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facekiln.chips.magicmind.published import load_throughput
from facekiln.chips.magicmind.settings import load_settings
from facekiln.chips.magicmind.table import Tables, card_of, make_tables, subject_of
from facekiln.chips.magicmind.table_inputs import MagicmindTableTargets, options_of
from facekiln.chips.magicmind.table_text import precision_csv, speed_csv, to_html, to_markdown
from facekiln.config import Config, load_config
from facekiln.errors import KilnError
from facekiln.evaluation.published import load_published
from facekiln.evaluation.stamp import Evaluation, Stamp
from support.stamps import STAMP

QINT8 = "qint8_mixed_float16"


@pytest.fixture
def config(root: Path) -> Config:
    return load_config(root / "config")


def _record(board: str, name: str, batch: int, qps: float, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "board": board,
        "artifact": f"results/magicmind/{name}.mm",
        "virtual": False,
        "tool": "mm_run",
        "batch": batch,
        "verdict": "steady",
        "request": {"loops": 1000},
        "plan": {"repeats": 2},
        "result": {"images_per_second": qps, "throughput_by_tool": True},
        "repeats": [{"timing": {"images_per_second": qps + delta}} for delta in (-0.1, 0.1)],
    }
    return {**values, **more}


def _evaluation(artifact: str, easy: float, stamp: Stamp = STAMP) -> Evaluation:
    subject = {
        "artifact": artifact,
        "artifact_sha256": artifact,
        "backend": "magicmind-emulator",
        "emulated": artifact.endswith(".mm"),
        "precision": "float",
    }
    results = {"easy": easy, "medium": 0.8, "hard": 0.5}
    return Evaluation(Path(f"results/{artifact}/{stamp.dataset}.json"), stamp, subject, results, {})


def _tables(config: Config, root: Path, *records: dict[str, Any], evaluations: list[Any] = []) -> Tables:  # noqa: B006
    return make_tables(
        load_settings(root / "config"),
        config,
        records,
        {"s4": "mlu370_s4", "x4": "mlu370-x4", "se5": "bm1684", "v1": "mlu370_s4"},
        evaluations,
        load_throughput(root / "config"),
        load_published(root / "config"),
        root / "no results",
    )


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_published_tables_are_the_samples(config: Config, root: Path) -> None:
    """magicmind_cloud, retinaface_pytorch, README at 6f18c92, tables 5.1 and 5.2."""
    tables = _tables(config, root)
    speed = _rows(speed_csv(tables.speed))
    found = {(row["card"], row["mode"], row["batch"]): float(row["published"]) for row in speed}
    assert len(found) == len(speed) == 18
    assert found["mlu370-s4", "force_float32", "1"] == 22.3537
    assert found["mlu370-s4", QINT8, "8"] == 382.091
    assert found["mlu370-x4", "force_float16", "4"] == 117.414
    assert found["mlu370-x4", QINT8, "8"] == 615.642
    precision = {(row["model"], row["mode"]): row for row in _rows(precision_csv(tables.precision))}
    int8 = precision["retinaface_r50", QINT8]
    assert [int8[f"published {name}"] for name in ("easy", "medium", "hard")] == [
        "0.9485",
        "0.9298",
        "0.8071",
    ]
    # The release of 2023 measured another network.
    assert precision["retinaface", "force_float32"]["published hard"] == "0.7031"
    assert "no board of these cards is declared" in to_markdown(tables)


def test_a_published_figure_stands_beside_the_same_network_and_size_only(config: Config, root: Path) -> None:
    tables = _tables(
        config,
        root,
        _record("s4", f"retinaface_r50_1024_{QINT8}_4b", 4, 360.0),
        _record("s4", f"retinaface_r50_640_{QINT8}_4b", 4, 500.0),
        _record("x4", f"retinaface_640_{QINT8}_4b", 4, 900.0),
    )
    mine = {
        (row["model"], row["height"], row["card"]): row["published"]
        for row in _rows(speed_csv(tables.speed))
        if row["mm_run on s4"] or row["mm_run on x4"]
    }
    assert mine == {
        ("retinaface_r50", "672", "mlu370-s4"): "363.162",
        ("retinaface_r50", "640", "mlu370-s4"): "",
        ("retinaface", "640", "mlu370-x4"): "",
    }


def test_virtual_and_real_figures_have_columns_of_their_own(config: Config, root: Path) -> None:
    name = "retinaface_640_force_float16_1b"
    tables = _tables(
        config,
        root,
        _record("s4", name, 1, 60.0),
        _record("v1", name, 1, 9.0, virtual=True, verdict="noisy: rejected"),
    )
    assert list(tables.speed.columns) == ["mm_run on s4", "VIRTUAL mm_run on v1"]
    (row,) = [row for row in _rows(speed_csv(tables.speed)) if row["mm_run on s4"]]
    assert (row["mm_run on s4"], row["VIRTUAL mm_run on v1"]) == ("60.0000", "9.0000")
    assert float(row["mm_run on s4 low_95"]) < 60 < float(row["mm_run on s4 high_95"])
    for text in (to_markdown(tables), to_html(tables)):
        assert "VIRTUAL: a stand-in ran" in text and "noisy: rejected" in text


def test_what_was_measured_otherwise_is_refused(config: Config, root: Path) -> None:
    name = "retinaface_640_force_float16"
    one = _record("s4", f"{name}_1b", 1, 60.0)
    with pytest.raises(KilnError, match=r"measured otherwise(?s:.)*50 iterations"):
        _tables(config, root, one, _record("s4", f"{name}_4b", 4, 99.0, request={"loops": 50}))
    with pytest.raises(KilnError, match="two records of one artifact"):
        _tables(config, root, one, one)
    with pytest.raises(KilnError, match=r"none of the cards(?s:.)*se5: bm1684"):
        _tables(config, root, _record("se5", f"{name}_1b", 1, 60.0))
    with pytest.raises(KilnError, match="no MagicMind file"):
        subject_of("results/sophon/bm1684/retinaface_640_int8_1b.bmodel", config)
    with pytest.raises(KilnError, match="no table is declared"):
        make_tables(replace(load_settings(root / "config"), table=None), config, [], {}, [], [], [])


def test_accuracy_by_mode_with_its_protocol(config: Config, root: Path) -> None:
    files = [_evaluation("onnx/retinaface_640.sim.onnx", 0.91)]
    files += [_evaluation(f"magicmind/retinaface_640_{QINT8}_1b.mm", 0.909)]
    tables = _tables(config, root, evaluations=files)
    (row,) = [row for row in _rows(precision_csv(tables.precision)) if row["port subset easy"]]
    assert row["port subset easy drop"] == "0.100" and row["port subset emulated"] == "true"
    assert row["port subset protocol"] == STAMP.id() and row["published easy"] == ""
    text = to_markdown(tables)
    assert "**EMULATED**" in text and STAMP.id() in text and "0.10 / 0.00 / 0.00" in text
    other = _evaluation("magicmind/retinaface_640_force_float16_1b.mm", 0.91, replace(STAMP, nms_iou=0.5))
    with pytest.raises(KilnError, match="two protocols"):
        _tables(config, root, evaluations=[*files, other])
    with pytest.raises(KilnError, match="no MagicMind file"):
        _tables(config, root, evaluations=[_evaluation("nnie/retinaface_640.wk", 0.9)])
    again = _evaluation(f"magicmind/retinaface_640_{QINT8}_4b.mm", 0.909)
    with pytest.raises(KilnError, match="same subject"):
        _tables(config, root, evaluations=[*files, again])


def test_other_weights_than_the_published_are_told(config: Config, root: Path) -> None:
    one = _evaluation(f"magicmind/retinaface_r50_1024_{QINT8}_1b.mm", 0.1)
    assert "published: other weights" in to_markdown(_tables(config, root, evaluations=[one]))


def test_what_the_rule_asks_for(config: Config, root: Path, tmp_path: Path) -> None:
    (tmp_path / "boards.yaml").write_text("boards: {}\n")
    asked = MagicmindTableTargets(config, tmp_path).inputs(None)
    assert asked["records"] == [] and len(asked["evaluations"]) == 4
    assert options_of(asked)[0] == "--evaluations"
    text = "host: h, user: u, agent: true, host_key: 'ssh-ed25519 AAAA', work: /d"
    (tmp_path / "boards.yaml").write_text(
        f"boards:\n  a: {{{text}, chip: mlu370_s4}}\n  b: {{{text}, chip: bm1684}}\n"
    )
    asked = MagicmindTableTargets(config, tmp_path).inputs(None)
    assert len(asked["records"]) == 9
    assert f"results/bench/a/magicmind/retinaface_640_{QINT8}_8b.mm.json" in asked["records"]
    value = {**config.chips["magicmind"]}
    value["table"] = {**value["table"], "boards": ["b"]}
    changed = replace(config, chips={**config.chips, "magicmind": value})
    with pytest.raises(KilnError, match=r"none of the cards(?s:.)*bm1684"):
        MagicmindTableTargets(changed, tmp_path).inputs(None)
    settings = load_settings(root / "config")
    assert card_of("mlu370_s4", settings) == card_of("mlu370-s4", settings) == "mlu370-s4"
    assert card_of(None, settings) is None
