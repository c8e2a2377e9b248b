"""The table of SOPHON files: each cell from its own source, protocols and marks told, blanks else."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facekiln.artifact import sha256_of, write_json
from facekiln.chips.sophon.bmodel import read_bmodel
from facekiln.chips.sophon.demo_figures import load_demo
from facekiln.chips.sophon.demo_similarity import similarity_of
from facekiln.chips.sophon.demo_table import (
    TableSettings,
    artifacts_of,
    make_demo_table,
    sources_of,
    table_settings,
)
from facekiln.chips.sophon.demo_table_text import to_csv, to_html, to_markdown, write_demo_table
from facekiln.chips.sophon.settings import SophonSettings, load_settings
from facekiln.chips.sophon.table_inputs import SophonTableTargets
from facekiln.config import Config, load_config
from facekiln.errors import KilnError
from facekiln.evaluation.stamp import write_evaluation
from facekiln.predictions.names import BACKENDS, Backend
from facekiln.provenance import write_record
from support.bmodels import S, bmodel_bytes
from support.stamps import STAMP

_STAMP = replace(STAMP, task="voc_ap", evaluator="voc", dataset="procedural", images=200)
_TWIN = Backend("sophon", ".bmodel")


@pytest.fixture
def config(root: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setitem(BACKENDS, "sophon-twin", _TWIN)
    monkeypatch.setitem(BACKENDS, "sophon-cmodel", _TWIN)
    return load_config(root / "config")


@pytest.fixture
def settings(root: Path) -> SophonSettings:
    return load_settings(root / "config")


@pytest.fixture
def table(config: Config, settings: SophonSettings) -> TableSettings:
    found = table_settings(config, settings)
    assert found is not None
    return found


def _evaluate(results: Path, backend: str, artifact: str, ap: float, **changes: Any) -> None:
    subject = {
        "model": "retinaface",
        "artifact": artifact,
        "artifact_sha256": sha256_of(file) if (file := results / artifact).is_file() else "0" * 64,
        "precision": "int8" if "int8" in artifact else "float",
        "backend": backend,
        "backend_version": "1",
        "emulated": False,
    }
    path = results / "eval" / "voc" / backend / artifact / "procedural.json"
    write_evaluation(path, stamp=replace(_STAMP, **changes), subject=subject, results={"ap": ap})


def _report(cosine: float, passed: bool = True, parent: int = 10) -> dict[str, Any]:
    outputs = {
        "loc": {"cosine": 1.0, "max_rel": 1e-6},
        "conf": {"cosine": cosine, "max_rel": 0.03},
    }
    return {
        "outputs": {"sophon-cmodel": outputs},
        "faces": {"sophon-cmodel": {"parent": parent, "found": 0.95}},
        "passed": passed,
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results with three files: one all there, one whose parity failed, one of which nothing is known."""
    folder = tmp_path / "results"
    for chip, name, estimate in (
        ("bm1684x", "retinaface_640_fp32_1b", 1.25),
        ("bm1684x", "retinaface_640_int8_1b", 0.5),
        ("bm1688", "retinaface_640_int8_4b_2core", None),
    ):
        path = folder / "sophon" / chip / f"{name}.bmodel"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bmodel_bytes(chip=chip.upper(), nets=(("net", (S(context=9000),)),)))
        if estimate:
            told = {"milliseconds_per_picture": estimate, "release": "tpu_mlir 1.26"}
            checks = {
                "quantised_against_float": {"cosine": 0.9991, "euclidean": 0.9, "sqnr": "inf"},
                "simulated_against_quantised": {"cosine": 1.0, "euclidean": 1.0, "sqnr": 117.7},
            }
            write_record(path, verb="sophon compile", inputs=[], facts={"compiler_estimate": told, **checks})
    parity = folder / "parity" / "sophon" / "bm1684x"
    for name, report in (
        ("retinaface_640_fp32_1b.bmodel.json", _report(0.999999)),
        ("retinaface_640_int8_1b.bmodel.failed.json", _report(0.91, passed=False)),
    ):
        file = folder / "sophon" / "bm1684x" / f"{name.partition('.')[0]}.bmodel"
        write_json(parity / name, {**report, "child": {"sha256": sha256_of(file)}})
    _evaluate(folder, "onnxruntime", "onnx/retinaface_640.sim.onnx", 0.9)
    _evaluate(folder, "sophon-twin", "sophon/bm1684x/retinaface_640_int8_1b.bmodel", 0.895)
    return folder


