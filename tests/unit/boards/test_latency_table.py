"""Latency with accuracy beside it; who is dominated; what a reader must not overlook."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from facekiln.boards.latency_table import rows_of, to_csv, to_markdown
from facekiln.errors import KilnError
from facekiln.evaluation.stamp import Evaluation
from support.stamps import STAMP


def _record(name: str, ms: float, batch: int = 1, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "board": "se5",
        "virtual": False,
        "artifact": f"results/sophon/bm1684/{name}.bmodel",
        "artifact_sha256": name,
        "tool": "bmrt_test",
        "tool_version": None,
        "measures": "launch",
        "batch": batch,
        "verdict": "steady",
        "result": {
            "latency_ms": ms * batch,
            "interval_95_ms": {"low": ms * batch - 0.01, "high": ms * batch + 0.01, "method": "t"},
            "per_image_ms": ms,
            "images_per_second": 1000 / ms,
            "over_all_runs_ms": {"mean": ms * batch, "percentiles": {"99": ms * batch + 1}},
        },
    }
    return {**values, **more}


def _evaluation(name: str, easy: float, model: str = "retinaface") -> Evaluation:
    subject = {"artifact_sha256": name, "model": model, "artifact": name}
    return Evaluation(Path(f"{name}.json"), STAMP, subject, {"easy": easy, "hard": 0.5}, {})


# sophon-demo's published figures of RetinaFace on BM1684: ms per image, WIDER easy.
RECORDS = [_record("fp32_1b", 6.31), _record("int8_1b", 7.40), _record("int8_4b", 4.75, batch=4)]
EVALUATIONS = [_evaluation("fp32_1b", 0.891), _evaluation("int8_1b", 0.874), _evaluation("int8_4b", 0.874)]


def test_slower_and_worse_is_marked_per_image() -> None:
    rows = rows_of(RECORDS, EVALUATIONS)
    assert [row.dominated_by for row in rows] == [None, "results/sophon/bm1684/int8_4b.bmodel", None]
    text = to_markdown(rows)
    assert "DOMINATED by `results/sophon/bm1684/int8_4b.bmodel`" in text
    assert "±0.2%" in text
    assert STAMP.words() in text


def test_without_accuracy_nobody_is_dominated() -> None:
    assert all(row.dominated_by is None for row in rows_of(RECORDS))
    assert "DOMINATED" not in to_markdown(rows_of(RECORDS))


@pytest.mark.parametrize(
    "change",
    [{"board": "se7"}, {"verdict": "noisy: rejected"}, {"virtual": True}, {"measures": "other"}],
)
def test_only_like_is_compared(change: dict[str, Any]) -> None:
    records = [_record("fp32_1b", 6.31), _record("int8_1b", 7.40, **change)]
    assert all(row.dominated_by is None for row in rows_of(records, EVALUATIONS))


def test_another_model_dominates_nobody() -> None:
    evaluations = [_evaluation("fp32_1b", 0.9, model="slim"), _evaluation("int8_1b", 0.8)]
    assert all(row.dominated_by is None for row in rows_of(RECORDS[:2], evaluations))


def test_marks() -> None:
    rows = rows_of([_record("a", 5.0, virtual=True), _record("b", 5.0, verdict="noisy: rejected")])
    text = to_markdown(rows)
    assert "**VIRTUAL**" in text
    assert "a stand-in ran" in text
    assert "**noisy: rejected**" in text
    assert "do not quote" in text


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(rows_of(RECORDS, EVALUATIONS[:2])))))
    assert rows[1]["dominated_by"].endswith("fp32_1b.bmodel")
    assert float(rows[2]["per_image_ms"]) == 4.75
    assert float(rows[2]["p99_ms"]) == 20.0
    assert rows[2]["easy"] == ""
    assert rows[0]["easy"] == "0.891000"


def test_two_of_one_artifact_are_refused() -> None:
    with pytest.raises(KilnError, match="same artifact"):
        rows_of(RECORDS, [*EVALUATIONS, EVALUATIONS[0]])
    with pytest.raises(KilnError, match="two records"):
        rows_of([RECORDS[0], RECORDS[0]])
