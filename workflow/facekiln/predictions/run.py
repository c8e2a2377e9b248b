"""Run a stage over a dataset, or over a shard of it; go on where a killed run was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from facekiln import __version__
from facekiln.ahead import ahead
from facekiln.artifact import sha256_of, sha256_of_text
from facekiln.config import Config, Model
from facekiln.data.declared import Declared, open_dataset
from facekiln.data.sample import Dataset
from facekiln.errors import KilnError
from facekiln.fingerprint import fingerprint
from facekiln.parity.executors import Stage, open_stage
from facekiln.predictions.names import BACKENDS, declaration_of
from facekiln.predictions.one import OnePicture, prepare
from facekiln.predictions.partial import Partial
from facekiln.predictions.settings import Inference
from facekiln.predictions.shards import Shard
from facekiln.predictions.store import Predictions, write_predictions
from facekiln.predictions.toolchain import version_of_toolchain
from facekiln.progress import log, progress_bar
from facekiln.targets import RESULTS

# Of a stage; a further one reads and prepares the next picture.
THREADS = 2


def predict(
    artifact: Path,
    model: Model,
    config: Config,
    *,
    backend: str,
    inference: Inference,
    declared: Declared,
    shard: Shard,
    output: Path,
    keep_every: int = 256,
) -> Predictions:
    """Run an artifact over a dataset's pictures and write what it finds.

    Every picture that the declaration lists is run, those that cleaning would leave out too: an evaluation
    counts them all. What is done is kept beside the output at intervals, and picked up by the same command
    if artifact, settings, dataset and code are the same; the output then has the same bytes.

    Args:
        artifact: the file.
        model: that it is of.
        config: for the register of published checkpoints.
        backend: a name of `facekiln.predictions.names.BACKENDS` that runs the file.
        inference: how.
        declared: the dataset.
        shard: which part of it.
        output: a folder, which is replaced.
        keep_every: pictures that are kept at the latest.

    Raises:
        KilnError: the artifact cannot be run, the dataset is not here, or a picture is missing or damaged.
    """
    dataset = open_dataset(declared)
    indices = shard.of(len(dataset))
    stage = open_for(artifact, model, config, backend)
    meta = {
        "model": model.name,
        "artifact": below_results(artifact),
        "artifact_sha256": sha256_of(artifact),
        "precision": stage.precision,
        "backend": backend,
        # A library of the user's own is asked itself.
        "backend_version": getattr(stage, "version", None) or version_of(backend, config),
        "emulated": stage.emulated,
        "dataset": declared.name,
        "dataset_digest": declared.digest(),
        "images": len(indices),
        "declaration": declaration_of(model),
        "code": fingerprint("facekiln.predictions.run"),
        **_hashes_beside(artifact, backend),
        **inference.meta(),
        **shard.meta(),
    }
    partial = Partial(output, meta, pictures=keep_every)
    if partial.done:
        log.info("%s: going on after %d of %d pictures", output, partial.done, len(indices))
    if partial.done < len(indices):
        _run_all(OnePicture(stage, model, inference), dataset, indices, partial, f"{backend} {artifact.name}")
    predictions = partial.whole(meta)
    write_predictions(output, predictions)
    partial.remove()
    return predictions


def _run_all(one: OnePicture, dataset: Dataset, indices: range, partial: Partial, what: str) -> None:
    left = indices[partial.done :]
    try:
        with progress_bar(len(indices), what, "img", initial=partial.done) as bar:
            prepared = ahead(lambda index: prepare(dataset[index], one.model, one.inference), left)
            for group in grouped(left, one.batch):
                for predictions in one.several([next(prepared) for _ in group], group.start % one.batch):
                    partial.add(predictions)
                    bar.update(1)
    finally:  # whatever stopped it, what was done is kept
        partial.keep()
    if one.lost:
        log.warning("%d faces have no box to cut a square around; their points are NaN", one.lost)


def grouped(indices: range, batch: int) -> Iterator[range]:
    """Cut consecutive indices where a multiple of `batch` is, so that a picture's place is always the same.

    Then a shard, or a run that goes on in the middle of a batch, has each picture where the whole has it.
    """
    start = indices.start
    while start < indices.stop:
        stop = min(indices.stop, (start // batch + 1) * batch)
        yield range(start, stop)
        start = stop


def open_for(artifact: Path, model: Model, config: Config, backend: str) -> Stage:
    """Open an artifact in a backend, with two threads (see `facekiln.parity.executors.open_stage`)."""
    if BACKENDS[backend].packages == ("torch",):
        # Read when OpenMP loads. Its threads spin at every layer's end, against the thread that reads
        # pictures and whatever else runs here: 500 to 1200 ms per picture on a busy machine, not 24.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch

        torch.set_num_threads(THREADS)
    if backend == "caffe-opencv":
        import cv2

        cv2.setNumThreads(THREADS)
    return open_stage(artifact, model, config, reader=BACKENDS[backend].reader)


def version_of(backend: str, config: Config) -> str:
    """Return the version of what runs the artifact: its packages', its toolchain's, or ours if our own code.

    Raises:
        KilnError: it is not installed.
    """
    toolchain = BACKENDS[backend].toolchain
    if toolchain:
        return version_of_toolchain(toolchain, config)
    try:
        versions = [metadata.version(package) for package in BACKENDS[backend].packages]
    except metadata.PackageNotFoundError as error:
        raise KilnError(
            f"backend '{backend}' needs {error.name}", hint=f"pip install {error.name}"
        ) from error
    return " ".join(versions) or __version__


def _hashes_beside(artifact: Path, backend: str) -> dict[str, str]:
    """Return the hash of what is run in the artifact's stead, which a twin is."""
    if BACKENDS[backend].reader != "twin":
        return {}
    stem = str(artifact).removesuffix(BACKENDS[backend].ending)
    files = [Path(f"{stem}{ending}") for ending in BACKENDS[backend].beside]
    return {"beside_sha256": sha256_of_text(" ".join(map(sha256_of, files)))}


def below_results(artifact: Path) -> str:
    """Return an artifact's path below the results folder, or its name where it lies elsewhere."""
    parts = artifact.parts
    if RESULTS not in parts[:-1]:
        return artifact.name
    last = len(parts) - 1 - parts[::-1].index(RESULTS)
    return "/".join(parts[last + 1 :])
