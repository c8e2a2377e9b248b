"""Run an artifact over a dataset on a board; what comes before and after the network happens here.

Pictures are read and fitted by the one preprocessing and go to the board in shards, each content once; raw
outputs come back and are decoded by the one decoder. So a board's predictions differ from this machine's in
what the network computes, and in nothing else. A shard that has come home is kept: a killed or cut run goes
on behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facekiln.ahead import ahead
from facekiln.artifact import sha256_of, write_text
from facekiln.boards.faults import retried
from facekiln.boards.infer_board import InferBoard, inferring_on
from facekiln.boards.infer_log import Told, stacked
from facekiln.boards.settings import Board
from facekiln.config import Model
from facekiln.data.declared import Declared, open_dataset
from facekiln.data.sample import Dataset
from facekiln.fingerprint import fingerprint
from facekiln.parity.executors import Arrays, Picture
from facekiln.predictions.board_names import BOARD_CODE
from facekiln.predictions.names import backend_on, declaration_of
from facekiln.predictions.one import OnePicture, Prepared, prepare
from facekiln.predictions.partial import Partial
from facekiln.predictions.run import below_results, grouped
from facekiln.predictions.settings import Inference
from facekiln.predictions.store import Predictions, write_predictions
from facekiln.progress import log, progress_bar
from facekiln.provenance import read_record


@dataclass(frozen=True)
class BoardRun:
    """How pictures are run on a board.

    Attributes:
        board: of config/boards.yaml.
        shard: pictures that are sent, run and brought home at once.
        threads: of a processor's runtime.
        wait: seconds to wait for another holder of the board.
        timeout: seconds of one shard; None for the board's `limits.run_seconds`.
        exact: floats are computed as float32 where the board's runtime would take halves.
        half: outputs come home as float16: half the bytes, and no longer the network's own values.
        attempts: of the whole, after faults that pass.
    """

    board: Board
    shard: int = 32
    threads: int = 2
    wait: float = 0.0
    timeout: float | None = None
    exact: bool = False
    half: bool = False
    attempts: int = 3


@dataclass
class Recorded:
    """Outputs that a board gave, as the stage that gives them; see `facekiln.parity.executors.Stage`."""

    name: str
    precision: str = "float"
    emulated: bool = False
    waiting: deque[Arrays] = field(default_factory=deque)

    def run(self, _picture: Picture) -> Arrays:
        """Return the outputs of the next picture, in the order in which they were run."""
        return self.waiting.popleft()

    def trace(self, picture: Picture) -> Arrays:
        """A board shows outputs only."""
        return self.run(picture)

    def name_in_parent(self, tensor: str) -> str | None:
        """Outputs have the model's own names."""
        return tensor

    def add(self, outputs: Arrays, count: int) -> None:
        """Take the outputs of a run, [count, ...] each."""
        for place in range(count):
            self.waiting.append({name: value[place : place + 1] for name, value in outputs.items()})


def predict_on_board(
    artifact: Path, model: Model, *, how: BoardRun, inference: Inference, declared: Declared, output: Path
) -> Predictions:
    """Run an artifact over a dataset's pictures on a board and write what it finds.

    Beside the output lies `{output}.log`, everything that the board's program printed. Transient faults of
    the board (see `facekiln.boards.faults`) are outlived as far as `how.attempts` goes; after any other
    end the same command goes on behind the last shard that came home.

    Args:
        artifact: the file.
        model: that it is of.
        how: on which board.
        inference: how.
        declared: the dataset.
        output: a folder, which is replaced.

    Raises:
        KilnError: the board cannot run the artifact, the dataset is not here, or a picture is missing or
            damaged.
        BoardFault: the board was lost for good; what came home stays.
    """
    dataset = open_dataset(declared)
    name = how.board.name
    told_once: list[str] = []

    def attempt() -> Predictions:
        with inferring_on(
            how.board,
            artifact,
            model,
            threads=how.threads,
            wait=how.wait,
            timeout=how.timeout,
            exact=how.exact,
            half=how.half,
        ) as place:
            # One black picture first: it tells the runtime's version, and what a faceless picture gives.
            stage = Recorded(backend_on(name), precision_of(artifact))
            black, told = place.infer(place.send(np.zeros((1, *_size(inference), 3), np.uint8), "black"))
            stage.add(black, 1)
            virtual = how.board.virtual or told.virtual
            stage.emulated = virtual or _made_by_emulator(artifact)
            meta = _meta(artifact, model, how, inference, declared, stage, told, virtual)
            partial = Partial(
                output, {**meta, "images": len(dataset)}, pictures=len(dataset) + 1, seconds=1e9
            )
            raw = _RawLog(output, fresh=not partial.done)
            if partial.done:
                log.info("%s: going on after %d of %d pictures", output, partial.done, len(dataset))
            if virtual and not told_once:
                told_once.append(name)
                log.warning("%s is VIRTUAL: a stand-in runs the artifact, not a chip", name)
            one = OnePicture(stage, model, inference)
            stage.waiting.clear()
            try:
                _run_all(one, stage, place, dataset, partial, how, told, f"{name}: {artifact.name}")
            finally:
                raw.add(place.log)
            predictions = partial.whole({**meta, "images": len(dataset)})
            write_predictions(output, predictions)
            raw.done()
            partial.remove()
            if place.reconnections:
                log.info("%s: the connection was lost and found %d times", name, place.reconnections)
            return predictions

    return retried(attempt, attempts=how.attempts)


