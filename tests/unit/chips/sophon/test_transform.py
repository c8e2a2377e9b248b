"""What is told to the tool, and what is refused before and after it runs. The tool itself: integration."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from facekiln.chips.sophon import transform
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.settings import load_settings
from facekiln.config import Input, Model, load_config
from facekiln.errors import GateError, KilnError
from facekiln.provenance import read_record
from facekiln.quant.run import Arrays, Session
from facekiln.vision.image import write_image
from support.sophon import COMPARISON, fake_environment, small_network

MLIR = """module @s attributes {module.state = "TOP_F32", module.weight_file = "small_8_top_weight.npz"} {
  func.func @main(%arg0: tensor<1x3x8x8xf32>) -> (tensor<1x64x2xf32>, tensor<1x64x4xf32>) {
    %0 = "top.Input"(%arg0) {} : (tensor<1x3x8x8xf32>) -> tensor<1x3x8x8xf32> loc(#loc1)
    %1 = "top.Softmax"(%0) {} : (tensor<1x3x8x8xf32>) -> tensor<1x64x2xf32> loc(#loc2)
    %2 = "top.Concat"(%0) {} : (tensor<1x3x8x8xf32>) -> tensor<1x64x4xf32> loc(#loc3)
    return %1, %2 : tensor<1x64x2xf32>, tensor<1x64x4xf32> loc(#loc)
  }
}
#loc = loc(unknown)
#loc1 = loc("input")
#loc2 = loc("scores_Softmax")
#loc3 = loc("boxes_Reshape")
"""


@pytest.fixture
def model(root: Path) -> Model:
    declared = load_config(root / "config").model("ulfd_slim_320")
    return replace(declared, name="small", sizes={"8": (8, 8)})


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    folder = tmp_path / "calibration"
    pictures = []
    for number in range(2):
        path = folder / "images" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8))
        pictures.append({"path": f"images/{number}.png"})
    (folder / "calibration.json").write_text(json.dumps({"pictures": pictures, "set_sha256": "0"}))
    return folder


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_network(), path)
    return path


class Tool:
    """Stands in for model_transform: its files and its last lines; notes how it was called."""

    def __init__(self) -> None:
        self.arguments: list[str] = []
        self.ir_version = 0
        self.spoil: Callable[[Arrays], Arrays] = lambda outputs: outputs
        self.printed = COMPARISON.format(target="top.npz", reference="ref.npz", verdict="PASSED")

    def __call__(self, _: Environment, __: str, arguments: list[Any], **rest: Any) -> str:
        folder: Path = rest["folder"]
        self.arguments = arguments
        network = onnx.load(folder / "net.onnx")
        self.ir_version = network.ir_version
        with np.load(folder / "input.npz") as given:
            outputs = Session(network).run({"input": given["input"]})
        named = {"scores_Softmax": outputs["scores"], "boxes_Reshape": outputs["boxes"]}
        np.savez(folder / "top.npz", **self.spoil(named))  # type: ignore[arg-type]
        (folder / "top.mlir").write_text(MLIR)
        (folder / "small_8_top_weight.npz").write_bytes(b"weights")
        return self.printed


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Tool:
    made = Tool()
    monkeypatch.setattr(transform, "run_tool", made)
    return made


@pytest.fixture
def run(
    model: Model, calibration: Path, network_file: Path, tmp_path: Path, root: Path
) -> Callable[..., transform.Transformed]:
    def call(batch: int = 1, **changes: Any) -> transform.Transformed:
        given = {
            "onnx_file": network_file,
            "calibration": calibration,
            "model": model,
            "label": "8",
            "batch": batch,
            "settings": replace(load_settings(root / "config"), batches=(1, 2, 4)),
            "environment": fake_environment(tmp_path),
            "output": tmp_path / "out",
        }
        return transform.transform_file(**(given | changes))  # type: ignore[arg-type]

    return call


def test_four_files_and_a_record(run: Callable[..., Any], tool: Tool, tmp_path: Path) -> None:
    done = run()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "input.npz",
        "reference.npz",
        "top.mlir",
        "top.mlir.kiln.json",
        "weights.npz",
    ]
    assert 'weight_file = "weights.npz"' in (tmp_path / "out" / "top.mlir").read_text()
    assert (tmp_path / "out" / "weights.npz").read_bytes() == b"weights"
    with np.load(tmp_path / "out" / "reference.npz") as reference:
        assert sorted(reference) == ["boxes_Reshape", "scores_Softmax"]
    assert done.errors == {"scores": 0.0, "boxes": 0.0}
    record = read_record(tmp_path / "out" / "top.mlir")
    assert record is not None
    assert record.tools["tpu_mlir"] == "1.26"
    assert str(tmp_path) not in json.dumps(record.settings)


def test_size_and_preprocessing_are_always_told(run: Callable[..., Any], tool: Tool) -> None:
    run(batch=2)
    assert "--input_shapes=[[2,3,8,8]]" in tool.arguments
    assert "--test_input=input.npz" in tool.arguments
    assert "--mean=127,127,127" in tool.arguments
    assert "--scale=0.0078125,0.0078125,0.0078125" in tool.arguments


def test_a_batch_is_of_different_pictures(run: Callable[..., Any], tool: Tool, tmp_path: Path) -> None:
    run(batch=2)
    with np.load(tmp_path / "out" / "input.npz") as given:
        first, second = given["input"]
    assert not np.array_equal(first, second)


def test_too_few_pictures_for_a_batch(run: Callable[..., Any], tool: Tool, tmp_path: Path) -> None:
    with pytest.raises(KilnError, match=r"too few pictures to prove a batch of 4.*value: 2"):
        run(batch=4)
    assert not (tmp_path / "out").exists()


def test_newer_ir_is_lowered_in_the_copy_only(
    run: Callable[..., Any], tool: Tool, network_file: Path
) -> None:
    newer = small_network()
    newer.ir_version = 10
    onnx.save(newer, network_file)
    run()
    assert tool.ir_version == 8
    assert onnx.load(network_file).ir_version == 10


def test_weights_that_are_listed_as_inputs_are_none(
    run: Callable[..., Any], tool: Tool, network_file: Path
) -> None:
    """As torch up to 1.3 wrote its files, UltraFace's among them (IR 3)."""
    old = onnx.load(network_file)
    value = onnx.helper.make_tensor_value_info
    old.graph.input.extend(value(one.name, one.data_type, one.dims) for one in old.graph.initializer)
    onnx.save(old, network_file)
    assert run(batch=2).errors == {"scores": 0.0, "boxes": 0.0}


def test_a_file_of_another_size_is_refused(run: Callable[..., Any], tool: Tool, model: Model) -> None:
    with pytest.raises(KilnError, match=r"another input than the model declares"):
        run(model=replace(model, sizes={"8": (8, 16)}))
    with pytest.raises(KilnError, match=r"other outputs than the model declares"):
        run(model=replace(model, outputs=("scores", "boxes", "landms")))
    assert tool.arguments == []


def test_wrong_values_of_the_tool_are_refused(run: Callable[..., Any], tool: Tool, tmp_path: Path) -> None:
    tool.spoil = lambda outputs: outputs | {"boxes_Reshape": outputs["boxes_Reshape"] * 1.01}
    with pytest.raises(GateError, match=r"output boxes: the tool computes something else"):
        run()
    tool.spoil = lambda outputs: outputs | {"boxes_Reshape": outputs["boxes_Reshape"][:, :-1]}
    with pytest.raises(GateError, match=r"output boxes: the tool gives another shape"):
        run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("printed", "answer"),
    [
        ("it ran\n", "no comparison"),
        (COMPARISON.format(target="top.npz", reference="ref.npz", verdict="FAILED"), "comparison failed"),
    ],
)
def test_without_the_tools_own_check_nothing_is_written(
    run: Callable[..., Any], tool: Tool, tmp_path: Path, printed: str, answer: str
) -> None:
    tool.printed = printed
    with pytest.raises(KilnError, match=answer):
        run()
    assert not (tmp_path / "out").exists()


def test_the_declaration_is_given_in_full(root: Path) -> None:
    models = load_config(root / "config").models
    assert transform.preprocess_arguments(models["retinaface"].input) == [
        "--mean=104,117,123",
        "--scale=1,1,1",
        "--pixel_format=bgr",
        "--channel_format=nchw",
        "--keep_aspect_ratio",
        "--keep_ratio_mode=letterbox",
        "--pad_value=0",
        "--pad_type=normal",
    ]
    stretched = transform.preprocess_arguments(models["ulfd_slim_320"].input)
    assert "--pixel_format=rgb" in stretched
    assert not any("ratio" in argument or "pad" in argument for argument in stretched)
    # All digits: 1/255 cut short is another number.
    assert f"--scale={','.join([repr(1 / 255)] * 3)}" in transform.preprocess_arguments(models["pfpld"].input)


def test_a_colour_order_that_the_tool_has_no_name_for() -> None:
    with pytest.raises(KilnError, match="no colour order of tpu_mlir"):
        transform.preprocess_arguments(Input("input", "yuv", (0, 0, 0), (1, 1, 1)))


def test_a_copy_of_a_network_names_its_weights_beside_it(tmp_path: Path) -> None:
    network, target = tmp_path / "job/n.mlir", tmp_path / "kept/top.mlir"
    for path in (network, target):
        path.parent.mkdir()
    network.write_text(MLIR)
    with pytest.raises(KilnError, match=r"this text names no file of weights (?s:.*)small_8_top_weight.npz"):
        transform.copy_with_weights(network, target, "this text")
    network.with_name("small_8_top_weight.npz").write_bytes(b"weights")
    transform.copy_with_weights(network, target, "this text")
    assert target.read_text() == MLIR.replace("small_8_top_weight.npz", "weights.npz")
    assert target.with_name("weights.npz").read_bytes() == b"weights"
    network.write_text("module @s {}")
    with pytest.raises(KilnError, match="names no file of weights"):
        transform.copy_with_weights(network, target, "this text")


def test_staging_tells_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "top.mlir").write_text("")
    (tmp_path / "job").mkdir()
    with pytest.raises(KilnError, match=r"weights\.npz: does not exist"):
        transform.stage(tmp_path, tmp_path / "job")
