"""A small writer of ONNX graphs, for onnxruntime to execute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# The first with 16-bit QuantizeLinear.
_OPSET = 21
_IR_VERSION = 10


class OnnxGraph:
    """Nodes and constants; names are made up here, callers pass them on."""

    def __init__(self) -> None:
        """Start an empty graph."""
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs: dict[str, Sequence[int]] = {}
        self._cache: dict[tuple[Any, ...], str] = {}
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def input(self, name: str, shape: Sequence[int]) -> str:
        """Declare a float32 input (once) and return its name."""
        self._inputs[name] = shape
        return name

    @property
    def input_names(self) -> list[str]:
        """The declared inputs."""
        return list(self._inputs)

    def nodes(self, op: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs and return their names."""
        from onnx import helper

        outputs = [self._name() for _ in range(count)]
        self._nodes.append(helper.make_node(op, list(inputs), outputs, **attributes))
        return outputs

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        return self.nodes(op, inputs, 1, **attributes)[0]

    def constant(self, value: ArrayLike, dtype: Any = np.float32, key: tuple[Any, ...] | None = None) -> str:
        """Add a constant and return its name; constants of one `key` are stored once."""
        from onnx import numpy_helper

        if key is not None and key in self._cache:
            return self._cache[key]
        name = self._name()
        self._constants[name] = numpy_helper.from_array(
            np.ascontiguousarray(value, dtype).reshape(np.shape(value)), name
        )
        if key is not None:
            self._cache[key] = name
        return name

    def constant_once(
        self, key: tuple[Any, ...], make: Callable[[], ArrayLike], dtype: Any = np.float32
    ) -> str:
        """Return the constant of a key, making it the first time."""
        return self._cache[key] if key in self._cache else self.constant(make(), dtype, key)

    def scalar(self, value: float) -> str:
        """Add a float32 scalar, or return the one that exists."""
        return self.constant(value, key=("scalar", float(value)))

    def ints(self, values: Sequence[int]) -> str:
        """Add an int64 vector, or return the one that exists."""
        return self.constant(list(values), np.int64, key=("ints", *values))

    def model(self, outputs: Mapping[str, str]) -> bytes:
        """Return the serialised model.

        Args:
            outputs: public name -> float32 value.
        """
        from onnx import TensorProto, helper

        ends = [helper.make_node("Identity", [value], [f"out:{name}"]) for name, value in outputs.items()]
        graph = helper.make_graph(
            [*self._nodes, *ends],
            "engine",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in self._inputs.items()],
            [helper.make_tensor_value_info(f"out:{name}", TensorProto.FLOAT, None) for name in outputs],
            list(self._constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = _IR_VERSION
        return bytes(model.SerializeToString())


class Session:
    """An onnxruntime session over an `OnnxGraph`: named arrays in, named arrays out."""

    def __init__(self, graph: OnnxGraph, outputs: Mapping[str, str], threads: int) -> None:
        """Compile the graph.

        Args:
            graph: the graph; it may be extended and compiled again with other outputs.
            outputs: public name -> value in the graph.
            threads: of the session's own pool, the caller's thread included.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Errors only: unused constants of the other outputs are no news.
        options.log_severity_level = 3
        # Waiting threads spin between two operations of a run, but too briefly to take a core from others.
        options.add_session_config_entry("session.intra_op.spin_duration_us", "200")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._names = list(outputs)
        self._session = ort.InferenceSession(
            graph.model(outputs), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [node.name for node in self._session.get_inputs()]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        """Run once; every declared input must be given."""
        results = self._session.run(None, {name: inputs[name] for name in self.inputs})
        return dict(zip(self._names, results, strict=True))
