"""The quantised execution engine: runs a Caffe network with the NNIE's number formats.

Order of work per layer, as the mapper's own dumps name it: inputs and weights through GFPQ, the operation
and its bias, the activation, rounding to 1/4096 with saturation to int32; the next layer quantises that
result with the zero point of its blob. The quantiser is exact (see `gfpq`). What no public document states,
and what therefore may differ on a chip: the accumulators' width, activations by look-up table, the order of
activation and rounding, and what the mapper merges beyond BatchNorm and in-place activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.net import Net
from facekiln.chips.nnie.engine import gfpq
from facekiln.chips.nnie.engine.graph import HIGHEST, LOWEST, PlanGraph
from facekiln.chips.nnie.engine.lookup import ONE
from facekiln.chips.nnie.engine.onnx import Session
from facekiln.chips.nnie.engine.plan import FLOAT, WIDE, Plan, make_plan
from facekiln.chips.nnie.engine.state import plan_from, state_of
from facekiln.errors import KilnError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Operand:
    """A tensor as a layer reads it.

    Attributes:
        blob: its name; of weights, the layer's.
        bits: 8 or 16 (GFPQ), 32 (signed 20.12, or float weights).
        z: zero point; 0 where bits is 32.
        codes: uint8, uint16, int32 (20.12), or float32 (weights that are not quantised).
        values: what the codes stand for, float32.
    """

    blob: str
    bits: int
    z: int
    codes: NDArray[Any]
    values: Array


@dataclass(frozen=True)
class LayerTrace:
    """What a layer read and wrote; `weights` is None for a layer without, `outputs` is int32, 20.12."""

    inputs: tuple[Operand, ...]
    weights: Operand | None
    bias: Array | None
    outputs: tuple[NDArray[np.int32], ...]


class Trace:
    """Every blob of one run."""

    def __init__(self, plan: Plan, values: Mapping[tuple[str, int], Array]) -> None:
        """Keep the values.

        Args:
            plan: what was run.
            values: (blob, 0) in units of 1/4096 (of a float plan: as it is), (blob, bits) decoded.
        """
        self._plan = plan
        self._values = values

    def blob(self, name: str) -> Array:
        """Return a blob as it is stored: decoded from its codes, or 20.12 as float32.

        Raises:
            KilnError: no such blob.
        """
        if name not in self._plan.blobs:
            raise KilnError(f"there is no blob '{name}'", where=self._plan.name)
        width = self._plan.blobs[name].width
        if width != WIDE:
            return self._values[(name, 8 * width)]
        if not self._plan.rounded:
            return self._values[(name, 0)]
        return self.fixed(name).astype(np.float32) / np.float32(ONE)

    def blobs(self) -> dict[str, Array]:
        """Return every blob as it is stored."""
        return {name: self.blob(name) for name in self._plan.blobs}

    def fixed(self, name: str) -> NDArray[np.int32]:
        """Return a blob before it is quantised, as int32 in units of 1/4096.

        Raises:
            KilnError: no such blob, or a run in float.
        """
        if not self._plan.rounded or (name, 0) not in self._values:
            raise KilnError(f"there is no 20.12 form of '{name}' in this run", where=self._plan.name)
        return np.clip(self._values[(name, 0)], LOWEST, HIGHEST).astype(np.int32)

    def layer(self, name: str) -> LayerTrace:
        """Return what a layer read and wrote, for dumps like mapper_quant's.

        Raises:
            KilnError: no such operation, or a run in float.
        """
        operation = self._plan.operation(name)
        step = operation.step
        weights = None
        bias = step.blobs[1] if operation.codes is not None and len(step.blobs) > 1 else None
        if operation.codes is not None:
            weights = Operand(name, operation.bits, operation.z, operation.codes, step.blobs[0])
        return LayerTrace(
            tuple(self._operand(blob, self._plan.reading(operation, blob)) for blob in step.bottoms),
            weights,
            bias,
            tuple(self.fixed(top) for top in step.tops),
        )

    def _operand(self, blob: str, bits: int) -> Operand:
        if not bits:
            fixed = self.fixed(blob)
            return Operand(blob, FLOAT, 0, fixed, fixed.astype(np.float32) / np.float32(ONE))
        z, values = self._plan.blobs[blob].z[bits], self._values[(blob, bits)]
        return Operand(blob, bits, z, gfpq.encode(values, z, bits), values)


class Engine:
    """A network with its quantisation, ready to run. Results do not depend on the number of threads."""

    def __init__(
        self,
        net: Net,
        ranges: Mapping[str, float] | None = None,
        bits: int | Mapping[str, int] = 8,
        threads: int = 2,
    ) -> None:
        """Plan and compile a network.

        Args:
            net: with weights; it is fused here.
            ranges: largest magnitude of every blob of the fused network (`ranges.measure_ranges`).
            bits: 8, 16, or 32 for float32 without any rounding; or a mapping of the layers that are not 8
                bit (a 32 in it leaves that layer's weights and inputs alone).
            threads: how many work on one run.

        Raises:
            KilnError: a layer cannot be run, a range is missing, or a precision is unknown.
        """
        self._start(make_plan(net, ranges or {}, bits), threads)

    @classmethod
    def from_state(cls, state: Mapping[str, Any], threads: int = 2) -> Engine:
        """Rebuild an engine from `state()`, without the caffemodel; it gives the same bits.

        Raises:
            KilnError: the state is damaged or of another version.
        """
        engine = cls.__new__(cls)
        plan = plan_from(state)
        try:
            engine._start(plan, threads)
        except Exception as error:  # parts that do not fit together fail anywhere, onnxruntime included
            raise KilnError(
                f"the engine's state is damaged: {error!r}", where=plan.name, hint="map the network again"
            ) from error
        return engine

    def _start(self, plan: Plan, threads: int) -> None:
        self.plan = plan
        self._threads = threads
        graph = PlanGraph(plan, threads)
        self._session = Session(graph.graph, graph.outputs(), threads)
        self._tracing: tuple[Session, dict[str, tuple[str, int]]] | None = None

    def state(self) -> dict[str, Any]:
        """Return everything that `from_state` needs: dicts, lists, text, numbers and arrays.

        Weights are in it as codes; biases and slopes stay float32.
        """
        return state_of(self.plan)

    @property
    def inputs(self) -> dict[str, list[int]]:
        """Input blob -> [N, C, H, W]."""
        return {name: list(shape) for name, shape in self.plan.inputs.items()}

    @property
    def outputs(self) -> list[str]:
        """Reported names, in the order in which the network makes them."""
        return list(self.plan.outputs)

    def run(self, inputs: Mapping[str, Array], *, trace: bool = False) -> dict[str, Array]:
        """Run once.

        Args:
            inputs: every input blob, preprocessed ((x - mean) * scale), float32 in the declared shape.
            trace: return every blob as it is stored instead of the reported ones.

        Returns:
            Name -> float32 of the blob's shape; reported values are multiples of 1/4096.

        Raises:
            KilnError: an input is missing, of another shape, or not finite.
        """
        if trace:
            return self.trace(inputs).blobs()
        return self._session.run(self._feeds(inputs, self._session.inputs))

    def trace(self, inputs: Mapping[str, Array]) -> Trace:
        """Run once and keep every blob (about ten bytes of memory per element of every blob).

        Raises:
            KilnError: an input is missing, of another shape, or not finite.
        """
        if self._tracing is None:
            graph = PlanGraph(self.plan, self._threads)
            keys = graph.everything()
            names = {f"{blob}#{bits}": (blob, bits) for blob, bits in keys}
            values = {name: keys[key] for name, key in names.items()}
            self._tracing = Session(graph.graph, values, self._threads), names
        session, names = self._tracing
        results = session.run(self._feeds(inputs, session.inputs))
        return Trace(self.plan, {names[name]: value for name, value in results.items()})

    def _feeds(self, inputs: Mapping[str, Array], wanted: list[str]) -> dict[str, Array]:
        """Bring the inputs into the forms that the graph takes them in."""
        checked = {name: self._checked(name, inputs) for name in self.plan.inputs}
        feeds = {}
        for name in wanted:
            blob, _, form = name.rpartition("#")
            value = checked[blob]
            if form == "linear":
                value = np.clip(np.rint(value * np.float32(ONE)), LOWEST, HIGHEST).astype(np.float32)
            elif form != "float":
                bits = int(form)
                value = gfpq.quantise(value, self.plan.blobs[blob].z[bits], bits, self._threads)
            feeds[name] = value
        return feeds

    def _checked(self, name: str, inputs: Mapping[str, Array]) -> Array:
        if name not in inputs:
            raise KilnError(f"input '{name}' is missing", where=self.plan.name, value=sorted(inputs))
        value = np.ascontiguousarray(inputs[name], np.float32)
        if list(value.shape) != list(self.plan.inputs[name]):
            raise KilnError(
                f"input '{name}' has another shape than the network",
                where=self.plan.name,
                value=list(value.shape),
                limit=self.plan.inputs[name],
            )
        if not np.isfinite(value).all():
            raise KilnError(f"input '{name}' holds NaN or infinity", where=self.plan.name)
        return value
