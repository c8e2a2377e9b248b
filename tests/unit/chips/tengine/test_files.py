"""Files on disk: settings, the user's own tools, the gate, the command line, and the real library."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from facekiln.artifact import write_bytes
from facekiln.chips.tengine import quantise_file, runtime
from facekiln.chips.tengine.convert import convert
from facekiln.chips.tengine.format import Quant
from facekiln.chips.tengine.outputs import ordered, rename, roles_of
from facekiln.chips.tengine.quantise import quantise
from facekiln.chips.tengine.ranges import activations
from facekiln.chips.tengine.reader import read_tmfile
from facekiln.chips.tengine.scales import ALGORITHMS
from facekiln.chips.tengine.settings import TengineSettings, load_settings, settings_from
from facekiln.chips.tengine.writer import tmfile_bytes
from facekiln.chips.vendor_tool import run_tool
from facekiln.cli import main
from facekiln.config import Config, load_config
from facekiln.errors import KilnError
from facekiln.provenance import read_record
from support.tengine_networks import Node, network, numbers, small_detector


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    """The repository's own config."""
    return load_config(root / "config")


@pytest.fixture
def settings() -> TengineSettings:
    """The schema's defaults."""
    return settings_from({})


def test_the_file_states_the_schemas_defaults(root: Path, settings: TengineSettings) -> None:
    assert load_settings(root / "config") == settings
    assert load_settings("no such folder") == settings


def test_op_version_by_generation() -> None:
    assert {settings_from({"generation": g}).op_version for g in ("lite", "1.x", "1.12")} == {2}
    with pytest.raises(KilnError, match=r"Tengine 1\.9 are not written"):
        _ = settings_from({"generation": "1.9"}).op_version


def test_bad_settings() -> None:
    with pytest.raises(KilnError, match="did you mean 'tm_landmark'"):
        settings_from({"consumer": "tm_landmarks"})
    with pytest.raises(KilnError, match="tools"):
        settings_from({"tools": {"mode": "emulator"}})
    with pytest.raises(KilnError, match="names"):
        settings_from({"consumers": {"model": {"names": {"boxes": "a b"}}}})


def test_outputs_in_a_consumers_order(config: Config, settings: TengineSettings) -> None:
    model = config.model("ulfd_rfb_320")
    roles = roles_of(model, {"scores": [1, 4420, 2], "boxes": [1, 4420, 4]})
    # tm_ultraface takes output 0 for boxes; ONNX has scores first.
    assert ordered(model, roles, settings.consumers["tm_ultraface"]) == ["boxes", "scores"]
    assert ordered(model, roles, settings.consumers["model"]) == ["scores", "boxes"]
    landmarks = config.model("pfpld")
    roles = roles_of(landmarks, {"pose": [1, 3], "landms": [1, 196]})
    # tm_landmark reads output 0, where PFPLD has the pose.
    assert ordered(landmarks, roles, settings.consumers["tm_landmark"]) == ["landms", "pose"]
    with pytest.raises(KilnError, match="that model 'pfpld' has not"):
        ordered(landmarks, roles, settings.consumers["tm_ultraface"])
    with pytest.raises(KilnError, match="not those of"):
        roles_of(model, {"scores": [1, 4420, 2]})


def test_outputs_with_a_consumers_names(config: Config) -> None:
    graph = convert(small_detector()).graph
    roles = {"boxes": "boxes", "scores": "scores"}
    assert rename(graph, roles, {"names": {"boxes": "face_rpn_bbox"}}) == {
        "face_rpn_bbox": "boxes",
        "scores": "scores",
    }
    assert [tensor.name for tensor in graph.output_tensors()] == ["face_rpn_bbox", "scores"]
    with pytest.raises(KilnError, match="another tensor"):
        rename(convert(small_detector()).graph, roles, {"names": {"boxes": "x"}})


def _script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def _tools(settings: TengineSettings, **changes: object) -> TengineSettings:
    return replace(settings, tools=replace(settings.tools, **changes))  # type: ignore[arg-type]