@pytest.fixture
def make(
    results: Path, table: TableSettings, config: Config, settings: SophonSettings, root: Path
) -> Callable[..., Any]:
    def build(**changes: Any) -> Any:
        files = sorted((results / "sophon").glob("*/*.bmodel"))
        demos = load_demo(root / "config")
        chosen = replace(table, **{"parity": True, **changes})
        return make_demo_table(files, chosen, config, settings, demos, results)

    return build


def test_every_cell_comes_from_its_own_source(make: Callable[..., Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(make()))))
    fp32, int8, two = rows
    assert (fp32["chip"], fp32["precision"], fp32["batch"], fp32["cores"]) == ("bm1684x", "fp32", "1", "1")
    assert (fp32["cosine_to_float"], fp32["sqnr_to_float_db"], fp32["simulated_cosine"]) == (
        "0.999100",
        "inf",
        "1.000000",
    )
    assert (two["cosine_to_float"], two["simulated_cosine"]) == ("", "")
    assert (fp32["parity_cosine"], fp32["max_error_of_scale"], fp32["faces_found"]) == (
        "0.999999",
        "3.000e-02",
        "0.9500",
    )
    assert (fp32["parity"], int8["parity"], two["parity"]) == ("passed", "FAILED", "")
    assert (fp32["voc procedural ap"], int8["voc procedural ap"]) == ("", "0.895000")
    assert int8["voc procedural ap drop"] == "0.500"
    assert int8["voc procedural protocol"] == _STAMP.id()
    assert (fp32["device_bytes"], fp32["activation_bytes"]) == (str(4096 + 384 + 9000), "9000")
    assert fp32["compiler_estimate_ms_per_picture"] == "1.2500"
    assert two["compiler_estimate_ms_per_picture"] == ""
    assert two["cores"] == "2"


def test_without_parity_no_report_is_read(make: Callable[..., Any], results: Path) -> None:
    table = make(parity=False)
    assert "parity" not in to_markdown(table)
    assert not any("/parity/" in str(path) for path in sources_of(table, results))


def test_the_c_model_counts_where_several_readers_ran() -> None:
    report = _report(0.9)
    twin = {"loc": {"cosine": 1.0, "max_rel": 0.0}}
    report["outputs"] = {"a-twin": twin, **report["outputs"]}
    assert similarity_of(report).reader == "sophon-cmodel"


def test_published_figures_have_columns_and_words_of_their_own(make: Callable[..., Any]) -> None:
    # sophon-demo's README, sample/RetinaFace, 6.2 and 7.1.
    fp32, int8, two = csv.DictReader(io.StringIO(to_csv(make())))
    assert (fp32["published_wider_easy opencv.py"], fp32["published_wider_easy bmcv.py"]) == (
        "0.892",
        "0.890",
    )
    assert int8["published_bmrt_test_ms_per_picture"] == "1.22"
    assert (two["published_bmrt_test_ms_per_picture"], two["published_wider_easy opencv.py"]) == ("2.08", "")
    text = to_markdown(make())
    assert "not comparable" in text
    assert "easy faces only" in text


def test_marks_and_notes_of_the_page(make: Callable[..., Any]) -> None:
    for text in (to_markdown(make()), to_html(make())):
        assert "FAILED" in text
        assert "SIMULATED in" in text
        assert _STAMP.id() in text
        assert "a model's figure and no measurement" in text.replace("&#x27;", "'")
        assert "weights: synthetic" in text


def test_a_table_of_another_model_has_no_published_columns(
    results: Path, table: TableSettings, config: Config, settings: SophonSettings, root: Path
) -> None:
    path = results / "sophon" / "bm1684" / "ulfd_rfb_320_320_fp32_1b.bmodel"
    path.parent.mkdir()
    path.write_bytes(bmodel_bytes(chip="BM1684"))
    other = replace(table, model="ulfd_rfb_320", size="320", accuracy=())
    text = to_markdown(make_demo_table([path], other, config, settings, load_demo(root / "config"), results))
    assert "bmrt_test" not in text
    assert "| bm1684 | fp32 | 1 | 1 |" in text
    with pytest.raises(KilnError, match="another model or size"):
        make_demo_table([path], table, config, settings, [], results)


def test_two_protocols_never_share_a_column(results: Path, make: Callable[..., Any]) -> None:
    _evaluate(
        results, "sophon-twin", "sophon/bm1684x/retinaface_640_fp32_1b.bmodel", 0.9, score_threshold=0.1
    )
    with pytest.raises(KilnError, match="two protocols"):
        make()