@dataclass(frozen=True, eq=False)
class _Shard:
    indices: range
    prepared: list[Prepared]
    pictures: Path | None
    count: int


def _run_all(
    one: OnePicture,
    stage: Recorded,
    place: InferBoard,
    dataset: Dataset,
    partial: Partial,
    how: BoardRun,
    told: Told,
    what: str,
) -> None:
    # So that a picture has the same place in its batch wherever a run goes on.
    shard = -(-how.shard // told.batch) * told.batch

    def make(indices: range) -> _Shard:
        prepared = [prepare(dataset[index], one.model, one.inference) for index in indices]
        pictures = [picture for each in prepared for picture in each.inputs if picture is not None]
        path = place.send(stacked(pictures), f"shard-{indices.start:08d}") if pictures else None
        return _Shard(indices, prepared, path, len(pictures))

    left = range(partial.done, len(dataset))
    with progress_bar(len(dataset), what, "img", initial=partial.done) as bar:
        # The next shard is read, fitted and sent while the board runs this one.
        for each in ahead(make, _grouped(left, shard), depth=1):
            behind = bar.n + len(each.prepared)
            if each.pictures is not None:
                outputs, _ = place.infer(each.pictures, _mover(bar, len(each.prepared), each.count))
                each.pictures.unlink()
                stage.add(outputs, each.count)
            for prepared in each.prepared:
                partial.add(one(prepared))
            partial.keep()
            bar.update(behind - bar.n)
    if one.lost:
        log.warning("%d faces have no box to cut a square around; their points are NaN", one.lost)


def _mover(bar: Any, pictures: int, inputs: int) -> Callable[[int], object]:
    """Return what moves the bar by a shard's pictures, as its inputs (a landmark model's faces) are done."""
    begun = bar.n
    return lambda done: bar.update(begun + done * pictures // inputs - bar.n)


def _grouped(indices: range, shard: int) -> Iterator[range]:
    return grouped(indices, shard) if len(indices) else iter(())


def _size(inference: Inference) -> tuple[int, int]:
    size = inference.resize.size
    assert size is not None  # an artifact that is built for one size refuses entries of varying ones
    return size


def _meta(
    artifact: Path,
    model: Model,
    how: BoardRun,
    inference: Inference,
    declared: Declared,
    stage: Recorded,
    told: Told,
    virtual: bool,
) -> dict[str, Any]:
    board: dict[str, Any] = {"name": how.board.name, "chip": how.board.chip, **told.facts}
    board |= {key: True for key in ("exact", "half") if getattr(how, key)}
    return {
        "model": model.name,
        "artifact": below_results(artifact),
        "artifact_sha256": sha256_of(artifact),
        "precision": stage.precision,
        "backend": stage.name,
        "backend_version": told.version,
        "emulated": stage.emulated,
        "virtual": virtual,
        "board": board,
        "dataset": declared.name,
        "dataset_digest": declared.digest(),
        "declaration": declaration_of(model),
        "code": fingerprint(*BOARD_CODE),
        **inference.meta(),
    }


def _made_by_emulator(artifact: Path) -> bool:
    record = read_record(artifact)
    return bool(record and record.emulated)


def precision_of(artifact: Path) -> str:
    """Return what an artifact computes in, "float", "float16", "int16" or "int8": of ncnn's files by their
    content, else by the name that the workflow gives them.

    Raises:
        KilnError: a damaged `.param`.
    """
    if artifact.suffix == ".param":
        from facekiln.chips.ncnn.model import read_model

        storage = read_model(artifact).storage()
        return {"fp32": "float", "int8": "int8"}.get(storage, "float16")
    parts = artifact.stem.split("_")
    if any(part in ("int8", "uint8", "qint8") for part in parts):
        return "int8"
    if "int16" in parts:
        return "int16"
    if artifact.suffix == ".wk":  # 8 bit has no mark of its own
        return "int8"
    return "float16" if any(part in ("fp16", "float16") for part in parts) else "float"


class _RawLog:
    """Everything that the board's program printed, run after run, over as many attempts as it took."""

    def __init__(self, output: Path, *, fresh: bool) -> None:
        self._output = output
        self._path = output.with_name(f"{output.name}.running.log")
        if fresh:
            self._path.unlink(missing_ok=True)

    def add(self, texts: Sequence[str]) -> None:
        with suppress(OSError), self._path.open("a", encoding="utf-8") as stream:
            stream.writelines(texts)

    def done(self) -> None:
        """Give it its name, the predictions being written."""
        path = log_of(self._output)
        if self._path.is_file():
            self._path.replace(path)
        else:
            write_text(path, "")


def log_of(output: Path) -> Path:
    """Return the raw log of predictions that a board made: `{output}.log`."""
    return output.with_name(f"{output.name}.log")
