"""The emulator: what each precision mode computes, its file, its runtime, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from facekiln.artifact import sha256_of
from facekiln.chips.magicmind.build_config import build_config
from facekiln.chips.magicmind.build_file import Calibration, Wanted, build_file, to_card
from facekiln.chips.magicmind.container import MAGIC, EmulatedModel, read_emulated, write_emulated
from facekiln.chips.magicmind.emulate import emulate, insert_normalisation, int8_weight, kept_in_float
from facekiln.chips.magicmind.names import batch_from, check_precision
from facekiln.chips.magicmind.runtime import MagicmindRuntime
from facekiln.chips.magicmind.settings import MagicmindSettings, load_settings, settings_from
from facekiln.cli import main
from facekiln.config import Config, Model, load_config
from facekiln.errors import KilnError
from facekiln.graph.rebatch import fixed_batch, free_batch
from facekiln.parity.magicmind_stage import MagicmindStage
from facekiln.provenance import read_record
from facekiln.quant.nodes import weights
from facekiln.quant.run import Session

SDK = Path(__file__).parents[3] / "support/fake_sdk"


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    """The repository's own config."""
    return load_config(root / "config")


def network(seed: int = 3) -> onnx.ModelProto:
    """Two convolutions, one of them depthwise, and a reshape that has the batch in front."""
    rng = np.random.default_rng(seed)
    stored = {
        "w1": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "b1": rng.standard_normal(4).astype(np.float32),
        # Channels of very different size: one scale for all loses the small ones.
        "w2": (rng.standard_normal((4, 1, 3, 3)) * np.array([100, 1, 0.01, 1]).reshape(4, 1, 1, 1)).astype(
            np.float32
        ),
        "to": np.array([1, -1, 4], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv2", group=4),
        helper.make_node("Transpose", ["c2"], ["t"], name="move", perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "to"], ["out"], name="flat"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 36, 4])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def feed(seed: int = 0, batch: int = 1) -> np.ndarray:
    """A normalised input."""
    return np.random.default_rng(seed).standard_normal((batch, 3, 8, 8)).astype(np.float32)


def _told(**changes: object) -> dict[str, object]:
    return {
        "name": "n",
        "precision": "force_float32",
        "batch": [1, 1],
        "size": [8, 8],
        "input": "float_nchw",
        "outputs": ["out"],
        "build_config": {},
        "mean": [0.0] * 3,
        "scale": [1.0] * 3,
        **changes,
    }


def computed(model: onnx.ModelProto, values: np.ndarray, **told: object) -> np.ndarray:
    """Run an emulated network."""
    return MagicmindRuntime(EmulatedModel(_told(**told), model.SerializeToString())).run(values)["out"]


def test_float32_is_the_onnx_itself() -> None:
    expected = Session(network()).run({"input": feed()})["out"]
    np.testing.assert_array_equal(computed(emulate(network(), "force_float32"), feed()), expected)


def test_float16_rounds_every_result() -> None:
    found = computed(emulate(network(), "force_float16"), feed())
    np.testing.assert_array_equal(found, found.astype(np.float16).astype(np.float32))
    exact = Session(network()).run({"input": feed()})["out"]
    assert 0 < np.abs(found - exact).max() < 2e-3 * np.abs(exact).max()
    # By hand: weights and each result in float16, sums in float32.
    halved = network()
    for tensor in halved.graph.initializer:
        if tensor.name in ("w1", "w2"):
            value = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    first = Session(_until(halved, "c1")).run({"input": feed()})["c1"].astype(np.float16).astype(np.float32)
    second = Session(_from(halved, np.maximum(first, 0))).run({"r1": np.maximum(first, 0)})["out"]
    np.testing.assert_array_equal(found, second.astype(np.float16).astype(np.float32))


