"""An ONNX file becomes a `.param` and `.bin` on disk, proved in ncnn; and fp16 storage of the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from facekiln.chips.ncnn import pnnx
from facekiln.chips.ncnn.header import header_of, write_header
from facekiln.chips.ncnn.legalise import declare_blobs, fuse_relu_behind_concat
from facekiln.chips.ncnn.match import tensor_of_blob
from facekiln.chips.ncnn.model import NcnnModel, bin_of, read_model, write_model
from facekiln.chips.ncnn.runtime import NcnnNet
from facekiln.chips.ncnn.settings import NcnnSettings
from facekiln.chips.ncnn.weights import as_fp16
from facekiln.config import Model
from facekiln.errors import GateError, KilnError
from facekiln.parity.measure import Measure, measure
from facekiln.provenance import Edit, read_record, tool_versions, write_record

# Of the output's scale, on noise: float32 sums in another order stay a hundred times below.
_MOST_ERROR = 1e-4
_SEED = 7


def facts_of(model: NcnnModel, param: Path) -> dict[str, Any]:
    """Return what a sidecar tells of a model."""
    graph = model.graph
    return {
        "storage": model.storage(),
        "layers": len(graph.layers),
        "blobs": len(graph.blobs()),
        "inputs": graph.inputs(),
        "outputs": graph.outputs(),
        "bin_bytes": bin_of(param).stat().st_size,
    }


def convert_file(
    onnx_file: Path, model: Model, label: str, settings: NcnnSettings, output: Path
) -> tuple[NcnnModel, list[Edit], dict[str, Measure]]:
    """Convert a simplified ONNX file, prove the result in ncnn, and write it with its ids and record.

    Args:
        onnx_file: with the model's declared input and outputs.
        model, label: whose names and size the file must have.
        settings: the time limit and the threads.
        output: the `.param`; `.bin` and `.id.h` go beside it.

    Returns:
        The model, what was changed in pnnx's graph, and per output its difference from ONNX Runtime on noise.

    Raises:
        KilnError: a wheel is missing, pnnx fails, or the ONNX is not the model's.
        GateError: ncnn computes something else than ONNX Runtime. Nothing is written then.
    """
    from facekiln.graph.export import load_onnx
    from facekiln.quant.run import Session

    bin_of(output)
    network = load_onnx(onnx_file)
    session = Session(network)
    height, width = model.size(label)
    shape = [dim.dim_value for dim in network.graph.input[0].type.tensor_type.shape.dim]
    if session.inputs != [model.input.name] or shape != [1, 3, height, width]:
        raise KilnError(
            "has another input than the model declares",
            file=onnx_file,
            value=f"{session.inputs} {shape}",
            limit=f"{model.input.name} [1, 3, {height}, {width}]",
        )
    if sorted(session.outputs) != sorted(model.outputs):
        raise KilnError(
            "has other outputs than the model declares",
            file=onnx_file,
            value=session.outputs,
            limit=list(model.outputs),
        )
    raw = pnnx.convert(onnx_file, settings.pnnx_timeout_minutes * 60)
    graph, edits = declare_blobs(raw.graph, session.inputs, session.outputs, model.outputs)
    graph, fused = fuse_relu_behind_concat(graph)
    made = NcnnModel(graph, raw.weights)
    feeds = {model.input.name: np.random.default_rng(_SEED).standard_normal(shape).astype(np.float32)}
    expected = session.run(feeds)
    with tempfile.TemporaryDirectory(prefix="facekiln_ncnn_") as folder:
        trial = Path(folder) / "net.param"
        write_model(trial, made)
        found = NcnnNet(trial, threads=settings.threads).run(feeds)
    proof = {name: measure(expected[name], found[name][None]) for name in model.outputs}
    for name, figures in proof.items():
        if not figures.max_rel <= _MOST_ERROR:
            raise GateError(
                f"ncnn computes another '{name}' than ONNX Runtime",
                file=onnx_file,
                value=figures.max_rel,
                limit=f"{_MOST_ERROR:g} of its scale",
                hint="another release of pnnx and ncnn may convert it: facekiln doctor names yours",
            )
    write_model(output, made)
    header = write_header(output, header_of(graph, output))
    write_record(
        [output, bin_of(output), header],
        verb="ncnn convert",
        inputs=[onnx_file],
        settings={"model": model.name, "size": label},
        tools=tool_versions("ncnn", "pnnx", "onnxruntime"),
        edits=[*edits, *fused],
        facts={
            **facts_of(made, output),
            "tensor_of_blob": tensor_of_blob(made, network),
            "proof_on_noise": {name: figures.as_dict() for name, figures in proof.items()},
        },
    )
    return made, [*edits, *fused], proof


def store_fp16_file(source: Path, output: Path) -> NcnnModel:
    """Write a model with its weights stored as float16: half the size, computed in what the device chooses.

    Args:
        source: the fp32 `.param`.
        output: the new one; `.bin` and `.id.h` go beside it.

    Raises:
        KilnError: the file is not fp32, is damaged, or a weight is beyond float16.
    """
    model = read_model(source)
    if model.storage() != "fp32":
        raise KilnError(
            "is not stored as fp32", file=source, value=model.storage(), hint="begin with the fp32 file"
        )
    made = NcnnModel(model.graph, as_fp16(model.weights))
    write_model(output, made)
    header = write_header(output, header_of(made.graph, output))
    record = read_record(source)
    write_record(
        [output, bin_of(output), header],
        verb="ncnn halve",
        inputs=[source, bin_of(source)],
        facts={
            **facts_of(made, output),
            "tensor_of_blob": record.facts.get("tensor_of_blob", {}) if record else {},
        },
    )
    return made
