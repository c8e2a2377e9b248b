"""What results/predictions/{backend}/{artifact}/{dataset}[@{inference}]/ means.

A name that makes no sense raises a `KilnError` with a suggestion. Nothing here runs a network, so that the
workflow can ask for every target that it plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from facekiln.artifact import sha256_of_text
from facekiln.config import Config, Model, known
from facekiln.data.declared import Declared, declared_set
from facekiln.errors import KilnError
from facekiln.predictions.settings import DEFAULT, Inference, inference_of
from facekiln.predictions.toolchain import stamp_of
from facekiln.targets import RESULTS, Targets, model_and_size_of


@dataclass(frozen=True)
class Backend:
    """What runs artifacts of one kind.

    Attributes:
        folder: below results/, where the workflow makes such artifacts.
        ending: of the file that is run.
        packages: whose versions decide what it computes; empty where it is our own code.
        reader: of Caffe pairs, tmfiles and bmodels.
        beside: endings of files that are read with it.
        toolchain: the environment of a vendor's tools that it runs in, see `facekiln.predictions.toolchain`.
    """

    folder: str
    ending: str
    packages: tuple[str, ...] = ()
    reader: str = "opencv"
    beside: tuple[str, ...] = ()
    toolchain: str | None = None


_PAIR = (".prototxt", ".heads.json")
_TWIN = (".twin/final.mlir", ".twin/weights.npz")
BACKENDS = {
    "torch": Backend("checkpoints", ".pth", ("torch",)),
    "torchscript": Backend("torchscript", ".pt", ("torch",)),
    "onnxruntime": Backend("onnx", ".onnx", ("onnxruntime",)),
    "caffe-opencv": Backend("caffe", ".caffemodel", ("opencv-python-headless",), "opencv", _PAIR),
    "caffe-mnn": Backend("caffe", ".caffemodel", ("MNN",), "mnn", _PAIR),
    "nnie-emulator": Backend("nnie", ".wk"),
    "tengine-simulation": Backend("tengine", ".tmfile", ("onnxruntime",)),
    "tengine-runtime": Backend("tengine", ".tmfile", reader="runtime"),
    "ncnn": Backend("ncnn", ".param", ("ncnn",), beside=(".bin",)),
    "sophon-cmodel": Backend("sophon", ".bmodel", reader="cmodel", toolchain="sophon"),
    "sophon-twin": Backend("sophon", ".bmodel", reader="twin", beside=_TWIN, toolchain="sophon"),
    "magicmind-emulator": Backend("magicmind", ".mm", ("onnxruntime",)),
}


# Backends that are boards of config/boards.yaml; see `facekiln.predictions.board_names`.
BOARD_PREFIX = "board-"


def backend_on(board: str) -> str:
    """Return the backend's name of a board."""
    return f"{BOARD_PREFIX}{board}"


def is_board(backend: str) -> bool:
    """Return whether a backend is a board."""
    return backend.startswith(BOARD_PREFIX)


def backend_for(path: Path | str, name: str | None = None) -> str:
    """Return the backend that runs a file: the named one if it does, else the first that does.

    Raises:
        KilnError: unknown backend, one that does not run such files, or files that none runs.
    """
    if name is not None:
        known(name, BACKENDS, "backend")
    fitting = [key for key, backend in BACKENDS.items() if str(path).endswith(backend.ending)]
    if not fitting:
        limit = ", ".join(f"{backend.ending} ({key})" for key, backend in BACKENDS.items())
        raise KilnError("is of no kind that a backend runs", file=path, limit=limit)
    if name is None:
        return fitting[0]
    if name not in fitting:
        raise KilnError(
            f"backend '{name}' does not run such files",
            file=path,
            value=PurePosixPath(path).suffix,
            limit=BACKENDS[name].ending,
            hint=f"it runs in: {', '.join(fitting)}",
        )
    return name


def declaration_of(model: Model) -> str:
    """Return a hash of all that a model's declaration decides of its predictions."""
    return model.digest("input", "outputs", "priors", "crop", "network", "options")


def split_dataset(segment: str) -> tuple[str, str]:
    """Return (dataset, inference entry) of `NAME` or `NAME@ENTRY`."""
    name, _, entry = segment.partition("@")
    return name, entry or DEFAULT


