"""Stages that run: one interface over torch, TorchScript, ONNX Runtime, Caffe readers and the NNIE emulator.

A stage takes a picture already at the network's size (uint8 BGR, [H, W, 3]); each prepares it as the model
declares, once, through `facekiln.vision.preprocess`. Outputs are the model's canonical ones by name, whatever
order or shape the stage has inside. `trace` gives the tensors on the way, for finding where two stages part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import read_json
from facekiln.config import Config, Model
from facekiln.errors import KilnError
from facekiln.provenance import read_record
from facekiln.vision.preprocess import to_tensor

if TYPE_CHECKING:
    import onnx
    from torch import nn

Picture = NDArray[np.uint8]
Arrays = dict[str, NDArray[np.float32]]


class Stage(Protocol):
    """One artifact that can be run.

    Attributes:
        name: what runs it, e.g. "onnxruntime".
        precision: "float", "int16" or "int8".
        emulated: no vendor tool made or runs it.
    """

    name: str
    precision: str
    emulated: bool

    def run(self, picture: Picture) -> Arrays:
        """Return the model's outputs by name, each float32 [1, N, values]."""

    def trace(self, picture: Picture) -> Arrays:
        """Return every tensor on the way, in execution order, by this stage's own names."""

    def name_in_parent(self, tensor: str, /) -> str | None:
        """Return the parent stage's name of one of this stage's tensors, None where it has none."""


@runtime_checkable
class BatchStage(Stage, Protocol):
    """A stage that runs several pictures at once, each in a place of its own.

    Attributes:
        batch: how many.
    """

    batch: int

    def run_batch(self, pictures: Sequence[Picture | None]) -> list[Arrays]:
        """Return the outputs of each picture that is not None; there are at most `batch`."""


def run_each(stage: Stage, pictures: Sequence[Picture]) -> Iterator[Arrays]:
    """Yield the outputs of each picture, in order, as many at once as the stage takes."""
    if isinstance(stage, BatchStage):
        for start in range(0, len(pictures), stage.batch):
            yield from stage.run_batch(pictures[start : start + stage.batch])
    else:
        yield from map(stage.run, pictures)


class TorchStage:
    """A checkpoint in our own network."""

    name, precision, emulated = "torch", "float", False

    def __init__(self, path: Path, model: Model, config: Config) -> None:
        from facekiln.models.checkpoint import load_network

        self._model = model
        self._network = load_network(path, model, config)

    def run(self, picture: Picture) -> Arrays:
        """See `Stage.run`."""
        return _run_torch(self._network, picture, self._model)

    def trace(self, picture: Picture) -> Arrays:
        """See `Stage.trace`; tensors are named by the path of the module that made them.

        A convolution has the value after its batch norm, as exporters fold the two into one node. A module
        that runs several times has no name of its own for each, and is left out.
        """
        from torch import nn

        traced: Arrays = {}
        calls: Counter[str] = Counter()
        last: tuple[str, Any] = ("", None)

        def keep(path: str) -> Any:
            def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
                nonlocal last
                calls[path] += 1
                traced[path] = output.numpy().copy()
                if isinstance(module, nn.BatchNorm2d) and inputs[0] is last[1]:
                    traced[last[0]] = traced[path]
                last = (path, output)

            return hook

        leaves = [(path, leaf) for path, leaf in self._network.named_modules() if not list(leaf.children())]
        handles = [leaf.register_forward_hook(keep(path)) for path, leaf in leaves]
        try:
            outputs = self.run(picture)
        finally:
            for handle in handles:
                handle.remove()
        return {**{path: value for path, value in traced.items() if calls[path] == 1}, **outputs}

    def name_in_parent(self, _tensor: str) -> str | None:
        """A checkpoint has no parent."""
        return None


def _run_torch(network: nn.Module, picture: Picture, model: Model) -> Arrays:
    import torch

    with torch.inference_mode():
        outputs = network(torch.from_numpy(to_tensor(picture, model.input)))
    return {name: value.numpy() for name, value in zip(model.outputs, outputs, strict=True)}


