"""Run an emulated MagicMind model in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from facekiln.chips.magicmind.container import EmulatedModel, read_emulated
from facekiln.errors import KilnError

Arrays = dict[str, NDArray[np.float32]]


class MagicmindRuntime:
    """An emulated model that runs.

    Attributes:
        told: what the file says of itself, see `EmulatedModel`.
    """

    def __init__(
        self, source: Path | str | EmulatedModel, *, threads: int = 2, intermediates: bool = False
    ) -> None:
        """Open it.

        Args:
            source: a file, or what one holds.
            threads: of ONNX Runtime.
            intermediates: `run` gives every float tensor, not the outputs only.

        Raises:
            KilnError: see `read_emulated`; the network inside is damaged.
        """
        import onnxruntime

        self._file = source if isinstance(source, (str, Path)) else "an emulated model"
        model = source if isinstance(source, EmulatedModel) else read_emulated(source)
        self.told = model.told
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Else pairs of casts and of QDQ become other kernels, whose rounding is not what is emulated.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            network = onnx.load_from_string(model.onnx)
            if intermediates:
                present = {value.name for value in network.graph.output}
                made = [name for node in network.graph.node for name in node.output if name not in present]
                network.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
            self._session = onnxruntime.InferenceSession(
                network.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise KilnError(
                f"is damaged: {str(error).splitlines()[0]}", file=self._file, hint="rebuild it with its rule"
            ) from error
        self._input = self._session.get_inputs()[0]
        self._names = [output.name for output in self._session.get_outputs()]

    @property
    def outputs(self) -> list[str]:
        """Their names, in the file's order."""
        return list(self._names)

    def run(self, batch: NDArray[np.generic]) -> Arrays:
        """Return the outputs by name, float32 [B, ...].

        Args:
            batch: uint8 [B, H, W, 3] in the model's colour order, 0..255, where the file's input is
                "uint8_nhwc"; else float32 [B, 3, H, W], normalised.

        Raises:
            KilnError: another type, shape or batch than the file is built for.
        """
        least, most = self.told["batch"]
        kind = np.uint8 if self.told["input"] == "uint8_nhwc" else np.float32
        sides = tuple(self._input.shape[1:])
        if batch.dtype != kind or batch.shape[1:] != sides or not least <= len(batch) <= most:
            span = str(least) if least == most else f"{least} to {most}"
            raise KilnError(
                "takes another input",
                file=self._file,
                value=f"{batch.dtype} {list(batch.shape)}",
                limit=f"{np.dtype(kind)} [{span}, {', '.join(map(str, sides))}]",
            )
        each = [self._session.run(self._names, {self._input.name: one[None]}) for one in batch]
        return {
            name: np.concatenate([values[place] for values in each]).astype(np.float32)
            for place, name in enumerate(self._names)
            if each[0][place].dtype.kind == "f"
        }