def test_written_files_and_their_sources(make: Callable[..., Any], tmp_path: Path) -> None:
    table = make()
    written = write_demo_table(tmp_path / "sophon", table)
    assert [path.name for path in written] == ["sophon.csv", "sophon.md", "sophon.html"]
    before = [sha256_of(path) for path in written]
    assert [sha256_of(path) for path in write_demo_table(tmp_path / "sophon", make())] == before
    names = [path.name for path in sources_of(table, tmp_path / "results")]
    assert names.count("procedural.json") == 2
    assert sum(name.startswith("retinaface") for name in names) == 2


def test_landmark_reports_have_no_faces_and_others_are_refused() -> None:
    report = _report(0.99)
    assert similarity_of({**report, "faces": {}}).found is None
    assert similarity_of(_report(0.99, parent=0)).found is None
    for broken in ({}, {**report, "outputs": {}}, {**report, "outputs": {"x": {"loc": {}}}}):
        with pytest.raises(KilnError, match="no parity report"):
            similarity_of(broken)


def test_rows_are_what_the_chips_can_have(table: TableSettings, settings: SophonSettings) -> None:
    paths = [artifact.path for artifact in artifacts_of(table, settings)]
    assert "sophon/bm1684/retinaface_640_fp16_1b.bmodel" not in paths
    assert "sophon/bm1688/retinaface_640_int8_4b_2core.bmodel" in paths
    assert len(paths) == len(set(paths)) == 4 + 6 + 12 + 6


def test_inputs_of_the_rule(config: Config) -> None:
    inputs = SophonTableTargets(config).inputs(None)
    assert len(inputs["bmodels"]) == 28
    assert inputs["parity"] == []
    assert (
        "results/eval/voc/onnxruntime/onnx/retinaface_640.sim.onnx/procedural.json" in inputs["evaluations"]
    )
    twin = "results/eval/voc/sophon-twin/sophon/bm1684/retinaface_640_int8_1b.bmodel/procedural.json"
    assert twin in inputs["evaluations"]
    assert not any("_4b" in path or "bm1688" in path for path in inputs["evaluations"])


def test_a_backend_that_runs_no_sophon_files_is_refused(config: Config, settings: SophonSettings) -> None:
    accuracy = [{**config.chips["sophon"]["table"]["accuracy"][0], "backend": "ncnn"}]
    section = {**config.chips["sophon"]["table"], "accuracy": accuracy}
    changed = replace(config, chips={**config.chips, "sophon": {**config.chips["sophon"], "table": section}})
    with pytest.raises(KilnError, match="no backend that runs SOPHON files"):
        table_settings(changed, settings)
    bare = {key: value for key, value in config.chips["sophon"].items() if key != "table"}
    with pytest.raises(KilnError, match="no table is declared"):
        SophonTableTargets(replace(config, chips={**config.chips, "sophon": bare})).inputs(None)


def test_the_tables_memory_is_the_readers(results: Path, make: Callable[..., Any]) -> None:
    path = results / "sophon" / "bm1684x" / "retinaface_640_fp32_1b.bmodel"
    assert make().rows[0].memory == read_bmodel(path).memory


@pytest.mark.parametrize("what", ["record", "evaluation", "parity", "float evaluation"])
def test_figures_of_a_file_that_had_the_name_before_are_refused(
    results: Path, make: Callable[..., Any], what: str
) -> None:
    """By hand nothing else would notice: the table would tell the old file's figures of the new one."""
    path = results / "sophon" / "bm1684x" / "retinaface_640_int8_1b.bmodel"
    sidecar = path.with_name(f"{path.name}.kiln.json")
    if what == "float evaluation":
        path = results / "onnx" / "retinaface_640.sim.onnx"
        path.parent.mkdir()
        path.write_bytes(b"another")
    else:
        path.write_bytes(bmodel_bytes(chip="BM1684X", nets=(("net", (S(context=8000),)),)))
    if what in ("evaluation", "parity"):
        sidecar.unlink()
    if what == "parity":
        _evaluate(results, "sophon-twin", f"sophon/bm1684x/{path.name}", 0.9)
    with pytest.raises(KilnError, match=r"is of another .* than lies there now"):
        make()


def test_weights_are_the_checkpoints_not_the_configs(results: Path, make: Callable[..., Any]) -> None:
    """`snakemake --config weights=published` is not in config.yaml, which the table's command reads."""
    checkpoint = results / "checkpoints" / "retinaface.pth"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    write_record(checkpoint, verb="checkpoint fetch", inputs=[], settings={"weights": "published"})
    assert "weights: published" in to_markdown(make())
