"""Our ranges as the tool's table: names, measured operators, shared scales, and the child that measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from facekiln.chips.sophon.calibrate import calibrate_file
from facekiln.chips.sophon.calibrate_child import batches, histogram, run
from facekiln.chips.sophon.calibrate_tool import method_of, methods_of_tool
from facekiln.chips.sophon.mlir import parse_mlir
from facekiln.chips.sophon.ranges_table import (
    prove_names,
    ranges_by_op,
    shared_scales,
    table_of_ranges,
    unmeasured,
)
from facekiln.chips.sophon.reach import Reach, write_pictures
from facekiln.chips.sophon.search_child import searching
from facekiln.chips.sophon.settings import CalibrateSettings
from facekiln.chips.sophon.table import read_table, write_table
from facekiln.errors import GateError, KilnError
from facekiln.provenance import read_record
from facekiln.quant.ranges import Ranges, TensorRange, write_ranges
from facekiln.quant.thresholds import BINS, signed_counts
from support.sophon import fake_environment

_LINE = '    %{at} = "top.{kind}"({fed}) {{x = 1}} : (tensor<1x8xf32>) -> tensor<1x8xf32> loc(#loc{at})\n'
_OPS = (
    ("Input", "%arg0", "input"),
    ("Conv", "%0", "a_Conv"),
    ("LeakyRelu", "%1", "a1_LeakyRelu"),
    ("Conv", "%2", "b_Conv_move_ahead_relu"),
)
TOP = (
    'module @m attributes {module.chip = "ALL", module.state = "TOP_F32"} {\n'
    + "".join(_LINE.format(at=at, kind=kind, fed=fed) for at, (kind, fed, _) in enumerate(_OPS))
    + "}\n"
    + "".join(f'#loc{at} = loc("{name}")\n' for at, (_, _, name) in enumerate(_OPS))
)
NETWORK = parse_mlir(TOP, "top.mlir")


def tensor(name: str, op: str, low: float, high: float, mse: float) -> TensorRange:
    top = max(-low, high)
    found = {"minmax": top, "percentile": top, "kl": top, "mse": mse}
    return TensorRange(name, name if op != "Input" else "", op, (1, 8), low, high, found)


def ranges() -> Ranges:
    tensors = [
        tensor("input", "Input", -1, 1, 1),
        tensor("a", "Conv", -17.46, 7.24, 16.65),
        tensor("a1", "LeakyRelu", -1.746, 7.24, 6.28),
    ]
    return Ranges("", "0" * 64, 2, {"percentile": 99.99}, {one.name: one for one in tensors})


def reach() -> Reach:
    values = np.linspace(0, 4, 1000, dtype=np.float32)
    extremes = {"input": (-1.0, 1.0), "a_Conv": (-17.46, 7.24), "a1_LeakyRelu": (-1.746, 7.24)}
    name = "b_Conv_move_ahead_relu"
    return Reach(extremes | {name: (0.0, 4.0)}, {name: signed_counts(values, 4.0)})


def test_operators_are_known_by_tensor_and_kind() -> None:
    assert {name: one.name for name, one in ranges_by_op(NETWORK, ranges()).items()} == {
        "input": "input",
        "a_Conv": "a",
        "a1_LeakyRelu": "a1",
    }
    assert unmeasured(NETWORK, ranges()) == ["b_Conv_move_ahead_relu"]


def test_another_tensor_or_other_pictures_are_noticed() -> None:
    own, measured = ranges_by_op(NETWORK, ranges()), reach()
    assert prove_names(own, measured, NETWORK) == 0
    measured.extremes["a_Conv"] = (-17.46, 7.3)
    with pytest.raises(GateError, match="'a_Conv' reaches something else than tensor 'a'"):
        prove_names(own, measured, NETWORK)


def test_a_convolution_takes_the_threshold_of_the_leaky_relu_behind_it() -> None:
    """tpu_mlir gives a LeakyRelu's result the scale of its input, whatever the table says."""
    assert shared_scales(NETWORK) == {"a_Conv": "a1_LeakyRelu"}
    rows = table_of_ranges(NETWORK, ranges(), "mse", reach()).rows
    assert rows["a_Conv"].threshold == rows["a1_LeakyRelu"].threshold == 6.28
    assert rows["a_Conv"].low == -6.28
    whole = table_of_ranges(NETWORK, ranges(), "minmax", reach()).rows
    assert whole["a_Conv"].threshold == 17.46


def test_what_has_no_tensor_is_measured_by_the_same_method() -> None:
    row = table_of_ranges(NETWORK, ranges(), "minmax", reach()).rows["b_Conv_move_ahead_relu"]
    assert (row.threshold, row.low, row.high) == (4.0, 0.0, 4.0)


def test_methods_are_those_of_the_help() -> None:
    text = "  [--cali_method {mse,max,kl,\n      aciq_gauss}]\n"
    assert methods_of_tool(text) == ("mse", "max", "kl", "aciq_gauss")
    with pytest.raises(KilnError, match="does not tell"):
        methods_of_tool("usage")


