"""From a quantised engine to an emulated .wk: nodes, report table, and a payload that `runtime` can run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facekiln.artifact import read_json
from facekiln.caffe.net import Net
from facekiln.caffe.writer import prototxt_text
from facekiln.chips.nnie.mapper.cfg import InputGroup, MapperConfig
from facekiln.chips.nnie.mapper.inputs import mean_of, scale_of
from facekiln.chips.nnie.mapper.quantise import Quantised
from facekiln.chips.nnie.wk import payload
from facekiln.chips.nnie.wk.container import (
    FLAGS_IMAGE,
    FLAGS_MAP,
    FLAGS_VECTOR,
    KIND_BGR,
    KIND_GRAY,
    KIND_MAP,
    KIND_RGB,
    KIND_VECTOR,
    Node,
)
from facekiln.chips.nnie.wk.memory import height_width_channels
from facekiln.chips.nnie.wk.report_table import report_records
from facekiln.chips.nnie.wk.write import build_emulated_wk, write_wk
from facekiln.provenance import read_record
from facekiln.vision.heads import heads_from_json, heads_to_json

FORMAT = 1


def _source(name: str, shape: list[int], group: InputGroup, order: str) -> Node:
    height, width, channels = height_width_channels(shape)
    if group.image_type == 0:
        vector = len(shape) != 4
        return Node(
            name,
            height,
            width,
            channels,
            KIND_VECTOR if vector else KIND_MAP,
            FLAGS_VECTOR if vector else FLAGS_MAP,
        )
    kind = KIND_GRAY if channels == 1 else {"RGB": KIND_RGB, "BGR": KIND_BGR}[order]
    return Node(name, height, width, channels, kind, FLAGS_IMAGE)


def _output(name: str, shape: tuple[int, ...]) -> Node:
    height, width, channels = height_width_channels(shape)
    if len(shape) == 4:
        return Node(name, height, width, channels, KIND_MAP, FLAGS_MAP)
    return Node(name, height, width, channels, KIND_VECTOR, FLAGS_VECTOR)


def _input_entry(name: str, shape: list[int], group: InputGroup, config: MapperConfig) -> dict[str, Any]:
    mean = mean_of(group, shape)
    return {
        "name": name,
        "shape": shape,
        "image_type": group.image_type,
        "order": config.RGB_order,
        "mean": mean,
        "scale": scale_of(group, config),
    }


def _heads(config: MapperConfig) -> dict[str, Any] | None:
    path = Path(config.prototxt_file).with_suffix(".heads.json")
    return heads_to_json(heads_from_json(read_json(path))) if path.is_file() else None


def _original_names(config: MapperConfig) -> dict[str, str]:
    record = read_record(config.prototxt_file)
    return dict(record.facts.get("original_names", {})) if record else {}


def _facts(config: MapperConfig, quantised: Quantised) -> dict[str, Any]:
    widths = {operation.bits for operation in quantised.engine.plan.operations}
    return {
        "network": quantised.engine.plan.name,
        "bits": max(widths),
        "compile_mode": config.compile_mode,
        "is_simulation": config.is_simulation,
        "batch_num": config.batch_num,
        "calibration_pictures": quantised.pictures,
        "calibration_sha256": quantised.set_sha256,
        "reproducible": "same inputs, same bytes: no clock, no paths",
    }


def build_wk(path: Path, config: MapperConfig, net: Net, quantised: Quantised) -> None:
    """Write the emulated .wk; the same network, pictures and keys give the same bytes, whatever the paths.

    Raises:
        KilnError: the heads file beside the prototxt is damaged, or the .wk cannot be written.
    """
    engine = quantised.engine
    groups = list(zip(net.inputs.items(), config.inputs, strict=True))
    tree = {
        "format": FORMAT,
        "facts": _facts(config, quantised),
        "engine": engine.state(),
        "inputs": [_input_entry(name, shape, group, config) for (name, shape), group in groups],
        "heads": _heads(config),
        "original_names": _original_names(config),
        "prototxt": prototxt_text(net),
    }
    report, tmp_bytes = report_records(engine.plan, config.internal_stride)
    data = build_emulated_wk(
        [_source(name, shape, group, config.RGB_order) for (name, shape), group in groups],
        [_output(name, engine.plan.blobs[blob].shape) for name, blob in engine.plan.outputs.items()],
        payload.encode(tree),
        report,
        tmp_bytes=tmp_bytes,
        alignment=config.internal_stride,
        net_type=config.net_type,
    )
    write_wk(path, data)
