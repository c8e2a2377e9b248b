"""A `.bmodel` as a stage: in the chip's C model, or as its quantised twin, which lies beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import sha256_of
from facekiln.chips.sophon.artifacts import artifact_of
from facekiln.chips.sophon.environment import environment_of
from facekiln.chips.sophon.outputs import meaning, onnx_name
from facekiln.chips.sophon.runtime import SophonRuntime
from facekiln.chips.sophon.runtime_files import TWIN_FILE
from facekiln.chips.sophon.settings import settings_from
from facekiln.config import Config, Model
from facekiln.errors import KilnError
from facekiln.provenance import Record, read_record
from facekiln.vision.preprocess import to_tensor

Picture = NDArray[np.uint8]
Arrays = dict[str, NDArray[np.float32]]
_AGAIN = "make the twin again: facekiln sophon twin --help"
_PRECISION = {"fp32": "float", "fp16": "float16", "int8": "int8"}


def twin_of(bmodel: Path) -> Path:
    """Return where the quantised model of a .bmodel lies."""
    return bmodel.with_suffix(".twin") / TWIN_FILE


def _lowered(record: Record) -> str | None:
    return record.facts.get("lowered_sha256")


def check_twin(bmodel: Path) -> None:
    """Check by the records that the twin beside a .bmodel is the quantised model that it was compiled from.

    A .bmodel that was compiled again by hand leaves the twin of the one before beside it, which runs as well.

    Raises:
        KilnError: it is another's, or one of the files is not what its record tells of.
    """
    twin = twin_of(bmodel)
    told, made = read_record(twin), read_record(bmodel)
    if told is None or made is None or _lowered(told) is None or _lowered(told) != _lowered(made):
        raise KilnError(
            "is not the quantised model that the .bmodel was compiled from",
            file=twin,
            limit=bmodel,
            hint=_AGAIN,
        )
    weights = twin.with_name("weights.npz")
    stated = {bmodel: made.sha256, twin: told.sha256, weights: told.facts.get("weights_sha256")}
    for path, sha256 in stated.items():
        if not path.is_file() or sha256_of(path) != sha256:
            raise KilnError("is not the file that its record tells of", file=path, hint=_AGAIN)


class SophonStage:
    """See `facekiln.parity.executors.BatchStage`; C model and interpreter are the vendor's own.

    Attributes:
        batch: pictures that one run takes.
    """

    emulated = False

    def __init__(self, path: Path, model: Model, config: Config, *, twin: bool) -> None:
        self.name = "sophon-twin" if twin else "sophon-cmodel"
        self._path, self._model = path, model
        self._settings = settings_from(config.chips["sophon"])
        self._environment = environment_of(self._settings, config)
        record = read_record(path)
        told = record.settings.get("precision") if record else None
        self.precision = _PRECISION[told or artifact_of(path, config, self._settings).precision]
        self._runtime = self._open(twin=twin)
        self._outputs = meaning([item.name for item in self._runtime.outputs], model)
        self.batch = self._runtime.batch
        self._check_shapes()
        self._traced: SophonRuntime | None = self._runtime if twin else None

    def run(self, picture: Picture) -> Arrays:
        """See `Stage.run`; the batch's other places hold black pictures."""
        return self.run_batch([picture])[0]

    def run_batch(self, pictures: Sequence[Picture | None]) -> list[Arrays]:
        """Run at most `batch` pictures at once, each in its place.

        Args:
            pictures: uint8 BGR [H, W, 3] at the network's size; None is a place that is left black, as are
                those behind the last.

        Returns:
            The model's outputs, float32 [1, N, values], of each that is not None.
        """
        assert 0 < len(pictures) <= self.batch
        outputs = self._runtime.run(self._feeds(pictures))
        named = {meant: outputs[name] for name, meant in self._outputs.items()}
        return [
            {name: value[place : place + 1] for name, value in named.items()}
            for place, picture in enumerate(pictures)
            if picture is not None
        ]

    def trace(self, picture: Picture) -> Arrays:
        """See `Stage.trace`; what is on the way comes from the twin, if made: the C model shows none."""
        if self._traced is None:
            if not twin_of(self._path).is_file():
                return self.run(picture)
            self._traced = self._open(twin=True)
        (entry,) = self._traced.inputs
        every = self._traced.run(self._feeds([picture]), every=True)
        first = {
            name: value[:1]
            for name, value in every.items()
            if name != entry.name and len(value) == self.batch
        }
        between = {name: value for name, value in first.items() if name not in self._outputs}
        return {**between, **self.run(picture)}

    def name_in_parent(self, tensor: str) -> str | None:
        """The ONNX tensor of the operator's name; outputs have the model's own."""
        return tensor if tensor in self._model.outputs else onnx_name(tensor)

    def close(self) -> None:
        """End the children; without it they end with this object, or with the process."""
        self._runtime.close()
        if self._traced is not None:
            self._traced.close()

    def _open(self, *, twin: bool) -> SophonRuntime:
        path = twin_of(self._path) if twin else self._path
        if not path.is_file():
            raise KilnError(
                "does not exist",
                file=path,
                hint=f"make it: snakemake --cores 4 {path}, or facekiln sophon twin",
            )
        if twin:
            check_twin(self._path)
        return SophonRuntime(
            path,
            self._environment,
            "twin" if twin else "cmodel",
            timeout_minutes=self._settings.run.timeout_minutes,
            threads=self._settings.run.threads,
        )

    def _check_shapes(self) -> None:
        if len(self._runtime.inputs) != 1:
            raise KilnError(
                f"has other inputs than model '{self._model.name}'",
                file=self._path,
                value=", ".join(item.name for item in self._runtime.inputs),
                limit=self._model.input.name,
            )
        for item in self._runtime.outputs:
            if item.shape[0] != self.batch:
                raise KilnError(
                    f"mixes the pictures of a batch of {self.batch}",
                    file=self._path,
                    where=f"output {item.name}",
                    value=list(item.shape),
                    limit=f"{self.batch} in front",
                    hint="transform the model again: its Reshapes hold another batch",
                )

    def _feeds(self, pictures: Sequence[Picture | None]) -> Arrays:
        (entry,) = self._runtime.inputs
        black = np.zeros((*entry.shape[2:], 3), np.uint8)
        filled = [black if picture is None else picture for picture in pictures]
        filled += [black] * (self.batch - len(filled))
        tensors = [to_tensor(picture, self._model.input) for picture in filled]
        return {entry.name: np.concatenate(tensors)}
