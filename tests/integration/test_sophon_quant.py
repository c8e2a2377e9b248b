"""Calibration, mixed precision and the gate against blindness with the real tools, on a tiny network.

Needs the environment that `facekiln sophon environment --make` makes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facekiln.chips.sophon.artifacts import Artifact
from facekiln.chips.sophon.calibrate import calibrate_file
from facekiln.chips.sophon.compile_file import compile_file, deploy_arguments, lowered_name
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.mixed import prove_obeyed
from facekiln.chips.sophon.mlir import read_mlir
from facekiln.chips.sophon.plan import plan_file
from facekiln.chips.sophon.qtable import read_qtable
from facekiln.chips.sophon.settings import SophonSettings, load_settings
from facekiln.chips.sophon.sight import check_sight
from facekiln.chips.sophon.table import check_table, read_table
from facekiln.chips.sophon.tables import Tables, stage_tables
from facekiln.chips.sophon.tool import job_folder, run_tool
from facekiln.chips.sophon.transform import stage, transform_file
from facekiln.config import Config, Model, load_config
from facekiln.errors import GateError, KilnError
from facekiln.provenance import read_record
from facekiln.quant.ranges import measure_ranges, write_ranges
from facekiln.quant.run import Pictures, pictures_of_set
from facekiln.vision.image import write_image

pytestmark = pytest.mark.slow


def network() -> onnx.ModelProto:
    """`input` [1, 3, 8, 8] -> Conv -> LeakyRelu -> Conv: `scores` [1, 64, 2] and `boxes` [1, 64, 4]."""
    random = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["input", "w"], ["map"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("LeakyRelu", ["map"], ["act"], alpha=0.1),
    ]
    for name in ("scores", "boxes"):
        nodes += [
            helper.make_node("Conv", ["act", f"{name}_w"], [f"{name}_m"], kernel_shape=[1, 1]),
            helper.make_node("Transpose", [f"{name}_m"], [f"{name}_t"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}_t", f"{name}_shape"], [f"{name}_r"]),
        ]
    nodes[-1].output[0] = "boxes"
    nodes.append(helper.make_node("Softmax", ["scores_r"], ["scores"], axis=2))
    value = helper.make_tensor_value_info
    stored = [weight("w", 4, 3, 3, 3), weight("scores_w", 2, 4, 1, 1), weight("boxes_w", 4, 4, 1, 1)]
    stored += [
        numpy_helper.from_array(np.array([1, -1, values], np.int64), f"{name}_shape")
        for name, values in (("scores", 2), ("boxes", 4))
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [value("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [value("scores", TensorProto.FLOAT, [1, 64, 2]), value("boxes", TensorProto.FLOAT, [1, 64, 4])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@dataclass
class Bench:
    """A small network with its set and ranges, and top.mlir for one and for four pictures."""

    model: Model
    config: Config
    settings: SophonSettings
    environment: Environment
    folder: Path
    tops: dict[int, Path]

    @property
    def pictures(self) -> Pictures:
        """Return the calibration set's inputs."""
        return pictures_of_set(self.folder / "set", self.model)

    def table(
        self, batch: int, method: str, output: Path, single: Path | None = None, search: str = "none"
    ) -> Any:
        """Make a calibration table."""
        return calibrate_file(
            self.environment,
            self.tops[batch] / "top.mlir",
            self.folder / "ranges.json",
            self.pictures,
            replace(self.settings.calibrate, method=method, search=search),
            output,
            single=single,
            onnx=self.folder / "small.onnx",
        )

    def plan(self, chip: str, keep: tuple[str, ...], output: Path) -> Path:
        """Make a chip's qtable."""
        settings = replace(self.settings, mixed=replace(self.settings.mixed, keep_float={chip: keep}))
        top = self.tops[1] / "top.mlir"
        plan_file(top, self.folder / "small.onnx", chip, settings, self.config, output)
        return output


@pytest.fixture(scope="module")
def bench(root: Path, sophon_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    settings, config = load_settings(root / "config"), load_config(root / "config")
    place = tmp_path_factory.mktemp("bench")
    onnx.save(network(), place / "small.onnx")
    listed = []
    (place / "set" / "images").mkdir(parents=True)
    for number in range(6):
        name = f"images/{number}.png"
        write_image(place / "set" / name, np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8))
        listed.append({"path": name})
    (place / "set" / "calibration.json").write_text(json.dumps({"pictures": listed, "set_sha256": "0"}))
    model = replace(config.model("ulfd_slim_320"), name="small", sizes={"8": (8, 8)}, priors=None)
    ranges = measure_ranges(network(), pictures_of_set(place / "set", model), percentile=99.99)
    write_ranges(place / "ranges.json", replace(ranges, set_sha256="0" * 64))
    tops = {}
    for batch in (1, 4):
        tops[batch] = place / f"small_8_{batch}b"
        transform_file(
            place / "small.onnx", place / "set", model, "8", batch, settings, sophon_environment, tops[batch]
        )
    return Bench(model, config, settings, sophon_environment, place, tops)


def test_our_ranges_become_the_tools_table_and_a_batch_agrees(bench: Bench, tmp_path: Path) -> None:
    made = bench.table(1, "ours:mse", tmp_path / "1b.table")
    assert made.worst < 1e-4
    table = read_table(tmp_path / "1b.table")
    check_table(table, read_mlir(bench.tops[1] / "top.mlir"))
    assert table.rows["map_Conv"].threshold == table.rows["act_LeakyRelu"].threshold
    bench.table(1, "ours:mse", tmp_path / "again.table")
    assert (tmp_path / "again.table").read_bytes() == (tmp_path / "1b.table").read_bytes()
    # Six pictures: the second batch of four is filled up, which must not count.
    batch = bench.table(4, "ours:mse", tmp_path / "4b.table", tmp_path / "1b.table")
    assert batch.batch is not None and batch.batch < 1e-4


