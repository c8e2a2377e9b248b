"""Make an fp32 tmfile on disk from ONNX, with a record of what was done."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from facekiln.artifact import write_bytes
from facekiln.chips.tengine.convert import convert
from facekiln.chips.tengine.format import TmGraph
from facekiln.chips.tengine.inspect import describe_graph
from facekiln.chips.tengine.outputs import check_size, ordered, rename, roles_of
from facekiln.chips.tengine.reader import parse_tmfile
from facekiln.chips.tengine.settings import TengineSettings
from facekiln.chips.tengine.validate import Finding, validate
from facekiln.chips.tengine.writer import tmfile_bytes
from facekiln.chips.vendor_tool import run_tool
from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.graph.export import load_onnx
from facekiln.provenance import Edit, tool_versions, write_record


@dataclass(frozen=True)
class Built:
    """A finished file: its graph, its bytes' number, the edits, and what the validator warns of."""

    graph: TmGraph
    bytes: int
    edits: list[Edit]
    warnings: list[Finding]
    figures: dict[str, Any]


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _check_input(graph: onnx.GraphProto, model: Model, label: str, file: Path) -> None:
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: _shape(value) for value in graph.input if value.name not in stored}
    declared = {model.input.name: [1, 3, *model.size(label)]}
    if inputs != declared:
        raise KilnError(
            f"its input is not that of {model.name}_{label}",
            file=file,
            value=inputs,
            limit=declared,
            hint="was it exported for another size?",
        )


def checked(data: bytes, file: Path | str) -> tuple[TmGraph, list[Finding]]:
    """Return the graph of the bytes as they will be read, and its warnings.

    Raises:
        KilnError: they are damaged, or break a rule of Tengine's.
    """
    graph = parse_tmfile(data, file)
    findings = validate(graph)
    if broken := [finding for finding in findings if finding.level == "error"]:
        raise KilnError("breaks Tengine's rules: " + broken[0].sentence(), file=file)
    return graph, findings


def convert_file(source: Path, model: Model, label: str, settings: TengineSettings, output: Path) -> Built:
    """Convert a simplified ONNX file to an fp32 tmfile and write it with its record.

    Raises:
        KilnError: the file is not of this model and size, holds what Tengine cannot compute, or the user's
            convert_tool failed; nothing is written then.
    """
    proto = load_onnx(source)
    _check_input(proto.graph, model, label, source)
    roles = roles_of(model, {value.name: _shape(value) for value in proto.graph.output})
    consumer = settings.consumers[settings.consumer]
    check_size(model.size(label), settings.consumer, consumer)
    order = ordered(model, roles, consumer)
    edits: list[Edit] = []
    if settings.tools.mode == "builtin":
        try:
            done = convert(proto, outputs=order, op_version=settings.op_version, name=f"{model.name}_{label}")
        except KilnError as error:
            raise KilnError(str(error), file=source) from error
        edits, graph = done.edits, done.graph
        names = rename(graph, roles, consumer)
        data = tmfile_bytes(graph)
    else:
        data = _by_convert_tool(proto, order, settings)
        names = _names_by_place(parse_tmfile(data, "convert_tool"), order)
    graph, warnings = checked(data, output)
    write_bytes(output, data)
    write_record(
        output,
        verb="tengine convert",
        inputs=[source],
        settings={
            "model": model.name,
            "size": list(model.size(label)),
            "generation": settings.generation,
            "op_version": settings.op_version,
            "consumer": settings.consumer,
            "mode": settings.tools.mode,
        },
        tools=tool_versions("numpy", "onnx"),
        edits=edits,
        facts={"outputs": names, **facts_of(graph), "warnings": [item.sentence() for item in warnings]},
    )
    return Built(graph, len(data), edits, warnings, {})


def facts_of(graph: TmGraph) -> dict[str, Any]:
    """Return what a record tells of a file."""
    said = describe_graph(graph)
    return {key: said[key] for key in ("precision", "run_mode", "nodes", "ops")}


def _names_by_place(graph: TmGraph, order: list[str]) -> dict[str, str]:
    """Return the model's output names by the file's: convert_tool loses names, but keeps the order."""
    found = [tensor.name or "" for tensor in graph.output_tensors()]
    if len(found) != len(order):
        raise KilnError("convert_tool's file has another number of outputs", value=found, limit=order)
    return dict(zip(found, order, strict=True))


def _by_convert_tool(proto: onnx.ModelProto, order: list[str], settings: TengineSettings) -> bytes:
    values = {value.name: value for value in proto.graph.output}
    asked = onnx.ModelProto()
    asked.CopyFrom(proto)
    del asked.graph.output[:]
    asked.graph.output.extend(values[name] for name in order)
    with tempfile.TemporaryDirectory(prefix="facekiln-tengine-") as name:
        folder = Path(name)
        (folder / "in.onnx").write_bytes(asked.SerializeToString())
        arguments = ["-f", "onnx", "-m", "in.onnx", "-o", "out.tmfile"]
        printed = run_tool(settings.tools, settings.tools.convert, arguments, folder, key="tools.convert")
        return written(folder / "out.tmfile", printed, "convert_tool")


def written(path: Path, printed: str, tool: str) -> bytes:
    """Return what a tool wrote; its exit status of 0 alone proves nothing.

    Raises:
        KilnError: it wrote nothing; the message has the last lines that it printed.
    """
    if not path.is_file():
        last = [line for line in printed.splitlines() if line.strip()][-3:]
        raise KilnError(f"{tool} wrote no file: {' | '.join(last)}", file=path.name)
    return path.read_bytes()
