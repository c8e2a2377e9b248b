"""The Caffe network under construction: what converters of single ops write to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.net import Layer, Net
from facekiln.errors import KilnError
from facekiln.graph.onnx_graph import Node, OnnxGraph
from facekiln.provenance import Edit

_SEPARATORS = re.compile(r"[^A-Za-z0-9]+")


def refuse(node: Node, what: str, **details: Any) -> KilnError:
    """Return the error that names an ONNX node."""
    return KilnError(what, where=node.where, **details)


class Emitter:
    """Takes layers and keeps the book of which blob holds which tensor.

    Attributes:
        graph: the legalised ONNX graph.
        net: the network so far.
        blob_of: ONNX tensor -> blob that holds its values (perhaps in another shape).
        tensor_of: blob -> ONNX tensor of the same values and shape.
        edits: what a rewrite changed.
        done: names of nodes that an earlier node's converter took care of.
    """

    def __init__(self, graph: OnnxGraph, name: str, blob_names: Mapping[str, str]) -> None:
        """Start a network.

        Args:
            graph: the legalised graph; its inputs become the network's.
            name: the network's name.
            blob_names: tensor -> the blob name that it must have (heads).
        """
        self.graph = graph
        self.net = Net(name, {tensor: list(graph.shapes[tensor]) for tensor in graph.inputs}, [])
        self.blob_of = {tensor: tensor for tensor in graph.inputs}
        self.tensor_of = {tensor: tensor for tensor in graph.inputs}
        self.edits: list[Edit] = []
        self.done: set[str] = set()
        self._wanted = dict(blob_names)
        self._taken = {*graph.inputs, *blob_names.values()}
        self._scopes = _leaf_scopes(graph)

    def shape(self, tensor: str) -> list[int]:
        """Return a tensor's shape."""
        return list(self.graph.shapes[tensor])

    def constant(self, tensor: str) -> NDArray[np.float32] | None:
        """Return a stored tensor as float32, None for one that is computed."""
        value = self.graph.constants.get(tensor)
        return None if value is None else np.asarray(value, np.float32)

    def weights(self, node: Node, place: int, what: str) -> NDArray[np.float32]:
        """Return a node's input that must be stored.

        Raises:
            KilnError: it is computed or missing.
        """
        name = node.inputs[place] if place < len(node.inputs) else ""
        value = self.constant(name)
        if value is None:
            raise refuse(
                node, f"its {what} must be stored in the file, not computed", value=name or "missing"
            )
        return value

    def emit(
        self,
        node: Node,
        layer_type: str,
        params: Mapping[str, Any] | None = None,
        blobs: Sequence[NDArray[np.float32]] = (),
        bottoms: Sequence[str] | None = None,
    ) -> str:
        """Append the layer that makes a node's first output, and return its blob.

        Args:
            node: the ONNX node.
            layer_type: Caffe's type.
            params: of its `*_param`.
            blobs: weights.
            bottoms: blobs that it reads; None: those of the node's computed inputs.
        """
        tensor = node.outputs[0]
        name = self._wanted.get(tensor) or self.unused(self._name(node))
        read = self.bottoms(node) if bottoms is None else list(bottoms)
        self._append(name, layer_type, read, [name], params, blobs)
        self.blob_of[tensor] = name
        self.tensor_of[name] = tensor
        return name

    def emit_inner(
        self,
        node: Node,
        suffix: str,
        layer_type: str,
        params: Mapping[str, Any],
        bottoms: Sequence[str],
        blobs: Sequence[NDArray[np.float32]] = (),
    ) -> str:
        """Append a layer that stands for no ONNX tensor of its own (part of a rewrite); return its blob."""
        name = self.unused(f"{self._wanted.get(node.outputs[0]) or self._name(node)}_{suffix}")
        self._append(name, layer_type, list(bottoms), [name], params, blobs)
        return name

    def emit_many(
        self, node: Node, layer_type: str, params: Mapping[str, Any], tensors: Sequence[str]
    ) -> None:
        """Append a layer with several tops, one per tensor."""
        name = self.unused(self._name(node))
        tops = [
            self._wanted.get(tensor) or self.unused(f"{name}_{place}") for place, tensor in enumerate(tensors)
        ]
        self._append(name, layer_type, self.bottoms(node), tops, params, ())
        self.blob_of.update(zip(tensors, tops, strict=True))
        self.tensor_of.update(zip(tops, tensors, strict=True))

    def pass_on(self, node: Node) -> None:
        """Let a node's output be its first input's blob, for readers that see no difference."""
        self.blob_of[node.outputs[0]] = self.bottoms(node)[0]

    def bottoms(self, node: Node) -> list[str]:
        """Return the blobs of a node's computed inputs."""
        return [self.blob_of[name] for name in node.inputs if name and name not in self.graph.constants]

    def edit(self, rule: str, node: Node, change: str, reason: str, limit: str = "") -> None:
        """Record a rewrite."""
        self.edits.append(Edit(rule=rule, target=node.name, change=change, reason=reason, limit=limit))

    def _append(
        self,
        name: str,
        layer_type: str,
        bottoms: list[str],
        tops: list[str],
        params: Mapping[str, Any] | None,
        blobs: Sequence[NDArray[np.float32]],
    ) -> None:
        stored = [np.asarray(blob, np.float32, order="C") for blob in blobs]
        self.net.layers.append(Layer(name, layer_type, bottoms, tops, dict(params or {}), stored))

    def unused(self, name: str) -> str:
        """Take `name`, with a number where it is taken already."""
        free, number = name, 1
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free

    def _name(self, node: Node) -> str:
        """Return a readable name: the module's path, the weight's name, or op and tensor."""
        scope, _, last = node.name.rpartition("/")
        if scope:
            path = _module_path(scope)
            return path if scope in self._scopes else f"{path}_{_clean(last)}".lower()
        weight = next((name for name in node.inputs[1:] if name.endswith(".weight")), "")
        if weight:
            return _clean(weight.removesuffix(".weight"))
        if ":" not in node.name:
            return _clean(node.name)
        return f"{node.op.lower()}_{_clean(node.outputs[0])}"


def _clean(name: str) -> str:
    return _SEPARATORS.sub("_", name).strip("_") or "layer"


def _module_path(scope: str) -> str:
    """`/body/stage1/stage1.0/stage1.0.0` -> `body_stage1_0_0`: an exporter repeats a Sequential's path."""
    parts: list[str] = []
    for part in scope.strip("/").split("/"):
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return _clean("_".join(parts))


def _leaf_scopes(graph: OnnxGraph) -> set[str]:
    """Scopes that hold one node and no other scope: modules, whose name alone says which node is meant."""
    scopes = [node.name.rpartition("/")[0] for node in graph.nodes]
    inside = {scope[:place] for scope in scopes for place in range(len(scope)) if scope[place] == "/"}
    return {scope for scope in scopes if scope and scopes.count(scope) == 1 and scope not in inside}