def test_a_tool_here(tmp_path: Path, settings: TengineSettings) -> None:
    job = tmp_path / "job"
    job.mkdir()
    (job / "in").write_text("7")
    tool = _script(tmp_path / "tool", 'cp "$1" out; echo told')
    found = _tools(settings, mode="local")
    assert "told" in run_tool(found.tools, [tool], ["in"], job, key="tools.convert")
    assert (job / "out").read_text() == "7"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo why >&2; exit 3", r"exit status 3\): why"),
        ("kill -SEGV $$", "exit status -11"),
        ("sleep 60", "too long"),
    ],
)
def test_tools_that_fail(tmp_path: Path, settings: TengineSettings, body: str, message: str) -> None:
    found = _tools(settings, mode="local", timeout_minutes=0.01 if "sleep" in body else 5)
    with pytest.raises(KilnError, match=message):
        run_tool(found.tools, [_script(tmp_path / "tool", body)], [], tmp_path, key="tools.convert")


def test_tools_that_are_not_there(tmp_path: Path, settings: TengineSettings) -> None:
    with pytest.raises(KilnError, match=r"tools\.convert.*not here"):
        run_tool(_tools(settings, mode="local").tools, ["no_such_tool"], [], tmp_path, key="tools.convert")
    with pytest.raises(KilnError, match="no host is named"):
        run_tool(_tools(settings, mode="ssh").tools, ["t"], [], tmp_path, key="tools.convert")
    with pytest.raises(KilnError, match="no image is named"):
        run_tool(_tools(settings, mode="docker").tools, ["t"], [], tmp_path, key="tools.convert")


def _remote(tmp_path: Path, settings: TengineSettings) -> TengineSettings:
    # What ssh does: the last argument goes to a shell, here one on this machine.
    ssh = _script(tmp_path / "ssh", 'for last; do :; done; cd / && exec sh -c "$last"')
    return _tools(settings, mode="ssh", ssh_program=(ssh, "-o", "BatchMode=yes"), ssh_host="board")


def test_a_tool_on_another_machine(tmp_path: Path, settings: TengineSettings) -> None:
    job = tmp_path / "job"
    job.mkdir()
    (job / "in").write_text("7")
    tool = _script(tmp_path / "a tool's name", 'cp "$1" out; echo "$2"')
    printed = run_tool(_remote(tmp_path, settings).tools, [tool], ["in", "it's"], job, key="tools.convert")
    assert (job / "out").read_text() == "7" and "it's" in printed
    failing = _script(tmp_path / "bad", "echo broken; exit 4")
    with pytest.raises(KilnError, match=r"exit status 4\): broken"):
        run_tool(_remote(tmp_path, settings).tools, [failing], [], job, key="tools.convert")


def test_a_host_that_cannot_be_reached(tmp_path: Path, settings: TengineSettings) -> None:
    for body, message in (
        ("echo refused >&2; exit 255", "exit status 255.*refused"),
        ("echo hello", "no job folder"),
    ):
        ssh = _script(tmp_path / "ssh", body)
        found = _tools(settings, mode="ssh", ssh_program=(ssh,), ssh_host="board")
        with pytest.raises(KilnError, match=message):
            run_tool(found.tools, ["tool"], [], tmp_path, key="tools.convert")


def test_a_tool_in_a_container(tmp_path: Path, settings: TengineSettings) -> None:
    docker = _script(tmp_path / "docker", 'echo "$@"; touch out')
    found = _tools(settings, mode="docker", docker_program=docker, docker_image="tengine:1.5")
    printed = run_tool(found.tools, ["convert_tool"], ["-f", "onnx"], tmp_path, key="tools.convert")
    assert "--network none" in printed and printed.strip().endswith("tengine:1.5 convert_tool -f onnx")
    assert f"--volume {tmp_path.resolve()}:/job" in printed


