"""An ONNX file (or TorchScript, or a Caffe pair) becomes a `.mm`, by the emulator or by the vendor's SDK."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from facekiln.artifact import atomic_path, read_json
from facekiln.chips.magicmind import driver
from facekiln.chips.magicmind.build_config import build_config, shape_of
from facekiln.chips.magicmind.container import EmulatedModel, write_emulated
from facekiln.chips.magicmind.emulate import emulate, insert_normalisation, kept_in_float, stem_and_heads
from facekiln.chips.magicmind.job import OUTPUT, Job, run_job, write_job
from facekiln.chips.magicmind.names import QUANTISED, Batch, check_precision
from facekiln.chips.magicmind.runtime import MagicmindRuntime
from facekiln.chips.magicmind.settings import MagicmindSettings
from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.graph.export import load_onnx, save_onnx
from facekiln.graph.rebatch import fixed_batch, free_batch
from facekiln.parity.sight import Run, judge_sight, measure_sight
from facekiln.progress import log
from facekiln.provenance import tool_versions, write_record
from facekiln.quant.ranges import check_measured_on, ranges_of_onnx

_HINT = "set emulator.linear to mse or percentile, or name nodes in keep_float (config/chips/magicmind.yaml)"


@dataclass(frozen=True)
class Wanted:
    """What is built: a model at one size, precision and batch."""

    model: Model
    label: str
    precision: str
    batch: Batch

    @property
    def name(self) -> str:
        """The name that the file has inside."""
        return f"{self.model.name}_{self.label}"


@dataclass(frozen=True)
class Calibration:
    """The set that int8 files are calibrated and proved on, our ranges over it, and what each node costs."""

    pictures: Sequence[NDArray[np.float32]]
    ranges: Path
    sensitivity: Path | None = None


def build_file(
    sources: Sequence[Path],
    wanted: Wanted,
    settings: MagicmindSettings,
    output: Path,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Build a `.mm` and its record.

    Args:
        sources: the simplified ONNX; where `settings.source` is another, that file, or .caffemodel and
            .prototxt, behind it, which the emulator does not read.
        wanted: what.
        settings: how, and by whom.
        output: the file.
        calibration: of quantised precisions.

    Returns:
        The record's facts.

    Raises:
        KilnError: names that make no sense, no calibration for int8, ranges of another file; what the SDK
            refuses, in its own words.
        GateError: an emulated int8 file has gone blind. Nothing is written then.
    """
    check_precision(wanted.precision)
    config = build_config(
        settings, wanted.model.input, wanted.model.size(wanted.label), wanted.precision, wanted.batch
    )
    if wanted.precision in QUANTISED and calibration is None:
        raise KilnError(f"{wanted.precision} needs a calibration set", hint="give --calibration and --ranges")
    emulated = settings.sdk.mode == "emulator"
    source = settings.source
    if emulated:
        # It computes the ONNX, whatever the SDK would parse.
        if source != "onnx":
            log.info("MagicMind    the emulator reads the ONNX file; source '%s' is for the SDK", source)
        sources, source = sources[:1], "onnx"
    make = _by_emulator if emulated else _by_sdk
    facts, tools = make(sources, wanted, settings, config, output, calibration)
    write_record(
        output,
        verb="magicmind build",
        inputs=[*sources, *(_behind(calibration) if calibration and wanted.precision in QUANTISED else [])],
        settings={
            "model": wanted.model.name,
            "size": wanted.label,
            "precision": wanted.precision,
            "batch": str(wanted.batch),
            "mode": settings.sdk.mode,
            "source": source,
            "cards": sorted(settings.cards),
            "build_config": config,
            "precisions": dict(settings.precisions),
            "keep_float": list(settings.keep_float),
            "calibration": asdict(settings.calibration),
            **({"emulator": asdict(settings.emulator)} if emulated else {}),
        },
        tools=tools,
        facts=facts,
        emulated=emulated,
    )
    return facts


def _behind(calibration: Calibration) -> list[Path]:
    return [calibration.ranges, *([calibration.sensitivity] if calibration.sensitivity else [])]