class TorchScriptStage:
    """A traced network."""

    name, precision, emulated = "torchscript", "float", False

    def __init__(self, path: Path, model: Model) -> None:
        import torch

        self._model = model
        try:
            self._network = torch.jit.load(str(path), map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise KilnError(
                "is not a TorchScript archive", file=path, hint="rebuild it with its rule"
            ) from error

    def run(self, picture: Picture) -> Arrays:
        """See `Stage.run`."""
        return _run_torch(self._network, picture, self._model)

    def trace(self, picture: Picture) -> Arrays:
        """A traced network shows its outputs only."""
        return self.run(picture)

    def name_in_parent(self, tensor: str) -> str | None:
        """Outputs have the model's own names."""
        return tensor


class OnnxStage:
    """An ONNX graph in ONNX Runtime."""

    name, precision, emulated = "onnxruntime", "float", False

    def __init__(self, path: Path, model: Model, *, parent_is_torch: bool) -> None:
        from facekiln.graph.export import load_onnx

        self._model = model
        self._graph = load_onnx(path)
        self._session = _session(self._graph)
        self._scopes = _module_paths(self._graph) if parent_is_torch else None

    def run(self, picture: Picture) -> Arrays:
        """See `Stage.run`."""
        return self._forward(self._session, picture)

    def trace(self, picture: Picture) -> Arrays:
        """See `Stage.trace`; tensors have their ONNX names."""
        import onnx

        whole = onnx.ModelProto()
        whole.CopyFrom(self._graph)
        present = {output.name for output in whole.graph.output}
        for node in whole.graph.node:
            for name in node.output:
                if name and name not in present:
                    whole.graph.output.append(onnx.ValueInfoProto(name=name))
        order = [name for node in whole.graph.node for name in node.output if name]
        values = self._forward(_session(whole), picture)
        return {name: values[name] for name in order if values[name].dtype == np.float32}

    def name_in_parent(self, tensor: str) -> str | None:
        """The module whose output it is (torch), or the same name (ONNX)."""
        if self._scopes is None or tensor in self._model.outputs:
            return tensor
        return self._scopes.get(tensor)

    def _forward(self, session: Any, picture: Picture) -> Arrays:
        tensor = to_tensor(picture, self._model.input)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {session.get_inputs()[0].name: tensor}), strict=True))