def _int8(tmp_path: Path) -> Path:
    graph = convert(small_detector()).graph
    path = tmp_path / "small_int8.tmfile"
    scales = {name: Quant(0.1, 0) for name in activations(graph)}
    path.write_bytes(tmfile_bytes(quantise(graph, scales, 2)))
    return path


def test_a_precision_mode_that_is_not_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Mode fp32 on an int8 file: invalid writes, then an abort. It never reaches the library.
    monkeypatch.setenv(runtime.VARIABLE, __file__)
    with pytest.raises(KilnError, match="another precision mode reads and writes past its buffers"):
        runtime.run(_int8(tmp_path), [numbers(1, 3, 8, 8)], mode=0)


def test_no_library_or_a_wrong_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _int8(tmp_path)
    monkeypatch.delenv(runtime.VARIABLE, raising=False)
    with pytest.raises(KilnError, match="no Tengine runtime is known"):
        runtime.run(path, [])
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path / "none.so"))
    with pytest.raises(KilnError, match="does not exist"):
        runtime.library()
    monkeypatch.setenv(runtime.VARIABLE, __file__)
    with pytest.raises(KilnError, match="refused it"):
        runtime.run(path, [numbers(1, 3, 8, 8)])


def test_a_crash_of_the_library_ends_its_own_process_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import os, signal\nprint('version 9')\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv(runtime.VARIABLE, __file__)
    monkeypatch.setattr(runtime.runtime_child, "__file__", str(child))
    with pytest.raises(KilnError, match=r"crashed Tengine \(SIGSEGV"):
        runtime.run(_int8(tmp_path), [numbers(1, 3, 8, 8)])


def test_a_file_that_would_crash_is_not_given_to_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(runtime.VARIABLE, __file__)
    graph = read_tmfile(_int8(tmp_path))
    for tensor in graph.tensors:
        tensor.quant = tensor.quant[:1]
    path = tmp_path / "bad.tmfile"
    path.write_bytes(tmfile_bytes(graph))
    with pytest.raises(KilnError, match="would crash the runtime: TM-QUANT"):
        runtime.run(path, [numbers(1, 3, 8, 8)])


def test_inspect_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _int8(tmp_path)
    assert main(["tengine", "inspect", str(path), "--nodes"]) == 0
    told = capsys.readouterr().out
    assert "TENGINE_MODE_INT8" in told and "Convolution" in told
    path.write_bytes(path.read_bytes()[:-8])
    assert main(["tengine", "inspect", str(path)]) == 1
    assert "offset" in capsys.readouterr().err


@pytest.fixture
def rfb(mirror: Callable[[str], Path], tmp_path: Path) -> Path:
    """The published simplified RFB-320 with our input name."""
    return mirror("ulfd_rfb_320_upstream_simplified.onnx")