def planned(
    network: onnx.ModelProto, settings: MagicmindSettings, calibration: Calibration | None, onnx_file: Path
) -> set[str]:
    """Return the nodes of an int8 file that stay in float16: `keep_float`, and the most sensitive ones.

    Raises:
        KilnError: an unknown node, no report where one is needed, or one of another ONNX file.
    """
    kept = kept_in_float(network, settings.keep_float)
    if not settings.keep_sensitive:
        return kept
    report = calibration.sensitivity if calibration else None
    if report is None:
        raise KilnError(
            "needs a report of sensitivities",
            file=settings.sdk.config_file,
            where="keep_sensitive",
            value=settings.keep_sensitive,
            hint="give --sensitivity, by facekiln quant sensitivity",
        )
    return kept | set(most_sensitive(report, settings.keep_sensitive, onnx_file))


def most_sensitive(path: Path, most: int, onnx_file: Path) -> list[str]:
    """Return the nodes that cost most alone, worst first, of what `facekiln quant sensitivity` wrote.

    Raises:
        KilnError: it is no such file, or of another ONNX file.
    """
    value = read_json(path)
    hint = "facekiln quant sensitivity --help"
    try:
        nodes = [str(row["node"]) for row in value["layers"] if row["op"]]
        measured = value["artifact_sha256"]
    except (KeyError, TypeError) as error:
        raise KilnError("is no report of sensitivities", file=path, hint=hint) from error
    check_measured_on(onnx_file, measured, path, hint)
    return nodes[:most]