def _session(graph: onnx.ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _module_paths(graph: onnx.ModelProto) -> dict[str, str]:
    """Map tensor -> torch module path, from node names like `/body/stage1/stage1.0/stage1.0.2/LeakyRelu`."""
    paths: dict[str, str] = {}
    for node in graph.graph.node:
        if node.op_type not in ("Conv", "LeakyRelu", "Relu", "PRelu", "MaxPool", "AveragePool", "Gemm"):
            continue
        parts: list[str] = []
        for scope in node.name.strip("/").split("/")[:-1]:
            # Inside a Sequential the exporter repeats the parent: stage1/stage1.0 is the module stage1.0.
            if parts and scope.startswith(f"{parts[-1]}."):
                parts[-1] = scope
            else:
                parts.append(scope)
        paths[node.output[0]] = ".".join(parts)
    return paths


class CaffeStage:
    """A Caffe pair in a reader that we did not write: OpenCV, or MNN where it is installed."""

    precision, emulated = "float", False

    def __init__(self, path: Path, model: Model, reader: str = "opencv") -> None:
        from facekiln.caffe.mnn import MnnNet
        from facekiln.caffe.opencv import OpenCvNet
        from facekiln.caffe.reader import read_net
        from facekiln.vision.heads import heads_from_json

        self._model = model
        self.name = f"caffe-{reader}"
        net = read_net(path.with_suffix(".prototxt"), path)
        self._net = MnnNet(net) if reader == "mnn" else OpenCvNet(net)
        self._heads = heads_from_json(read_json(path.with_suffix(".heads.json")))
        record = read_record(path)
        self._tensor_of_blob: Mapping[str, str] = record.facts.get("tensor_of_blob", {}) if record else {}

    def run(self, picture: Picture) -> Arrays:
        """See `Stage.run`."""
        from facekiln.vision.heads import assemble

        return assemble(self._forward(picture, [head.blob for head in self._heads]), self._heads)

    def trace(self, picture: Picture) -> Arrays:
        """See `Stage.trace`; tensors have their blob names."""
        return self._forward(picture, None)

    def name_in_parent(self, tensor: str) -> str | None:
        """The ONNX tensor that the blob was converted from."""
        return self._tensor_of_blob.get(tensor)

    def _forward(self, picture: Picture, blobs: list[str] | None) -> Arrays:
        return self._net.run({self._model.input.name: to_tensor(picture, self._model.input)}, blobs)


class NnieStage:
    """An emulated `.wk`; one of the vendor's is refused, as only its chip runs it."""

    name = "nnie-emulator"

    def __init__(self, path: Path, model: Model) -> None:
        from facekiln.chips.nnie.runtime import WkRuntime

        self._runtime = WkRuntime(path)
        self.emulated = True
        self.precision = f"int{self._runtime.bits}"
        self._model = model

    def run(self, picture: Picture) -> Arrays:
        """See `Stage.run`."""
        from facekiln.vision.heads import assemble

        return assemble(self._runtime.run(picture), self._runtime.heads)

    def trace(self, picture: Picture) -> Arrays:
        """See `Stage.trace`; tensors have their blob names before legalisation where these are known."""
        return self._runtime.trace(picture)

    def name_in_parent(self, tensor: str) -> str | None:
        """The blob's name before the legaliser renamed it."""
        return self._runtime.original_names.get(tensor, tensor)


def open_stage(path: Path | str, model: Model, config: Config, *, reader: str = "opencv") -> Stage:
    """Open an artifact for running, by its ending.

    Args:
        path: a .pth, .pt, .onnx, .caffemodel (its .prototxt and .heads.json beside it), emulated .wk,
            emulated .mm, .tmfile, .param (its .bin beside it) or .bmodel.
        model: the model that it is of.
        config: for the register of published checkpoints.
        reader: for Caffe pairs: "opencv" or "mnn"; for tmfiles "runtime", else they are simulated;
            for bmodels "twin", else the C model.

    Raises:
        KilnError: the file is damaged, is of no kind that can be run here, or is not this model's.
    """
    path = Path(path)
    if not path.is_file():
        raise KilnError("does not exist", file=path, hint=f"build it: snakemake --cores 8 {path}")
    if path.suffix in (".pth", ".tar"):
        return TorchStage(path, model, config)
    if path.suffix == ".pt":
        return TorchScriptStage(path, model)
    if path.suffix == ".onnx":
        return OnnxStage(path, model, parent_is_torch=not path.name.endswith(".sim.onnx"))
    if path.suffix == ".caffemodel":
        return CaffeStage(path, model, reader)
    if path.suffix == ".wk":
        return NnieStage(path, model)
    if path.suffix == ".tmfile":
        from facekiln.parity.tengine_stage import TengineStage

        return TengineStage(path, model, real=reader == "runtime")
    if path.suffix == ".param":
        from facekiln.parity.ncnn_stage import NcnnStage

        return NcnnStage(path, model)
    if path.suffix == ".mm":
        from facekiln.parity.magicmind_stage import MagicmindStage

        return MagicmindStage(path, model)
    if path.suffix == ".bmodel":
        from facekiln.parity.sophon_stage import SophonStage

        return SophonStage(path, model, config, twin=reader == "twin")
    limit = ".pth .pt .onnx .caffemodel .wk .tmfile .param .mm .bmodel"
    raise KilnError("is of no kind that can be run here", file=path, limit=limit)