def _pictures(folder: Path, images: Path, count: int) -> Path:
    from facekiln.vision.image import read_image, write_image
    from facekiln.vision.preprocess import fit

    found = sorted(images.rglob("*.jpg"))
    chosen = found[:: max(1, len(found) // count)][:count]
    (folder / "images").mkdir(parents=True)
    for number, path in enumerate(chosen):
        write_image(folder / "images" / f"{number:02d}.png", fit(read_image(path), (240, 320), "stretch")[0])
    (folder / "list.txt").write_text("".join(f"images/{number:02d}.png\n" for number in range(len(chosen))))
    return folder


def _run(config: Path, *words: str) -> int:
    return main(["tengine", *words, "--model", "ulfd_rfb_320", "--size", "320", "--config", str(config)])


def _own_ranges(source: Path, path: Path, calibration: Path, config: Path) -> None:
    from facekiln.artifact import sha256_of
    from facekiln.quant.ranges import measure_ranges, write_ranges
    from facekiln.vision.image import read_image
    from facekiln.vision.preprocess import to_tensor

    declared = load_config(config).model("ulfd_rfb_320").input
    feeds = [to_tensor(read_image(one), declared) for one in sorted((calibration / "images").iterdir())]
    found = measure_ranges(onnx.load(source), feeds, percentile=99.99, artifact_sha256=sha256_of(source))
    write_ranges(path, found)


def test_every_algorithm_can_be_asked_for(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default, too, where the file of settings names another."""
    asked: list[str] = []

    def noted(*arguments: object, **_: object) -> None:
        asked.append(next(one for one in arguments if isinstance(one, TengineSettings)).quantise.algorithm)
        raise KilnError("enough")

    monkeypatch.setattr(quantise_file, "quantise_file", noted)
    words = ["quantise", "x.tmfile", "--precision", "int8", "--model", "ulfd_rfb_320", "--size", "320"]
    for algorithm in ALGORITHMS:
        chosen = ["--calibration", "x", "--output", str(tmp_path / "q.tmfile"), "--algorithm", algorithm]
        assert main(["tengine", *words, *chosen]) == 1
    assert asked == list(ALGORITHMS)


def test_a_folder_of_pictures_that_is_no_calibration_set(config: Config, tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="calibration make --model ghostone --size 112 --source"):
        quantise_file.calibration_pictures(tmp_path, config.model("ghostone"), "112")


def test_a_table_of_our_ranges_says_that_its_network_is_not_evened_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from facekiln.quant.ranges import measure_ranges, write_ranges

    weights = {"w0": numbers(8, 4, 1, 1, seed=1), "w1": numbers(8, 8, 3, 3, seed=3)}
    nodes: list[Node] = [
        ("Conv", ["x", "w0"], ["c"], {}),
        ("Conv", ["c", "w1"], ["y"], {"pads": [1, 1, 1, 1]}),
    ]
    model = network(nodes, (1, 4, 6, 6), weights)
    write_bytes(tmp_path / "n.tmfile", tmfile_bytes(convert(model).graph))
    write_ranges(
        tmp_path / "r.json",
        measure_ranges(model, [numbers(1, 4, 6, 6)], percentile=99.99),
    )
    words = [str(tmp_path / "n.tmfile"), "--ranges", str(tmp_path / "r.json"), "--precision", "uint8"]
    assert main(["tengine", "scales", *words, "--output", str(tmp_path / "n.scale")]) == 0
    told = capsys.readouterr().err
    assert "of the network as it is" in told and "evens 1 pairs of convolutions out" in told
    record = read_record(tmp_path / "n.scale")
    assert record and record.settings["equalise"] is False
    with pytest.raises(SystemExit):
        main(["tengine", "scales", "--help"])
    assert "by default `quantise` evens weights out first" in " ".join(capsys.readouterr().out.split())


@pytest.mark.published
@pytest.mark.slow
def test_convert_and_quantise_from_the_command_line(
    rfb: Path, data: Callable[[str], Path], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, real = root / "config", tmp_path / "rfb.tmfile"
    assert _run(config, "convert", str(rfb), "--output", str(real), "--consumer", "tm_ultraface") == 0
    graph = read_tmfile(real)
    assert [tensor.name for tensor in graph.output_tensors()] == ["boxes", "scores"]
    calibration = _pictures(tmp_path / "calibration", data("wider"), 4)
    quantise_it = ["--calibration", str(calibration), "--output", str(tmp_path / "q.tmfile")]
    for precision in ("uint8", "int8"):
        table = tmp_path / "q.scale"
        words = ["quantise", str(real), "--precision", precision, *quantise_it]
        assert _run(config, *words, "--scales-output", str(table)) == 0
        first = (tmp_path / "q.tmfile").read_bytes()
        assert read_tmfile(tmp_path / "q.tmfile").precision == precision
        assert _run(config, *words, "--scales-output", str(table)) == 0
        assert (tmp_path / "q.tmfile").read_bytes() == first
        # The table's record says that its network was evened out.
        assert _run(config, *words, "--scales", str(table)) == 0
        assert (tmp_path / "q.tmfile").read_bytes() == first
    # Our own ranges of the ONNX file, through the tools' form.
    _own_ranges(rfb, tmp_path / "r.json", calibration, config)
    words = ["tengine", "scales", str(real), "--ranges", str(tmp_path / "r.json"), "--precision", "int8"]
    assert main([*words, "--method", "percentile", "--output", str(tmp_path / "own.scale")]) == 0
    own = ["--precision", "int8", "--scales", str(tmp_path / "own.scale")]
    assert _run(config, "quantise", str(real), *quantise_it, *own) == 0
    assert (tmp_path / "q.tmfile").read_bytes() != first
    (tmp_path / "q.tmfile").unlink()
    # As quant_tool_int8 -a 1 does it: the sum's operands become 0, and nothing is found any more.
    words = [
        "quantise",
        str(real),
        "--precision",
        "int8",
        *quantise_it,
        "--algorithm",
        "kl",
        "--style",
        "tool",
    ]
    capsys.readouterr()
    assert _run(config, *words) == 3
    assert "gone blind" in capsys.readouterr().err
    assert not (tmp_path / "q.tmfile").exists()


@pytest.mark.published
def test_a_tool_that_writes_nothing_or_rubbish(
    rfb: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for body, message in (("exit 0", "wrote no file"), ("echo x > out.tmfile", "offset 0x0")):
        config = tmp_path / "config"
        tool = _script(tmp_path / "convert_tool", body)
        if not config.exists():
            import shutil

            shutil.copytree(root / "config", config)
        (config / "chips" / "tengine.yaml").write_text(f"tools: {{mode: local, convert: [{tool}]}}\n")
        assert _run(config, "convert", str(rfb), "--output", str(tmp_path / "o.tmfile")) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "o.tmfile").exists()


@pytest.mark.published
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_quant_tool_gets_the_models_preprocessing(
    rfb: Path, config: Config, settings: TengineSettings, tmp_path: Path, colour: str
) -> None:
    # Its defaults (Caffe's mean, scale 1, 224 x 224) have broken users' networks; -w and -s follow the swap.
    from facekiln.chips.tengine.build_file import convert_file
    from facekiln.chips.tengine.quantise_file import Calibration, quantise_file
    from facekiln.vision.image import write_image

    model = config.model("ulfd_rfb_320")
    model = replace(model, input=replace(model.input, colour=colour, mean=(1, 2, 3)))
    real, told = tmp_path / "rfb.tmfile", tmp_path / "told"
    convert_file(rfb, model, "320", settings, real)
    (tmp_path / "list.txt").write_text("0.png\n")
    write_image(tmp_path / "0.png", np.zeros((240, 320, 3), np.uint8))
    tool = _script(tmp_path / "quant_tool", f'echo "$@" > {told}; ls images >> {told}; exit 9')
    found = _tools(settings, mode="local", quant_int8=(tool,))
    swap = 1 if colour == "rgb" else 0
    scale = "0.0078125,0.0078125,0.0078125"
    expected = f"-m in.tmfile -i images -o out.tmfile -a 0 -g 3,240,320 -w 1,2,3 -s {scale} -b {swap}"
    # Ours are no algorithm of the tool's: it gets them as a table.
    for algorithm, more in (("minmax", ""), ("mse", " -f given.scale")):
        chosen = replace(found, quantise=replace(found.quantise, algorithm=algorithm))
        with pytest.raises(KilnError, match="exit status 9"):
            quantise_file(real, "int8", Calibration(tmp_path), model, "320", chosen, tmp_path / "q.tmfile")
        words, pictures = told.read_text().splitlines()
        assert (words, pictures) == (expected + more, "00000.png")


@pytest.mark.published
def test_another_size_and_other_outputs_are_refused(
    rfb: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "tengine",
        "convert",
        str(rfb),
        "--output",
        str(tmp_path / "o"),
        "--config",
        str(root / "config"),
    ]
    assert main([*words, "--model", "ulfd_rfb_640", "--size", "640"]) == 1
    assert "its input is not that of ulfd_rfb_640_640" in capsys.readouterr().err
    assert main([*words, "--model", "rfb_1mb", "--size", "320"]) == 1
    assert capsys.readouterr().err
    # tm_landmark feeds 144 x 144, whatever the network wants.
    assert main([*words, "--model", "ulfd_rfb_320", "--size", "320", "--consumer", "tm_landmark"]) == 1
    assert "consumer 'tm_landmark' feeds pictures of one size only" in capsys.readouterr().err


@pytest.mark.published
@pytest.mark.parametrize("kind", ["fp32", "uint8", "int8"])
def test_the_real_runtime_on_a_picture(
    rfb: Path,
    data: Callable[[str], Path],
    config: Config,
    settings: TengineSettings,
    tmp_path: Path,
    kind: str,
) -> None:
    if not os.environ.get(runtime.VARIABLE):
        pytest.skip(f"no Tengine here: set {runtime.VARIABLE} to libtengine-lite.so")
    from facekiln.chips.tengine.build_file import convert_file
    from facekiln.chips.tengine.quantise_file import Calibration, quantise_file
    from facekiln.chips.tengine.simulate import Simulation
    from facekiln.vision.image import read_image
    from facekiln.vision.preprocess import to_tensor

    model = config.model("ulfd_rfb_320")
    path = tmp_path / "rfb.tmfile"
    convert_file(rfb, model, "320", settings, path)
    calibration = _pictures(tmp_path / "calibration", data("wider"), 4)
    if kind != "fp32":
        source, path = path, tmp_path / "q.tmfile"
        quantise_file(source, kind, Calibration(calibration), model, "320", settings, path)
    feed = to_tensor(read_image(calibration / "images" / "00.png"), model.input)
    (real,), _ = runtime.run(path, [feed])
    simulation = Simulation(path)
    for tensor in simulation.graph.output_tensors():
        name = tensor.name or ""
        simulated, step = simulation.run(feed)[name], tensor.quant[0].scale if tensor.quant else 2e-5
        steps = np.abs(real[name] - simulated) / step
        # Measured: fp32 1e-5; quantised RFB up to 11 steps, 0.2 on average.
        assert steps.max() <= (1 if kind == "fp32" else 16) and steps.mean() < 1, name


def test_foreign_onnx_is_refused_with_its_name(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(small_detector(), path)
    assert _run(root / "config", "convert", str(path), "--output", str(tmp_path / "o")) == 1
    assert "small.onnx" in capsys.readouterr().err


def test_names_of_tmfiles_say_model_size_and_parent(config: Config) -> None:
    from facekiln.predictions.names import backend_for
    from facekiln.targets import Targets, model_and_size_of

    targets = Targets(config)
    assert model_and_size_of("results/tengine/ulfd_rfb_320_320_int8.tmfile", config) == (
        "ulfd_rfb_320",
        "320",
    )
    fp32 = "results/tengine/retinaface_640.tmfile"
    assert targets.parent_of("tengine/retinaface_640_uint8.tmfile") == fp32
    assert targets.parent_of("tengine/retinaface_640.tmfile") == "results/onnx/retinaface_640.sim.onnx"
    assert backend_for(fp32) == "tengine-simulation"
    assert backend_for(fp32, "tengine-runtime") == "tengine-runtime"


def test_a_tmfile_is_a_stage_with_the_models_names(config: Config, tmp_path: Path) -> None:
    from facekiln.parity.executors import open_stage
    from facekiln.provenance import write_record

    done = convert(small_detector())
    names = rename(done.graph, {"boxes": "boxes", "scores": "scores"}, {"names": {"boxes": "other"}})
    path = tmp_path / "small.tmfile"
    path.write_bytes(tmfile_bytes(done.graph))
    write_record(path, verb="test", inputs=[], facts={"outputs": names})
    stage = open_stage(path, config.model("ulfd_rfb_320"), config)
    assert (stage.name, stage.precision, stage.emulated) == ("tengine-simulation", "float", True)
    picture = np.zeros((8, 8, 3), np.uint8)
    assert set(stage.run(picture)) == {"boxes", "scores"}
    traced = stage.trace(picture)
    assert {"boxes", "scores", "r0"} <= set(traced)
