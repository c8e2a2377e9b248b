"""Torch -> TorchScript and ONNX: fixed input, named outputs, a declared opset, the same bytes every time."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx

from facekiln.artifact import read_bytes, write_bytes
from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.unreadable import foreign_hint

if TYPE_CHECKING:
    import torch


def _example(model: Model, label: str) -> torch.Tensor:
    import torch

    height, width = model.size(label)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, height, width, generator=generator) * 255 - 110


def trace_torchscript(network: torch.nn.Module, model: Model, label: str) -> bytes:
    """Trace the network at one size and return the TorchScript archive's bytes."""
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        # torch calls TorchScript deprecated; vendor compilers still read nothing newer.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network.eval(), _example(model, label), check_trace=False)
        stream = io.BytesIO()
        torch.jit.save(traced, stream)
    return _without_debug_files(stream.getvalue())


def _without_debug_files(archive: bytes) -> bytes:
    """Drop source positions from a TorchScript archive: they hold folders, and nothing needs them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            # The serialization id hashes the files that were dropped.
            if not name.endswith((".debug_pkl", "/.data/serialization_id")):
                new.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), old.read(name))
    return stream.getvalue()


def export_onnx(network: torch.nn.Module, model: Model, label: str, opset: int) -> onnx.ModelProto:
    """Export the network at one size.

    Returns:
        A checked ONNX model: input `model.input.name` float32 [1, 3, H, W], outputs named `model.outputs`.

    Raises:
        KilnError: the exporter cannot express the network at this opset, or the outputs are not as declared.
    """
    import torch

    stream = io.BytesIO()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The graph of the tracing exporter is what Caffe-generation tools can follow; the newer one
            # needs opset 18.
            torch.onnx.export(
                network.eval(),
                (_example(model, label),),
                cast(Any, stream),  # a stream is taken, though the annotation has only paths
                input_names=[model.input.name],
                output_names=list(model.outputs),
                opset_version=opset,
                do_constant_folding=True,
                dynamo=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise KilnError(
            f"cannot be exported at opset {opset}: {error}",
            file=f"model '{model.name}'",
            hint="raise `opset.max` of the chip that sets it (config/chips/*.yaml)",
        ) from error
    exported = onnx.load_from_string(stream.getvalue())
    # The exporter writes its own version here, and nothing of ours.
    exported.doc_string = ""
    onnx.checker.check_model(exported)
    names = [output.name for output in exported.graph.output]
    if names != list(model.outputs):
        raise KilnError(
            "the network's outputs are not those declared",
            file=f"config/models/{model.name}.yaml",
            where="outputs",
            value=list(model.outputs),
            limit=f"{len(names)} outputs",
        )
    return exported


def save_onnx(model: onnx.ModelProto, path: Path | str) -> None:
    """Write an ONNX model atomically, with deterministic bytes."""
    write_bytes(path, model.SerializeToString(deterministic=True))


def _refuse_external(model: onnx.ModelProto, path: Path | str) -> None:
    """Refuse weights in a file of their own: one file is what has a hash, is sent and is recorded."""
    constants = [attribute.t for node in model.graph.node for attribute in node.attribute]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            named = {entry.key: entry.value for entry in tensor.external_data}
            raise KilnError(
                "keeps its weights in another file, which facekiln does not read",
                file=path,
                where=f"tensor {tensor.name}",
                value=named.get("location"),
                hint='put them into one, with that file beside it: python -c "import onnx; '
                "onnx.save(onnx.load('IN.onnx'), 'OUT.onnx')\"",
            )


def load_onnx(path: Path | str) -> onnx.ModelProto:
    """Read and check an ONNX model.

    Raises:
        KilnError: missing, truncated, not ONNX, not valid, or with weights in another file.
    """
    data = read_bytes(path)
    if data[:64].lstrip()[:1] == b"<":
        raise KilnError(
            "is a web page or XML, not an ONNX model",
            file=path,
            hint="download the raw file, and check its sha256",
        )
    try:
        model = onnx.load_from_string(data)
        _refuse_external(model, path)
        onnx.checker.check_model(model)
    except KilnError:
        raise
    except Exception as error:  # protobuf and the checker raise unrelated types
        raise KilnError(
            f"is not a valid ONNX model: {_first_line(error)}", file=path, hint=foreign_hint(data)
        ) from error
    return model


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def census(model: onnx.ModelProto) -> dict[str, int]:
    """Count the nodes of each op type, in alphabetical order."""
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))


def shapes(model: onnx.ModelProto) -> dict[str, list[Any]]:
    """Return the shapes of the graph's inputs and outputs by name; a symbolic dimension is its name.

    Weights that old files list among the inputs are left out.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
        if value.name not in stored
    }
