"""Execute a tmfile in ONNX Runtime: the file itself, rebuilt by `rebuild`, with its own scales.

Not Tengine. How far it is from Tengine-Lite 1.5 on x86, measured: see docs/tengine.md, "Simulation".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.tengine.format import TmGraph
from facekiln.chips.tengine.reader import read_tmfile
from facekiln.chips.tengine.rebuild import to_onnx
from facekiln.errors import KilnError

Arrays = dict[str, NDArray[np.float32]]


class Simulation:
    """A tmfile that runs."""

    def __init__(
        self,
        source: TmGraph | Path | str,
        *,
        intermediates: bool = False,
        quantise: bool = True,
        threads: int = 2,
    ) -> None:
        """Build it.

        Args:
            source: a file, or a parsed one.
            intermediates: `run` gives every activation, not the outputs only.
            quantise: see `rebuild.to_onnx`.
            threads: of ONNX Runtime.

        Raises:
            KilnError: the file is damaged, or something in it is not simulated.
        """
        import onnxruntime

        self.graph = source if isinstance(source, TmGraph) else read_tmfile(source)
        if len(self.graph.inputs) != 1:
            raise KilnError("has not exactly one input", value=len(self.graph.inputs))
        model = to_onnx(self.graph, intermediates=intermediates, quantise=quantise)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Else quantised operators would be replaced by integer kernels, whose rounding is not Tengine's.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    @property
    def input(self) -> str:
        """The input's name."""
        return str(self.graph.input_tensors()[0].name)

    def run(self, values: NDArray[np.float32]) -> Arrays:
        """Return the outputs by name, real numbers, in the file's order.

        Args:
            values: float32, of the input's shape; real numbers, not codes.
        """
        return dict(zip(self._names, self._session.run(self._names, {self.input: values}), strict=True))