def model_of(
    path: Path | str, backend: str, config: Config, model: str | None = None, size: str | None = None
) -> tuple[Model, str | None]:
    """Return the model of an artifact, and the label of the size that it is built for: None for a checkpoint.

    Args:
        path: the artifact; its name, `{model}.pth` or `{model}_{size}...`, says what is not given.
        backend: that runs it.
        config: has the models.
        model: its model.
        size: its size's label.

    Raises:
        KilnError: unknown model or size; the name does not say them, or says others; a size for a checkpoint.
    """
    if backend == "torch":
        if size is not None:
            raise KilnError(
                "is a checkpoint, which is built for no size",
                file=path,
                hint="set `size` of the inference entry",
            )
        return config.model(model or PurePosixPath(path).name.removesuffix(".pth")), None
    if model is not None and size is not None:
        declared = config.model(model)
        declared.size(size)
        return declared, size
    named, label = model_and_size_of(path, config)
    if (model or named, size or label) != (named, label):
        raise KilnError(
            "is of another model or size by its name",
            file=path,
            value=f"{named}, {label}",
            limit=f"{model or named}, {size or label}",
            hint="name both: --model NAME --size LABEL",
        )
    return config.model(named), label


@dataclass(frozen=True)
class Wanted:
    """What a path of predictions asks for."""

    backend: str
    artifact: str
    model: Model
    inference: Inference
    dataset: Declared


class Wildcards(Protocol):
    """What Snakemake hands to input functions; `dataset` is `NAME` or `NAME@ENTRY`."""

    backend: str
    artifact: str
    dataset: str


class PredictionTargets:
    """What the rules of predictions ask: inputs, digests of settings, and the number of shards."""

    def __init__(self, config: Config, folder: Path | str = "config") -> None:
        self.config = config
        self._folder = folder

    def wanted(self, backend: str, artifact: str, segment: str) -> Wanted:
        """Return what `results/predictions/{backend}/{artifact}/{segment}/` is.

        Raises:
            KilnError: an unknown backend, dataset, inference entry, model or size, each with a suggestion; a
                backend that does not run the artifact; a size that the entry cannot have.
        """
        here = backend_for(artifact, None if is_board(backend) else backend)
        folder = PurePosixPath(artifact).parts[0]
        if folder != BACKENDS[here].folder:
            raise KilnError(
                f"backend '{backend}' runs artifacts of {RESULTS}/{BACKENDS[here].folder}/",
                file=f"{RESULTS}/{artifact}",
                value=folder,
            )
        model, label = model_of(artifact, here, self.config)
        if label is None:
            Targets(self.config).checkpoint(model.name)
        name, entry = split_dataset(segment)
        declared = declared_set(name, self._folder)
        inference = inference_of(entry, model, self.config, label=label, artifact=f"{RESULTS}/{artifact}")
        return Wanted(backend, artifact, model, inference, declared)

    def files(self, wildcards: Wildcards) -> dict[str, str | list[str]]:
        """Return the `artifact`, and the files `beside` it that are read with it (see `wanted`)."""
        wanted = self.wanted(wildcards.backend, wildcards.artifact, wildcards.dataset)
        backend = BACKENDS[backend_for(wanted.artifact) if is_board(wanted.backend) else wanted.backend]
        path = f"{RESULTS}/{wanted.artifact}"
        stem = path.removesuffix(backend.ending)
        return {"artifact": path, "beside": [f"{stem}{ending}" for ending in backend.beside]}

    def tools(self, wildcards: Wildcards) -> list[str]:
        """Return the stamp of the tools that a backend runs in here, if it needs any."""
        backend = self.wanted(wildcards.backend, wildcards.artifact, wildcards.dataset).backend
        toolchain = None if is_board(backend) else BACKENDS[backend].toolchain
        return [stamp_of(toolchain, self.config)] if toolchain else []

    def digest(self, wildcards: Wildcards) -> str:
        """Return a hash of every setting behind predictions: a change of it predicts again."""
        wanted = self.wanted(wildcards.backend, wildcards.artifact, wildcards.dataset)
        return sha256_of_text(
            repr((wanted.inference, declaration_of(wanted.model), wanted.dataset.digest()))
        )[:16]
