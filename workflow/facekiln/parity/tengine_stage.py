"""A tmfile as a stage: simulated from the file itself, or in the user's own Tengine (`TENGINE_LIB`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.tengine import runtime
from facekiln.chips.tengine.reader import read_tmfile
from facekiln.chips.tengine.simulate import Simulation
from facekiln.config import Model
from facekiln.provenance import read_record
from facekiln.vision.preprocess import to_tensor

Picture = NDArray[np.uint8]
Arrays = dict[str, NDArray[np.float32]]


class TengineStage:
    """See `facekiln.parity.executors.Stage`; what runs in the real library is not emulated."""

    def __init__(self, path: Path, model: Model, *, real: bool) -> None:
        self._model, self._graph = model, read_tmfile(path)
        self._simulation: dict[bool, Simulation] = {}
        self._session = runtime.Session(path) if real else None
        self.name = "tengine-runtime" if real else "tengine-simulation"
        self.precision = "float" if self._graph.precision == "fp32" else "int8"
        self.emulated = not real
        record = read_record(path)
        self._names: Mapping[str, str] = record.facts.get("outputs", {}) if record else {}

    def run(self, picture: Picture) -> Arrays:
        """See `Stage.run`."""
        feed = to_tensor(picture, self._model.input)
        session = self._session or self._simulated(intermediates=False)
        outputs = session.run(feed)
        return {self._names.get(name, name): values for name, values in outputs.items()}

    @property
    def version(self) -> str | None:
        """What the library says of itself; None where the file is simulated."""
        return self._session.version if self._session else None

    def trace(self, picture: Picture) -> Arrays:
        """See `Stage.trace`; what is between comes from the simulation, as the runtime shows outputs only."""
        simulated = self._simulated(intermediates=True).run(to_tensor(picture, self._model.input))
        made = [place for node in self._graph.nodes for place in node.outputs]
        order = [self._graph.tensors[place].name or "" for place in made]
        traced = {self._names.get(name, name): simulated[name] for name in order if name in simulated}
        return {**traced, **self.run(picture)}

    def name_in_parent(self, tensor: str) -> str | None:
        """Tensors keep their ONNX names, outputs the model's."""
        return tensor

    def _simulated(self, *, intermediates: bool) -> Simulation:
        if intermediates not in self._simulation:
            self._simulation[intermediates] = Simulation(self._graph, intermediates=intermediates)
        return self._simulation[intermediates]