class Module:
    """Stands in for pymlir.module: two tensors, the second twice the first."""

    input_names = ("input",)
    all_tensor_names = ("input", "twice")

    def __init__(self, size: int) -> None:
        self.value = np.zeros((size, 4), np.float32)

    def set_tensor(self, _: str, value: NDArray[np.float32], __: Any) -> None:
        self.value = value

    def invoke(self, _: bool) -> None:
        pass

    def get_tensor(self, name: str) -> NDArray[np.float32]:
        return self.value * (2 if name == "twice" else 1)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_batch_measures_what_single_pictures_do(size: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pictures = [rng.normal(size=(1, 4)).astype(np.float32) for _ in range(5)]
    paths = [str(path) for path in write_pictures(tmp_path, pictures)]
    found = run({"pictures": paths, "histograms": ["twice"], "bins": BINS}, Module(size))
    values = np.concatenate(pictures) * 2
    assert found["lows"].tolist() == [float(values.min()) / 2, float(values.min())]
    assert found["counts"].sum() == values.size
    assert (found["counts"][0] == signed_counts(values, float(np.abs(values).max()))).all()


def test_the_last_batch_is_filled_and_nan_is_told(tmp_path: Path) -> None:
    pictures = [np.full((1, 4), value, np.float32) for value in (1, np.nan, 3)]
    paths = [str(path) for path in write_pictures(tmp_path, pictures)]
    assert [(real, batch.shape) for real, batch in batches(paths, 2)] == [(2, (2, 4)), (1, (2, 4))]
    found = run({"pictures": paths, "histograms": [], "bins": BINS}, Module(1))
    assert np.isnan(found["lows"]).all()
    assert not histogram(np.zeros(4, np.float32), 0.0, BINS).any()


@pytest.fixture
def calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calibrate the network above with the reach above; the tool is not run."""
    monkeypatch.setattr("facekiln.chips.sophon.calibrate.measure_reach", lambda *_, **__: reach())
    (tmp_path / "top.mlir").write_text(TOP)
    write_ranges(tmp_path / "ranges.json", ranges())

    def make(
        output: Path,
        method: str = "ours:mse",
        single: Path | None = None,
        measured: Path | None = tmp_path / "ranges.json",
        set_sha256: str | None = None,
        search: str = "none",
    ) -> Any:
        return calibrate_file(
            fake_environment(tmp_path / "env"),
            tmp_path / "top.mlir",
            measured,
            [np.zeros((1, 8), np.float32)],
            CalibrateSettings(method, search, 1),
            output,
            single=single,
            set_sha256=set_sha256,
        )

    return make


def test_ranges_of_another_set_are_refused(calibrated: Any, tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="measured on another calibration set"):
        calibrated(tmp_path / "1b.table", set_sha256="f" * 64)
    assert not (tmp_path / "1b.table").exists()


@pytest.mark.parametrize("method", ["ours:nope", "ours:", "ours", "nope", "theirs:mse"])
def test_an_unknown_method_is_told_before_anything_runs(
    calibrated: Any, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--method ours:nope` ended in a KeyError after the network was run on the whole set."""
    monkeypatch.setattr("facekiln.chips.sophon.calibrate.job_folder", None)
    with pytest.raises(
        KilnError, match=rf"is no method of calibration \(value: {method}; limit: ours:minmax"
    ):
        calibrated(tmp_path / "1b.table", method)


def test_the_tools_methods_need_no_ranges_and_ours_do(
    calibrated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "1b.table"
    calibrated(output)
    table = read_table(output)
    monkeypatch.setattr("facekiln.chips.sophon.calibrate.calibrate_tool", lambda *_, **__: table)
    calibrated(output, "tool:kl", measured=None, set_sha256="f" * 64)
    assert read_record(output).facts["set_sha256"] == "f" * 64
    with pytest.raises(KilnError, match="'ours:mse' needs ranges"):
        calibrated(output, measured=None)


def test_a_search_is_among_the_tools_methods_and_its_choice_is_recorded(
    calibrated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "1b.table"
    with pytest.raises(KilnError, match="ours:mse is no method that the tool's search tries"):
        calibrated(output, search="threshold")
    calibrated(output)
    said = ("# quantization threshold calculation method: percentile9999",)
    table = replace(read_table(output), comments=said)
    monkeypatch.setattr("facekiln.chips.sophon.calibrate.calibrate_tool", lambda *_, **__: table)
    assert calibrated(output, "tool:kl", search="threshold").method == "tool:percentile9999"
    record = read_record(output)
    assert record.facts["method"] == "tool:percentile9999" and record.settings["method"] == "tool:kl"
    with pytest.raises(KilnError, match="does not tell the method"):
        method_of(replace(table, comments=()))


def test_the_search_that_the_tool_passes_over_is_called() -> None:
    done: list[str] = []

    def search(options: Any, *_: Any) -> Any:
        return SimpleNamespace(run_search_calitable=lambda: done.append(options.search))

    prepare = searching(lambda options, *_: options, search)
    for kind in ("search_threshold", "search_qtable"):
        assert prepare(SimpleNamespace(search=kind), 1, 2, 3).search == kind
    assert done == ["search_threshold"]


def test_the_file_of_a_table(calibrated: Any, tmp_path: Path) -> None:
    output = tmp_path / "out" / "1b.table"
    made = calibrated(output)
    assert made.measured == ("b_Conv_move_ahead_relu",) and made.worst == 0
    assert list(read_table(output).rows) == [name for _, _, name in _OPS]
    assert [path.name for path in output.parent.iterdir() if path.name.endswith(".job")] == []
    first = output.read_bytes()
    calibrated(output)
    assert output.read_bytes() == first and str(tmp_path).encode() not in first


def test_a_batch_that_differs_is_not_written(calibrated: Any, tmp_path: Path) -> None:
    single, output = tmp_path / "1b.table", tmp_path / "4b.table"
    calibrated(single)
    assert calibrated(output, single=single).batch == 0
    output.unlink()
    table = read_table(single)
    write_table(
        single, replace(table, rows={**table.rows, "input": replace(table.rows["input"], threshold=2)})
    )
    with pytest.raises(KilnError, match="another range of 'input'"):
        calibrated(output, single=single)
    assert not output.exists()