def _until(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.output[:]
    cut.graph.output.append(onnx.ValueInfoProto(name=name))
    return cut


def _from(model: onnx.ModelProto, value: np.ndarray) -> onnx.ModelProto:
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    nodes = [node for node in cut.graph.node if node.name in ("conv2", "move", "flat")]
    del cut.graph.node[:], cut.graph.input[:]
    cut.graph.node.extend(nodes)
    cut.graph.input.append(helper.make_tensor_value_info("r1", TensorProto.FLOAT, list(value.shape)))
    return cut


def test_int8_inputs_have_the_scale_of_their_threshold() -> None:
    values = feed()
    top = float(np.abs(values).max())
    made = emulate(
        network(), "qint8_mixed_float16", thresholds={"input": top, "r1": 1e9}, keep_float=["conv2"]
    )
    step = np.float32(top / 127)
    rounded = (np.clip(np.rint(values / step), -127, 127) * step).astype(np.float32)
    by_hand = network()
    (one,) = [weight for weight in weights(by_hand) if weight.node == "conv1"]
    for tensor in by_hand.graph.initializer:
        if tensor.name == "w1":
            tensor.CopyFrom(numpy_helper.from_array(int8_weight(one, per_axis=True), "w1"))
    first = Session(_until(by_hand, "c1")).run({"input": rounded})["c1"].astype(np.float16)
    traced = MagicmindRuntime(EmulatedModel(_told(), made.SerializeToString()), intermediates=True).run(
        values
    )
    np.testing.assert_allclose(traced["c1"], first.astype(np.float32), rtol=1e-3, atol=1e-3)
    assert len(np.unique(traced["input_int8"])) <= 255


def test_weights_of_depthwise_convolutions_by_setting() -> None:
    (one,) = [weight for weight in weights(network()) if weight.node == "conv2"]
    per_axis, per_tensor = int8_weight(one, per_axis=True), int8_weight(one, per_axis=False)
    assert np.abs(per_axis - one.values)[2].max() < 1e-3 * np.abs(one.values[2]).max() * 5
    assert not per_tensor[2].any(), (
        "the channel of hundredths is below half a step of the channel of hundreds"
    )
    tops = {"input": 4.0, "r1": 20.0}
    a, b = (
        computed(emulate(network(), "qint8_mixed_float16", thresholds=tops, depthwise_per_axis=axis), feed())
        for axis in (True, False)
    )
    assert a[..., 2].any() and not b[..., 2].any()


def test_the_plan_and_what_stays_in_float() -> None:
    assert kept_in_float(network(), ["stem"]) == {"conv1", "conv2"}
    assert kept_in_float(network(), ["heads"]) == {"conv2"}
    with pytest.raises(KilnError, match=r"conv3(?s:.)*conv"):
        kept_in_float(network(), ["conv3"])
    exact = Session(network()).run({"input": feed()})["out"]
    every = dict.fromkeys(("conv1", "relu1", "conv2", "move", "flat"), "FLOAT32")
    np.testing.assert_array_equal(
        computed(emulate(network(), "qint8_mixed_float16", precisions=every), feed()), exact
    )
    with pytest.raises(KilnError, match=r"relu(?s:.)*relu1"):
        emulate(network(), "force_float16", precisions={"relu": "FLOAT32"})
    with pytest.raises(KilnError, match="r1: has no threshold"):
        emulate(network(), "qint8_mixed_float16", thresholds={"input": 1.0})


def test_the_card_is_fed_pictures(config: Config) -> None:
    declared = replace(config.model("ulfd_rfb_320").input, name="input")
    pictures = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    mean, scale = (np.array(value, np.float32) for value in (declared.mean, declared.scale))
    tensor = ((pictures.astype(np.float32) - mean) * scale).transpose(0, 3, 1, 2)
    made = insert_normalisation(emulate(network(), "force_float32"), declared, (8, 8))
    found = computed(made, pictures, input="uint8_nhwc")
    np.testing.assert_allclose(found, Session(network()).run({"input": tensor})["out"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(to_card(tensor, declared.mean, declared.scale), pictures)
    with pytest.raises(KilnError, match="another input than the model declares"):
        insert_normalisation(network(), replace(declared, name="data"), (8, 8))


def test_mutable_batches_equal_single_pictures() -> None:
    made = emulate(network(), "force_float16").SerializeToString()
    runtime = MagicmindRuntime(EmulatedModel(_told(batch=[1, 4]), made))
    batch = feed(batch=3)
    whole = runtime.run(batch)["out"]
    assert whole.shape == (3, 36, 4)
    np.testing.assert_array_equal(whole, np.concatenate([runtime.run(one[None])["out"] for one in batch]))
    for wrong, message in (
        (feed(batch=5), r"\[5, 3, 8, 8\].*\[1 to 4, 3, 8, 8\]"),
        (feed().astype(np.float64), "float64"),
        (feed()[:, :, :4], r"3, 4, 8\]"),
    ):
        with pytest.raises(KilnError, match=message):
            runtime.run(wrong)


def test_another_batch_computes_the_same() -> None:
    batch = feed(batch=4)
    expected = np.concatenate([Session(network()).run({"input": one[None]})["out"] for one in batch])
    fixed, edits = fixed_batch(network(), 4, "TEST-BATCH")
    assert {edit.rule for edit in edits} == {"TEST-BATCH"}
    for wider in (fixed, free_batch(network())):
        found = Session(wider).run({"input": batch})["out"]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    odd = network()
    odd.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.array([36, 4], np.int64), "to"))
    with pytest.raises(KilnError, match="does not begin with the batch"):
        free_batch(odd)
    with pytest.raises(KilnError, match="does not follow a batch of 2"):
        fixed_batch(odd, 2, "TEST-BATCH")
    with pytest.raises(KilnError, match="is not of batch 1"):
        free_batch(fixed)
    with pytest.raises(KilnError, match="is not for one picture"):
        fixed_batch(fixed, 2, "TEST-BATCH")


def test_the_file_comes_back(tmp_path: Path) -> None:
    model = EmulatedModel(_told(), b"onnx bytes")
    for name in ("a.mm", "b.mm"):
        write_emulated(tmp_path / name, model)
    assert sha256_of(tmp_path / "a.mm") == sha256_of(tmp_path / "b.mm")
    assert read_emulated(tmp_path / "a.mm") == model
    assert (tmp_path / "a.mm").read_bytes().startswith(b"EMULATED")


@given(st.data())
@hypothesis_settings(max_examples=200, deadline=None)
def test_damaged_files_are_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("mm") / "a.mm"
    write_emulated(path, EmulatedModel(_told(), network().SerializeToString()))
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(MAGIC) + 200))
        whole[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(whole))
    try:
        found = MagicmindRuntime(path)
        found.run(feed())
    except KilnError:
        pass