def _by_emulator(
    sources: Sequence[Path],
    wanted: Wanted,
    settings: MagicmindSettings,
    config: dict[str, Any],
    output: Path,
    calibration: Calibration | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    network = load_onnx(sources[0])
    size, declared = wanted.model.size(wanted.label), wanted.model.input
    quantised = wanted.precision in QUANTISED
    method = getattr(settings.emulator, settings.calibration.algorithm)
    kept = planned(network, settings, calibration, sources[0]) if quantised else set()
    computed = emulate(
        network,
        wanted.precision,
        thresholds=_thresholds(calibration, sources[0], method) if quantised and calibration else None,
        keep_float=kept,
        precisions=settings.precisions,
        per_axis=settings.build.weight_quant_granularity == "per_axis",
        depthwise_per_axis=settings.emulator.depthwise_weights == "per_axis",
    )
    if settings.build.input == "uint8_nhwc":
        computed = insert_normalisation(computed, declared, size)
    told = {
        "name": wanted.name,
        "precision": wanted.precision,
        "batch": [wanted.batch.least, wanted.batch.most],
        "size": list(size),
        "input": settings.build.input,
        "outputs": list(wanted.model.outputs),
        "build_config": config,
        "mean": list(map(float, declared.mean)),
        "scale": list(map(float, declared.scale)),
    }
    made = EmulatedModel(told, computed.SerializeToString(deterministic=True))
    facts: dict[str, Any] = {"method": method if quantised else None, "float_nodes": sorted(kept)}
    if quantised and calibration:
        facts["gate"] = _look(sources[0], made, calibration, wanted, settings, output)
    write_emulated(output, made)
    return {**facts, "bytes": output.stat().st_size}, tool_versions("numpy", "onnx", "onnxruntime")


def _thresholds(calibration: Calibration, onnx_file: Path, method: str) -> Mapping[str, float]:
    ranges = ranges_of_onnx(calibration.ranges, onnx_file)
    return {one.name: ranges.threshold(one.name, method) for one in ranges}


def _look(
    onnx_file: Path,
    made: EmulatedModel,
    calibration: Calibration,
    wanted: Wanted,
    settings: MagicmindSettings,
    output: Path,
) -> dict[str, Any]:
    """Look whether an int8 model still sees what the float one does, on its own calibration pictures."""
    from facekiln.quant.run import Session

    session, runtime = (
        Session(load_onnx(onnx_file)),
        MagicmindRuntime(EmulatedModel({**made.told, "batch": [1, 1]}, made.onnx)),
    )
    declared = wanted.model.input

    def computed(feed: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        return runtime.run(to_card(feed, declared.mean, declared.scale) if _takes_pictures(made) else feed)

    real: Run = lambda feed: session.run({declared.name: feed})  # noqa: E731
    feeds = [
        calibration.pictures[place] for place in range(min(settings.gate.pictures, len(calibration.pictures)))
    ]
    sight = measure_sight(real, computed, feeds, wanted.model, wanted.model.size(wanted.label))
    judge_sight(sight, settings.gate, str(output), _HINT)
    return sight


def _takes_pictures(made: EmulatedModel) -> bool:
    return bool(made.told["input"] == "uint8_nhwc")


def to_card(tensor: NDArray[np.float32], mean: Sequence[float], scale: Sequence[float]) -> NDArray[np.uint8]:
    """Return what the card is fed for a normalised tensor [B, 3, H, W]: uint8 [B, H, W, 3], 0..255.

    It undoes (x - mean) * scale, and rounds: pictures are whole numbers.
    """
    shape = (1, 3, 1, 1)
    raw = tensor / np.array(scale, np.float32).reshape(shape) + np.array(mean, np.float32).reshape(shape)
    return np.ascontiguousarray(np.clip(np.rint(raw), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def _by_sdk(
    sources: Sequence[Path],
    wanted: Wanted,
    settings: MagicmindSettings,
    config: dict[str, Any],
    output: Path,
    calibration: Calibration | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    size, batch = wanted.model.size(wanted.label), wanted.batch
    with tempfile.TemporaryDirectory(prefix="facekiln_magicmind_") as place:
        folder = Path(place) / "job"
        folder.mkdir()
        write_job(folder, _job(sources, wanted, settings, config, Path(place), calibration))
        log.info(
            "MagicMind    %s, %s, batch %s, by %s", wanted.name, wanted.precision, batch, settings.sdk.mode
        )
        told = run_job(folder, settings.sdk, settings.sdk.python, settings.sdk.docker_network)
        _check_inputs(told, size, batch, settings, output)
        with atomic_path(output) as part:
            shutil.copyfile(folder / OUTPUT, part)
    facts = {key: told[key] for key in ("inputs", "outputs", "samples", "precisions", "bytes")}
    versions = {"magicmind": told["sdk"], "magicmind_python": told["python"], "driver": str(driver.VERSION)}
    return facts, {**tool_versions("numpy", "onnx"), **versions}


def _job(
    sources: Sequence[Path],
    wanted: Wanted,
    settings: MagicmindSettings,
    config: dict[str, Any],
    scratch: Path,
    calibration: Calibration | None,
) -> Job:
    batch, size = wanted.batch, wanted.model.size(wanted.label)
    files = list(sources[1:])
    if settings.source == "onnx":
        files = [scratch / "network.onnx"]
        network = load_onnx(sources[0])
        if batch.mutable:
            network = free_batch(network)
        else:
            network, _ = fixed_batch(network, batch.most, "MAGICMIND-BATCH")
        save_onnx(network, files[0])
    dims: list[int] | None = shape_of(size, batch.most)
    if batch.mutable:
        dims = shape_of(size, -1) if settings.build.mutable_dims == "minus_one" else None
    samples = None
    if wanted.precision in QUANTISED and calibration is not None:
        samples = np.concatenate(list(calibration.pictures))
        if settings.calibration.samples == "raw":
            declared = wanted.model.input
            samples = to_card(samples, declared.mean, declared.scale).transpose(0, 3, 1, 2).astype(np.float32)
    precisions, places = dict(settings.precisions), dict[str, int]()
    if samples is not None:
        plain = load_onnx(sources[0])
        kept = planned(plain, settings, calibration, sources[0])
        # The SDK's parsers may name nodes their own way; the first two stand first in every form.
        places = {name: place for place, name in enumerate(stem_and_heads(plain)[0])}
        precisions = {**dict.fromkeys(sorted(kept), "FLOAT16"), **precisions}
    return Job(
        name=wanted.name,
        kind=settings.source,
        files=files,
        dims=dims,
        build_config=config,
        samples=samples,
        algorithm=settings.calibration.algorithm,
        batch=settings.calibration.batch,
        device=settings.sdk.device,
        remote=settings.sdk.remote,
        precisions=precisions,
        places=places,
    )


def _check_inputs(
    told: Mapping[str, Any], size: tuple[int, int], batch: Batch, settings: MagicmindSettings, output: Path
) -> None:
    """Refuse a built model that takes another input than was asked for: layouts go wrong without an error."""
    nhwc = settings.build.input == "uint8_nhwc"
    first = -1 if batch.mutable else batch.most
    expected = [first, *size, 3] if nhwc else [first, 3, *size]
    one: Mapping[str, Any] = told["inputs"][0] if len(told["inputs"]) == 1 else {"shape": None, "dtype": ""}
    # Releases may spell a type their own way; the other of the two that can be asked for is told by its name.
    other = "FLOAT" if nhwc else "UINT8"
    if one["shape"] != expected or other in one["dtype"].upper():
        raise KilnError(
            "the SDK built a model of another input",
            file=output,
            value=told["inputs"],
            limit=f"{'UINT8' if nhwc else 'FLOAT32'} {expected}",
            hint="see build.input and build.mutable_dims of config/chips/magicmind.yaml",
        )