@pytest.mark.parametrize("method", ["kl", "max", "aciq_gauss"])
def test_the_tools_own_methods_on_our_pictures(method: str, bench: Bench, tmp_path: Path) -> None:
    made = bench.table(1, f"tool:{method}", tmp_path / "1b.table")
    check_table(made.table, read_mlir(bench.tops[1] / "top.mlir"))
    text = (tmp_path / "1b.table").read_text()
    assert "genetated time: 1970" in text and str(tmp_path) not in text and "# sample number: 6" in text
    bench.table(1, f"tool:{method}", tmp_path / "again" / "1b.table")
    assert (tmp_path / "again" / "1b.table").read_text() == text


def test_the_tool_chooses_among_its_methods(bench: Bench, tmp_path: Path) -> None:
    """Its program leaves no table by itself: `--search search_threshold` is in 1.26's help only."""
    made = bench.table(1, "tool:max", tmp_path / "1b.table", search="threshold")
    assert made.method in {f"tool:{name}" for name in ("kl", "max", "percentile9999", "mse")}
    check_table(made.table, read_mlir(bench.tops[1] / "top.mlir"))
    assert "# sample number: 6" in (tmp_path / "1b.table").read_text()


@pytest.mark.parametrize("search", ["search_qtable", "fast_search"])
def test_the_tools_searches_for_what_stays_in_float(search: str, bench: Bench, tmp_path: Path) -> None:
    bench.table(1, "tool:max", tmp_path / "1b.table")
    mixed = replace(bench.settings.mixed, by=f"tool:{search}", expected_cosine=0.999999)
    plan_file(
        bench.tops[1] / "top.mlir",
        bench.folder / "small.onnx",
        "bm1684x",
        replace(bench.settings, mixed=mixed),
        bench.config,
        tmp_path / "a.qtable",
        pictures=bench.pictures,
        calibration_table=tmp_path / "1b.table",
    )
    assert set(read_qtable(tmp_path / "a.qtable").modes.values()) == {"F16"}


def test_an_unknown_method_names_those_that_there_are(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="tool:percentile9999"):
        bench.table(1, "tool:entropy", tmp_path / "1b.table")
    assert not (tmp_path / "1b.table").exists()


@pytest.mark.parametrize(("chip", "precision"), [("bm1684x", "F16"), ("bm1684", "F32")])
def test_precisions_asked_for_are_obeyed(chip: str, precision: str, bench: Bench, tmp_path: Path) -> None:
    bench.table(1, "ours:mse", tmp_path / "1b.table")
    qtable = bench.plan(chip, ("heads",), tmp_path / "a.qtable")
    artifact = Artifact(chip, "small", "8", "int8", 1)
    tables, whole = Tables(tmp_path / "1b.table", qtable), Tables(tmp_path / "1b.table")
    for asked, kept in ((tables, True), (whole, False)):
        with job_folder(tmp_path / "x") as job:
            stage(bench.tops[1], job)
            stage_tables(asked, job, chip)
            arguments = [*deploy_arguments(artifact, asked, bench.environment), "--not_gen_bmodel"]
            run_tool(bench.environment, "model_deploy", arguments, folder=job, log=None, timeout_minutes=5)
            lowered = lowered_name(job)
            if kept:
                proved = prove_obeyed(lowered, qtable, "INT8")
                assert proved.kept >= 6 and proved.counts[precision] >= proved.kept
                assert proved.counts["INT8"] >= 2
            else:
                with pytest.raises(GateError, match="is computed in INT8"):
                    prove_obeyed(lowered, qtable, "INT8")
            # The fact that `shared_scales` rests on.
            network = read_mlir(lowered)
            scales = [
                re.search(r"f32, ([\d.]+)", network.op(name).types[0])
                for name in ("map_Conv", "act_LeakyRelu")
            ]
            assert scales[0] and scales[1] and scales[0][1] == scales[1][1]


def test_a_blind_file_is_not_put_in_place(bench: Bench, tmp_path: Path) -> None:
    bench.table(1, "ours:mse", tmp_path / "1b.table")
    artifact = Artifact("bm1684x", "small", "8", "int8", 1)
    tables = Tables(tmp_path / "1b.table")

    def build(least_cosine: float) -> None:
        limits = replace(bench.settings.gate, least_cosine=least_cosine, pictures=3)
        compile_file(
            bench.tops[1],
            artifact,
            tables,
            bench.settings.deploy,
            bench.environment,
            tmp_path / artifact.path,
            gate=lambda job, lowered, arguments: check_sight(
                job,
                lowered,
                arguments,
                bench.tops[1],
                artifact,
                bench.model,
                bench.pictures,
                limits,
                bench.settings.deploy,
                bench.environment,
            ),
        )

    with pytest.raises(GateError, match="unlike the fp32 file's"):
        build(1.0)
    assert list((tmp_path / artifact.path).parent.iterdir()) == []
    build(0.5)
    record = read_record(tmp_path / artifact.path)
    assert record is not None and record.facts["sight"]["pictures"] == 3
    assert record.facts["operators"]["INT8"] > 0