@pytest.mark.parametrize(
    ("text", "least", "most"), [("1", 1, 1), ("4", 4, 4), ("1-8", 1, 8), ("2-999", 2, 999)]
)
def test_batches(text: str, least: int, most: int) -> None:
    batch = batch_from(text)
    assert (batch.least, batch.most, str(batch), batch.mutable) == (least, most, text, least != most)


@pytest.mark.parametrize("text", ["0", "8-1", "4-4", "1-", "x", "1000", "-1", ""])
def test_batches_that_make_no_sense(text: str) -> None:
    with pytest.raises(KilnError, match=r"no batch(?s:.)*4b\.mm"):
        batch_from(text)


def test_names_that_make_no_sense() -> None:
    with pytest.raises(KilnError, match=r"force_float61(?s:.)*force_float16"):
        check_precision("force_float61")
    check_precision("force_float16")


def test_the_build_configuration_is_that_of_the_samples(config: Config) -> None:
    """Keys and forms: magicmind_cloud's build_config of its detection samples."""
    made = build_config(
        settings_from({}),
        config.model("retinaface_r50").input,
        (672, 1024),
        "qint8_mixed_float16",
        batch_from("1-64"),
    )
    assert made == {
        "archs": [{"mtp_372": [6, 8]}],
        "precision_config": {
            "precision_mode": "qint8_mixed_float16",
            "weight_quant_granularity": "per_axis",
            "activation_quant_algo": "symmetric",
        },
        "graph_shape_mutable": True,
        "dim_range": {"0": {"min": [1, 3, 672, 1024], "max": [64, 3, 672, 1024]}},
        "insert_bn_before_firstnode": {"0": {"mean": [104, 117, 123], "var": [1, 1, 1]}},
        "convert_input_layout": {"0": {"src": "NCHW", "dst": "NHWC"}},
        "computation_preference": "auto",
        "opt_config": {"type64to32_conversion": True, "conv_scale_fold": True},
    }
    ulfd = build_config(
        settings_from({}), config.model("ulfd_rfb_320").input, (240, 320), "force_float16", batch_from("1")
    )
    # `var` is a variance: 1/128 divides by 128.
    assert ulfd["insert_bn_before_firstnode"]["0"]["var"] == [16384.0] * 3
    assert ulfd["precision_config"] == {"precision_mode": "force_float16"} and "dim_range" not in ulfd
    older = build_config(
        settings_from({"build": {"archs": "names", "input": "float_nchw"}}),
        config.model("retinaface").input,
        (640, 640),
        "force_float32",
        batch_from("1"),
    )
    assert older["archs"] == ["mtp_372"] and "convert_input_layout" not in older
    eqnm = settings_from(
        {"calibration": {"algorithm": "eqnm"}, "build": {"activation_quant_algo": "asymmetric"}}
    )
    with pytest.raises(KilnError, match=r"EQNM(?s:.)*symmetric"):
        build_config(
            eqnm, config.model("retinaface").input, (640, 640), "qint8_mixed_float16", batch_from("1")
        )


