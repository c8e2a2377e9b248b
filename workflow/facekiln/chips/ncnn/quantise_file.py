"""Make an int8 `.param` and `.bin` on disk from the fp32 ones, proved layer by layer in ncnn."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.ncnn.build_file import facts_of
from facekiln.chips.ncnn.header import header_of, write_header
from facekiln.chips.ncnn.match import thresholds_of
from facekiln.chips.ncnn.model import NcnnModel, bin_of, read_model, weighted, write_model
from facekiln.chips.ncnn.param import Graph
from facekiln.chips.ncnn.quantise import Quantised, quantise
from facekiln.chips.ncnn.runtime import NcnnNet
from facekiln.chips.ncnn.settings import NcnnSettings, QuantiseSettings
from facekiln.chips.ncnn.simulate import LayerProof, prove_int8
from facekiln.chips.ncnn.table import Table, make_table, read_table, write_table
from facekiln.config import Model, known
from facekiln.errors import GateError, KilnError
from facekiln.parity.sight import Run, judge_sight, measure_sight
from facekiln.progress import log
from facekiln.provenance import read_record, tool_versions, write_record
from facekiln.quant.nodes import last_weighted

_HINT = (
    "set quantise.method to mse or percentile, calibrate on more pictures, or name layers in"
    " quantise.keep_float; KL on few pictures does this"
)

HEADS, STEM = "heads", "stem"
_STEM_LAYERS = 2
# Steps beyond the half that rounding takes. Measured: up to 0.06 in depthwise layers, as factors of 11 bits
# would give at 127 steps, else 0.0001.
_MOST_STEPS = 0.1
_MOST_ERROR = 1e-3


@dataclass(frozen=True)
class Source:
    """Where scales come from: our ranges of an ONNX file, or a table of ours or ncnn2table's."""

    onnx: Path | None = None
    ranges: Path | None = None
    table: Path | None = None


@dataclass(frozen=True)
class Built:
    """What `quantise_file` made: the model, the proof of its layers, and the gate's figures."""

    quantised: Quantised
    proofs: list[LayerProof]
    sight: dict[str, Any]


def heads_of(graph: Graph) -> list[str]:
    """Return the layers that ncnn can compute in int8 and behind which no other such layer stands."""
    nodes = [(layer.name, layer.bottoms, layer.tops) for layer in graph.layers]
    return last_weighted(nodes, {layer.name for layer in graph.layers if weighted(layer)})


def kept_in_float(graph: Graph, keep: Sequence[str]) -> set[str]:
    """Return the layers that settings keep in float.

    Raises:
        KilnError: an unknown layer; the nearest is suggested.
    """
    names = [layer.name for layer in graph if weighted(layer)]
    kept: set[str] = set()
    for word in keep:
        if word == HEADS:
            kept.update(heads_of(graph))
        elif word == STEM:
            kept.update(names[:_STEM_LAYERS])
        else:
            kept.add(known(word, [*names, HEADS, STEM], "layer"))
    return kept


def scales_from(source: Source, model: NcnnModel, settings: QuantiseSettings) -> Table:
    """Return the table to quantise with (see `Source`).

    Raises:
        KilnError: neither a table nor ranges and ONNX are named, or they are not of this network.
    """
    if source.table is not None:
        table = read_table(source.table, model)
    elif source.onnx is not None and source.ranges is not None:
        from facekiln.graph.export import load_onnx
        from facekiln.quant.ranges import ranges_of_onnx

        ranges = ranges_of_onnx(source.ranges, source.onnx)
        thresholds = thresholds_of(model, load_onnx(source.onnx), ranges, settings.method)
        table = make_table(model, thresholds, settings.winograd_steps)
    else:
        raise KilnError("has no scales to quantise with", hint="give --table, or --onnx and --ranges")
    kept = kept_in_float(model.graph, settings.keep_float)
    return {name: scales for name, scales in table.items() if name not in kept}


def judge_proofs(proofs: Sequence[LayerProof], what: str) -> None:
    """Refuse a file whose int8 layers ncnn computes otherwise than its own scales say.

    Raises:
        GateError: one does; names the worst layer.
    """
    for proof in proofs:
        limit = _MOST_STEPS if proof.requantised else _MOST_ERROR
        if not proof.worst <= limit:
            raise GateError(
                "ncnn computes this int8 layer otherwise than its scales say",
                file=what,
                where=proof.layer,
                value=f"{proof.worst:g}",
                limit=f"{limit:g} {'steps more than rounding' if proof.requantised else 'of scale'}",
                hint="set quantise.winograd_steps to 31, or keep the layer in float",
            )


