"""From an ONNX on disk to fp32, fp16 and int8 files, their stage and their gate, in the real ncnn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from facekiln.artifact import sha256_of
from facekiln.chips.ncnn import build_file
from facekiln.chips.ncnn.build_file import convert_file, store_fp16_file
from facekiln.chips.ncnn.inspect import compare_models, describe, dump, ids_of, render
from facekiln.chips.ncnn.model import read_model
from facekiln.chips.ncnn.quantise_file import Built, Source, quantise_file
from facekiln.chips.ncnn.settings import NcnnSettings, load_settings
from facekiln.cli import main
from facekiln.config import Config, Input, Model, load_config
from facekiln.errors import GateError, KilnError
from facekiln.parity.executors import open_stage
from facekiln.provenance import read_record
from facekiln.quant.ranges import measure_ranges, write_ranges
from facekiln.quant.run import pictures_in_memory
from facekiln.vision.image import read_image, write_image
from facekiln.vision.preprocess import fit

pytestmark = pytest.mark.usefixtures("wheels")


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return load_config(root / "config")


@pytest.fixture
def settings(root: Path) -> NcnnSettings:
    return load_settings(root / "config")


@pytest.fixture
def model() -> Model:
    return Model(
        name="small",
        title="",
        network="small",
        licence="",
        sizes={"16": (16, 16)},
        input=Input("input", "rgb", (127.0, 127.0, 127.0), (0.01, 0.01, 0.01), "stretch"),
        outputs=("scores", "boxes", "pose"),
    )


@pytest.fixture
def fp32(onnx_file: Path, model: Model, settings: NcnnSettings, tmp_path: Path) -> Path:
    path = tmp_path / "out" / "small_16.param"
    convert_file(onnx_file, model, "16", settings, path)
    return path


@pytest.fixture
def int8(
    fp32: Path, onnx_file: Path, network: onnx.ModelProto, model: Model, settings: NcnnSettings
) -> tuple[Path, Built]:
    pictures = _pictures()
    ranges = fp32.parent / "ranges.json"
    write_ranges(
        ranges, measure_ranges(network, pictures, percentile=99.99, artifact_sha256=sha256_of(onnx_file))
    )
    path = fp32.with_name("small_16_int8.param")
    return path, quantise_file(fp32, Source(onnx_file, ranges), pictures, model, "16", settings, path)


def _pictures() -> list[NDArray[np.float32]]:
    random = np.random.default_rng(1)
    return [random.standard_normal((1, 3, 16, 16)).astype(np.float32) for _ in range(3)]


def test_a_conversion_has_its_files_names_order_and_record(fp32: Path) -> None:
    assert {path.name for path in fp32.parent.iterdir()} == {
        f"small_16.{ending}{side}" for ending in ("param", "bin", "id.h") for side in ("", ".kiln.json")
    }
    made = read_model(fp32)
    assert (made.graph.inputs(), made.graph.outputs()) == (["input"], ["scores", "boxes", "pose"])
    record = read_record(fp32)
    assert record is not None
    assert {edit["rule"] for edit in record.edits} == {
        "NCNN-BLOB-NAME",
        "NCNN-OUTPUT-ORDER",
        "NCNN-RELU-CONCAT",
    }
    assert all(figures["max_rel"] < 1e-5 for figures in record.facts["proof_on_noise"].values())
    assert "small_16_OUTPUTS[3]" in fp32.with_suffix(".id.h").read_text()
    assert not record.emulated


def test_the_same_input_gives_the_same_bytes(
    fp32: Path, onnx_file: Path, model: Model, settings: NcnnSettings
) -> None:
    before = {path.name: path.read_bytes() for path in fp32.parent.iterdir()}
    convert_file(onnx_file, model, "16", settings, fp32)
    assert {path.name: path.read_bytes() for path in fp32.parent.iterdir()} == before


def test_another_model_is_refused_before_pnnx_runs(
    onnx_file: Path, model: Model, settings: NcnnSettings, tmp_path: Path
) -> None:
    out = tmp_path / "x.param"
    with pytest.raises(KilnError, match="another input"):
        convert_file(onnx_file, replace(model, sizes={"16": (16, 32)}), "16", settings, out)
    with pytest.raises(KilnError, match="other outputs"):
        convert_file(onnx_file, replace(model, outputs=("boxes",)), "16", settings, out)
    with pytest.raises(KilnError, match=r"no \.param"):
        convert_file(onnx_file, model, "16", settings, tmp_path / "x.bin")
    assert not out.exists()


def test_a_conversion_that_computes_something_else_is_not_written(
    onnx_file: Path, model: Model, settings: NcnnSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build_file.pnnx.convert

    def wrong(path: Path, timeout: float) -> object:
        made = real(path, timeout)
        for blob in made.weights["conv_2"] if "conv_2" in made.weights else next(iter(made.weights.values())):
            blob.values[:] = blob.values * np.float32(1.01)
        return made

    monkeypatch.setattr(build_file.pnnx, "convert", wrong)
    with pytest.raises(GateError, match="computes another"):
        convert_file(onnx_file, model, "16", settings, tmp_path / "out" / "x.param")
    assert not (tmp_path / "out").exists()


def test_fp16_is_half_as_large_and_near(fp32: Path) -> None:
    path = fp32.with_name("small_16_fp16.param")
    store_fp16_file(fp32, path)
    assert read_model(path).graph == read_model(fp32).graph
    # Other weights make another .param, or nothing that depends on it would be made anew.
    assert path.read_bytes() != fp32.read_bytes()
    sizes = [one.with_suffix(".bin").stat().st_size for one in (path, fp32)]
    assert 0.5 < sizes[0] / sizes[1] < 0.55
    with pytest.raises(KilnError, match="not stored as fp32"):
        store_fp16_file(path, fp32.with_name("again.param"))
    path.write_bytes(fp32.read_bytes())
    with pytest.raises(KilnError, match=r"not the \.bin that this \.param"):
        read_model(path)


def test_int8_is_proved_layer_by_layer_and_told(int8: tuple[Path, Built]) -> None:
    path, built = int8
    assert len(built.proofs) == built.quantised.layers == 6
    record = read_record(path)
    assert record is not None
    assert record.facts["float_layers"] == list(built.quantised.floating)
    assert record.facts["gate"]["faces"] is None
    assert min(record.facts["gate"]["cosine"].values()) > 0.99
    assert record.settings["method"] == "mse"


def test_the_table_that_was_written_makes_the_same_file(
    int8: tuple[Path, Built], fp32: Path, model: Model, settings: NcnnSettings
) -> None:
    path, _ = int8
    again = path.with_name("again_int8.param")
    table = Source(table=path.with_suffix(".table"))
    quantise_file(fp32, table, _pictures(), model, "16", settings, again)
    assert again.read_bytes() == path.read_bytes()
    assert again.with_suffix(".bin").read_bytes() == path.with_suffix(".bin").read_bytes()


def test_scales_that_are_not_this_networks_are_refused(
    int8: tuple[Path, Built], fp32: Path, onnx_file: Path, model: Model, settings: NcnnSettings
) -> None:
    other = fp32.with_name("other.onnx")
    other.write_bytes(onnx_file.read_bytes())
    graph = onnx.load(other)
    graph.doc_string = "another file"
    onnx.save(graph, other)
    out, pictures = fp32.with_name("o_int8.param"), _pictures()
    with pytest.raises(KilnError, match="measured on another ONNX"):
        quantise_file(fp32, Source(other, fp32.parent / "ranges.json"), pictures, model, "16", settings, out)
    with pytest.raises(KilnError, match="no scales"):
        quantise_file(fp32, Source(), pictures, model, "16", settings, out)
    with pytest.raises(KilnError, match="not stored as fp32"):
        table = Source(table=int8[0].with_suffix(".table"))
        quantise_file(int8[0], table, pictures, model, "16", settings, out)
    with pytest.raises(KilnError, match="no picture"):
        quantise_file(fp32, Source(onnx_file), [], model, "16", settings, out)
    # ncnn runs other sizes, too, and gives as many rows as ever: faces would be sought in wrong places.
    table = Source(table=int8[0].with_suffix(".table"))
    with pytest.raises(KilnError, match="another size"):
        larger = [np.zeros((1, 3, 32, 32), np.float32)]
        quantise_file(fp32, table, larger, model, "16", settings, out)
    assert not out.exists()


def test_a_stage_says_what_it_is(fp32: Path, int8: tuple[Path, Built], model: Model, config: Config) -> None:
    half = fp32.with_name("small_16_fp16.param")
    store_fp16_file(fp32, half)
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    stages = [open_stage(path, model, config) for path in (fp32, half, int8[0])]
    assert [(stage.name, stage.precision, stage.emulated) for stage in stages] == [
        ("ncnn", "float", False),
        ("ncnn", "float16", False),
        ("ncnn", "int8", False),
    ]
    for stage in stages:
        assert {name: value.shape for name, value in stage.run(picture).items()} == {
            "boxes": (1, 128, 4),
            "scores": (1, 128, 2),
            "pose": (1, 3),
        }
    traces = [stages[0].trace(picture), stages[2].trace(picture)]
    names = [name for name in traces[1] if name in traces[0]]
    assert len(names) > 8
    for name in names:  # integers on the way come back to their scale
        assert np.corrcoef(traces[0][name].ravel(), traces[1][name].ravel())[0, 1] > 0.98
        top = np.abs(traces[0][name]).max()
        assert np.abs(traces[0][name] - traces[1][name]).max() < 0.2 * top
    assert stages[0].name_in_parent("boxes") == "boxes"
    assert {stages[0].name_in_parent(blob) for blob in traces[0]} >= {"first_a", "deep_a", "wide_a"}
    with pytest.raises(KilnError, match="other inputs or outputs"):
        open_stage(fp32, replace(model, outputs=("boxes",)), config)


def test_what_is_told_of_files_and_of_two(fp32: Path, int8: tuple[Path, Built]) -> None:
    told = describe(int8[0])
    assert (told["int8_layers"], told["storage"], told["findings"]) == (6, "int8", [])
    assert any("hand on int8" in line for line in render(told))
    assert len(dump(read_model(fp32).graph)) == sum(describe(fp32)["layers"].values())
    assert compare_models(fp32, fp32) == []
    lines = compare_models(fp32, int8[0])
    assert any("parameter 8" in line for line in lines)
    assert any("fp32 | int8, largest difference" in line for line in lines)
    assert "small_16_BLOB_boxes" in ids_of(fp32)
    data = fp32.with_suffix(".bin")
    data.write_bytes(data.read_bytes()[:-4])
    assert "cut short" in describe(fp32)["findings"][0]
    assert any("WRONG" in line for line in render(describe(fp32)))


def test_commands_on_files(fp32: Path, int8: tuple[Path, Built], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ncnn", "inspect", str(fp32), str(int8[0]), "--layers"]) == 0
    assert "scores, boxes, pose" in capsys.readouterr().out
    assert main(["ncnn", "inspect", str(fp32), "--json"]) == 0
    assert main(["ncnn", "compare", str(fp32), str(fp32)]) == 0
    assert main(["ncnn", "compare", str(fp32), str(int8[0])]) == 1
    assert main(["ncnn", "ids", str(fp32)]) == 0
    assert "enum {" in capsys.readouterr().out
    half = fp32.with_name("half.param")
    assert main(["ncnn", "halve", str(fp32), "--output", str(half)]) == 0
    assert describe(half)["storage"] == "fp16"
    assert main(["ncnn", "inspect", str(fp32.with_name("none.param"))]) == 1


@pytest.mark.published
@pytest.mark.slow
def test_the_gate_catches_kl_on_few_pictures(
    mirror: Callable[[str], Path],
    data: Callable[[str], Path],
    config: Config,
    settings: NcnnSettings,
    tmp_path: Path,
) -> None:
    """Ranges of the published RFB-320 by KL on one empty picture: the file would find no face, and is not
    written."""
    model = config.model("ulfd_rfb_320")
    source = mirror("ulfd_rfb_320_upstream_simplified.onnx")
    network = onnx.load(source)
    fp32 = tmp_path / "ulfd_rfb_320_320.param"
    convert_file(source, model, "320", settings, fp32)
    size = model.size("320")
    photos = [data("images/det41.jpg"), data("images/test.jpg")]
    faces = [fit(read_image(path), size, "stretch")[0] for path in photos]
    pictures = pictures_in_memory(faces, model)
    empty = pictures_in_memory([np.full((*size, 3), 120, np.uint8)], model)
    ranges, out = tmp_path / "ranges.json", tmp_path / "ulfd_rfb_320_320_int8.param"
    kl = replace(settings, quantise=replace(settings.quantise, method="kl"))
    write_ranges(ranges, measure_ranges(network, list(empty), percentile=99.99))
    with pytest.raises(GateError, match="gone blind"):
        quantise_file(fp32, Source(source, ranges), pictures, model, "320", kl, out)
    assert not out.exists()
    write_ranges(ranges, measure_ranges(network, list(pictures), percentile=99.99))
    built = quantise_file(fp32, Source(source, ranges), pictures, model, "320", settings, out)
    assert built.sight["faces"]["parent"] >= 2
    assert built.sight["faces"]["found"] >= 0.8


def test_a_file_of_another_size_is_not_run_quietly(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ncnn takes a picture of any size and gives as many rows as ever."""

    class Small:
        def __init__(self, *_: object) -> None:
            pass

        def run(self, _: object) -> dict[str, NDArray[np.float32]]:
            return {"scores": np.zeros((1, 4420, 2), np.float32), "boxes": np.zeros((1, 4420, 4), np.float32)}

    monkeypatch.setattr("facekiln.parity.ncnn_stage.NcnnStage", Small)
    write_image(tmp_path / "x.png", np.zeros((48, 64, 3), np.uint8))
    words = ["ncnn", "run", "x.param", str(tmp_path / "x.png"), "--config", str(root / "config")]
    assert main([*words, "--model", "ulfd_rfb_320", "--size", "320"]) == 0
    assert main([*words, "--model", "ulfd_rfb_640", "--size", "640"]) == 1
    assert "does not fit the priors" in capsys.readouterr().err