def test_the_file_states_the_schemas_defaults(root: Path) -> None:
    assert load_settings(root / "config") == settings_from({}) == load_settings("no such folder")
    with pytest.raises(KilnError, match=r"magicmind.*sdk(?s:.)*modus"):
        settings_from({"sdk": {"modus": "local"}})


@pytest.fixture
def small(tmp_path: Path, config: Config) -> tuple[Path, Model]:
    """A small network's ONNX, and a model that declares it."""
    declared = config.model("pfpld")
    onnx.save(network(), tmp_path / "small.sim.onnx")
    return tmp_path / "small.sim.onnx", replace(
        declared,
        name="small",
        sizes={"8": (8, 8)},
        outputs=("out",),
        priors=None,
        input=replace(declared.input, name="input"),
    )


def _pictures(model: Model, count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    height, width = next(iter(model.sizes.values()))
    mean = np.array(model.input.mean, np.float32).reshape(1, 3, 1, 1)
    scale = np.array(model.input.scale, np.float32).reshape(1, 3, 1, 1)
    raw = rng.integers(0, 256, (count, 1, 3, height, width)).astype(np.float32)
    return [(one - mean) * scale for one in raw]


def _calibration(path: Path, model: Model) -> Calibration:
    from facekiln.quant.ranges import measure_ranges, write_ranges

    pictures = _pictures(model)
    ranges = measure_ranges(onnx.load(path), pictures, percentile=99.99, artifact_sha256=sha256_of(path))
    write_ranges(path.with_name("ranges.json"), ranges)
    return Calibration(pictures, path.with_name("ranges.json"))


def _blind_is_fine(settings: MagicmindSettings) -> MagicmindSettings:
    return replace(settings, gate=replace(settings.gate, least_cosine=-1.0))


def test_an_emulated_file_says_so(tmp_path: Path, small: tuple[Path, Model]) -> None:
    path, model = small
    output = tmp_path / "out.mm"
    wanted = Wanted(model, next(iter(model.sizes)), "qint8_mixed_float16", batch_from("1-8"))
    build_file([path], wanted, _blind_is_fine(settings_from({})), output, _calibration(path, model))
    record = read_record(output)
    assert record and record.emulated and record.settings["batch"] == "1-8"
    assert record.settings["emulator"]["depthwise_weights"] == "per_axis"
    assert record.settings["calibration"]["algorithm"] == "linear"
    assert record.facts["method"] == "mse" and record.facts["gate"]["pictures"] == 3
    assert read_emulated(output).told["build_config"]["dim_range"]["0"]["max"][0] == 8
    first = sha256_of(output)
    build_file([path], wanted, _blind_is_fine(settings_from({})), output, _calibration(path, model))
    assert sha256_of(output) == first


@pytest.mark.parametrize("source", ["onnx", "caffe", "torchscript"])
def test_the_emulator_reads_the_onnx_and_its_record_says_so(
    tmp_path: Path, small: tuple[Path, Model], source: str
) -> None:
    path, model = small
    wanted = Wanted(model, next(iter(model.sizes)), "force_float16", batch_from("1"))
    others = [tmp_path / "network.caffemodel", tmp_path / "network.prototxt"]
    for other in others:
        other.write_bytes(b"not read")
    build_file([path, *others], wanted, settings_from({"source": source}), tmp_path / "out.mm")
    record = read_record(tmp_path / "out.mm")
    assert record and record.settings["source"] == "onnx"
    assert [item["path"] for item in record.inputs] == [str(path)]


def test_the_most_sensitive_nodes_stay_in_float(tmp_path: Path, small: tuple[Path, Model]) -> None:
    path, model = small
    wanted = Wanted(model, next(iter(model.sizes)), "qint8_mixed_float16", batch_from("1"))
    settings = _blind_is_fine(settings_from({"keep_float": [], "keep_sensitive": 1}))
    calibration = _calibration(path, model)
    with pytest.raises(KilnError, match=r"keep_sensitive(?s:.)*--sensitivity"):
        build_file([path], wanted, settings, tmp_path / "out.mm", calibration)
    report = tmp_path / "sensitivity.json"
    # The first row is of all nodes together.
    rows = [("(all)", ""), ("conv2", "Conv"), ("conv1", "Conv")]
    layers = [{"node": node, "op": op} for node, op in rows]
    report.write_text(json.dumps({"artifact_sha256": sha256_of(path), "layers": layers}))
    facts = build_file(
        [path], wanted, settings, tmp_path / "out.mm", replace(calibration, sensitivity=report)
    )
    assert facts["float_nodes"] == ["conv2"]
    record = read_record(tmp_path / "out.mm")
    assert record and str(report) in [item["path"] for item in record.inputs]
    report.write_text(json.dumps({"artifact_sha256": "0" * 64, "layers": layers}))
    with pytest.raises(KilnError, match=r"another ONNX file(?s:.)*quant sensitivity"):
        build_file([path], wanted, settings, tmp_path / "out.mm", replace(calibration, sensitivity=report))
    report.write_text("{}")
    with pytest.raises(KilnError, match="no report of sensitivities"):
        build_file([path], wanted, settings, tmp_path / "out.mm", replace(calibration, sensitivity=report))


def test_int8_without_its_own_ranges_is_refused(tmp_path: Path, small: tuple[Path, Model]) -> None:
    path, model = small
    wanted = Wanted(model, next(iter(model.sizes)), "qint8_mixed_float16", batch_from("1"))
    with pytest.raises(KilnError, match="needs a calibration set"):
        build_file([path], wanted, settings_from({}), tmp_path / "out.mm")
    calibration = _calibration(path, model)
    other = onnx.load(path)
    other.doc_string = "another file"
    onnx.save(other, path)
    with pytest.raises(KilnError, match=r"another ONNX file(?s:.)*quant ranges"):
        build_file([path], wanted, settings_from({}), tmp_path / "out.mm", calibration)
    assert not (tmp_path / "out.mm").exists()


@pytest.mark.parametrize("batch", ["1", "4", "1-8"])
@pytest.mark.parametrize("precision", ["force_float16", "qint8_mixed_float16"])
def test_the_sdk_by_its_stand_in(
    tmp_path: Path, small: tuple[Path, Model], monkeypatch: pytest.MonkeyPatch, batch: str, precision: str
) -> None:
    path, model = small
    monkeypatch.setenv("PYTHONPATH", str(SDK))
    monkeypatch.setenv("FAKE_MM_LOG", str(tmp_path / "calls"))
    chosen = settings_from({"sdk": {"mode": "local", "python": [sys.executable]}, "keep_float": []})
    wanted = Wanted(model, next(iter(model.sizes)), precision, batch_from(batch))
    calibration = _calibration(path, model) if precision.startswith("qint8") else None
    build_file([path], wanted, chosen, tmp_path / "out.mm", calibration)
    record = read_record(tmp_path / "out.mm")
    assert record and not record.emulated and record.tools["magicmind"] == "1.7.0-fake"
    told = json.loads((tmp_path / "out.mm").read_text().removeprefix("FAKE "))
    assert told["config"]["precision_config"]["precision_mode"] == precision
    dims = (tmp_path / "calls").read_text().splitlines()[1]
    assert dims.startswith(f"set_dimension [{'-1' if '-' in batch else batch}, 3, ")
    assert record.facts["samples"] == (3 if calibration else 0)
    with pytest.raises(KilnError, match="run on their cards only"):
        read_emulated(tmp_path / "out.mm")


def test_a_build_that_fails_leaves_no_file(
    tmp_path: Path, small: tuple[Path, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = small
    monkeypatch.setenv("PYTHONPATH", str(SDK))
    monkeypatch.setenv("FAKE_MM", "parse")
    chosen = settings_from({"sdk": {"mode": "local", "python": [sys.executable]}})
    wanted = Wanted(model, next(iter(model.sizes)), "force_float16", batch_from("1"))
    with pytest.raises(KilnError, match="GridSample"):
        build_file([path], wanted, chosen, tmp_path / "out.mm")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["small.sim.onnx"]


def test_a_built_model_of_another_type_of_input_is_refused(
    tmp_path: Path, small: tuple[Path, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = small
    monkeypatch.setenv("PYTHONPATH", str(SDK))
    monkeypatch.setenv("FAKE_MM", "float_in")
    chosen = settings_from({"sdk": {"mode": "local", "python": [sys.executable]}})
    wanted = Wanted(model, next(iter(model.sizes)), "force_float16", batch_from("1"))
    with pytest.raises(KilnError, match=r"another input(?s:.)*FLOAT32(?s:.)*UINT8"):
        build_file([path], wanted, chosen, tmp_path / "out.mm")
    assert not (tmp_path / "out.mm").exists()


def test_a_weight_beyond_float16_is_refused() -> None:
    large = network()
    weight = next(tensor for tensor in large.graph.initializer if tensor.name == "w1")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = 7e4
    weight.CopyFrom(numpy_helper.from_array(values, "w1"))
    with pytest.raises(KilnError, match=r"conv1(?s:.)*beyond float16(?s:.)*precisions"):
        emulate(large, "force_float16")
    emulate(large, "force_float16", precisions={"conv1": "FLOAT32"})


def test_a_stage_of_a_larger_batch_computes_one_picture(
    tmp_path: Path, small: tuple[Path, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = small
    label = next(iter(model.sizes))
    fed: list[int] = []
    run = MagicmindRuntime.run
    monkeypatch.setattr(
        MagicmindRuntime, "run", lambda self, batch: (fed.append(len(batch)), run(self, batch))[1]
    )
    picture = np.random.default_rng(1).integers(0, 256, (*model.size(label), 3)).astype(np.uint8)
    found = []
    for batch in ("1", "8"):
        output = tmp_path / f"{batch}.mm"
        wanted = Wanted(model, label, "force_float16", batch_from(batch))
        build_file([path], wanted, settings_from({}), output)
        stage = MagicmindStage(output, model)
        found.append(stage.run(picture))
        assert set(found[-1]) <= set(stage.trace(picture))
    assert fed == [1] * 4
    for name, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][name])


def test_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    write_emulated(tmp_path / "a.mm", EmulatedModel(_told(), b"x"))
    assert main(["magicmind", "inspect", str(tmp_path / "a.mm")]) == 0
    assert json.loads(capsys.readouterr().out)["emulated"] is True
    (tmp_path / "b.mm").write_bytes(b"a vendor's file")
    assert main(["magicmind", "inspect", str(tmp_path / "b.mm")]) == 1
    assert "cards only" in capsys.readouterr().err