def quantise_file(
    source: Path,
    scales: Source,
    pictures: Sequence[NDArray[np.float32]],
    model: Model,
    label: str,
    settings: NcnnSettings,
    output: Path,
    *,
    table_out: Path | None = None,
) -> Built:
    """Quantise an fp32 file, prove in ncnn that it computes what its scales say and still sees, and write it.

    Args:
        source: the fp32 `.param`.
        scales: see `Source`.
        pictures: inputs of the calibration set, float32 [1, 3, H, W], for the proofs.
        model, label: whose faces.
        settings: how, and the gate.
        output: the int8 `.param`; `.bin` and `.id.h` go beside it.
        table_out: where the table goes; beside the output, `.table`, where None.

    Raises:
        KilnError: ncnn is missing, the file is not fp32, the scales are not its own, or the pictures are
            not of the network's size.
        GateError: ncnn computes something else than the scales say, or the file has gone blind. Nothing is
            written then.
    """
    bin_of(output)
    real = read_model(source)
    if real.storage() != "fp32":
        raise KilnError(
            "is not stored as fp32", file=source, value=real.storage(), hint="begin with the fp32 file"
        )
    feeds = [pictures[place] for place in range(min(settings.gate.pictures, len(pictures)))]
    if not feeds:
        raise KilnError("there is no picture to prove the file on")
    size = (1, 3, *model.size(label))
    if other := next((feed.shape for feed in feeds if feed.shape != size), None):
        # ncnn takes any size, and its Reshape gives as many rows as ever: the proofs would mean nothing.
        raise KilnError(
            "the calibration set has another size",
            file=source,
            value=list(other),
            limit=list(size),
            hint=f"facekiln calibration make --model {model.name} --size {label}",
        )
    table = scales_from(scales, real, settings.quantise)
    made = quantise(real, table, requantise=settings.quantise.requantise)
    with tempfile.TemporaryDirectory(prefix="facekiln_ncnn_") as folder:
        trial = Path(folder) / "net.param"
        write_model(trial, made.model)
        proofs = prove_int8(
            NcnnNet(trial, threads=settings.threads, keep_all=True), {real.graph.inputs()[0]: feeds[0]}
        )
        judge_proofs(proofs, str(output))
        sight = measure_sight(
            _runner(NcnnNet(source, threads=settings.threads)),
            _runner(NcnnNet(trial, threads=settings.threads)),
            feeds,
            model,
            model.size(label),
        )
    judge_sight(sight, settings.gate, str(output), _HINT)
    write_model(output, made.model)
    table_path = table_out or output.with_suffix(".table")
    write_table(table_path, table)
    header = write_header(output, header_of(made.model.graph, output))
    record = read_record(source)
    if made.floating:
        log.info("stay in float: %s", ", ".join(made.floating))
    write_record(
        [output, bin_of(output), table_path, header],
        verb="ncnn quantise",
        inputs=[
            source,
            bin_of(source),
            *(path for path in (scales.table, scales.onnx, scales.ranges) if path is not None),
        ],
        settings={
            "model": model.name,
            "size": label,
            "method": "table" if scales.table else settings.quantise.method,
            "winograd_steps": settings.quantise.winograd_steps,
            "requantise": settings.quantise.requantise,
            "keep_float": list(settings.quantise.keep_float),
        },
        tools=tool_versions("ncnn", "numpy", "onnx"),
        facts={
            **facts_of(made.model, output),
            "int8_layers": made.layers,
            "requantised_layers": made.requantised,
            "float_layers": list(made.floating),
            "proof": {
                "layers": len(proofs),
                "worst_steps": max((one.worst for one in proofs if one.requantised), default=0.0),
                "worst_of_scale": max((one.worst for one in proofs if not one.requantised), default=0.0),
            },
            "gate": sight,
            "tensor_of_blob": record.facts.get("tensor_of_blob", {}) if record else {},
        },
    )
    return Built(made, proofs, sight)


def _runner(net: NcnnNet) -> Run:
    """Return what gives a network's outputs by name with the batch in front: [1, N, values], [1, values]."""
    return lambda feed: {name: value[None] for name, value in net.run({net.inputs[0]: feed}).items()}
