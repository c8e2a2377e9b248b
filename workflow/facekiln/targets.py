"""What the rules ask: which files an artifact is made from, and whether its name makes sense.

Plain functions on a loaded config, so that they are tested without Snakemake. A name that makes no sense
raises a `KilnError` with a suggestion, which the rules turn into Snakemake's own error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NoReturn, Protocol

from facekiln.config import WEIGHTS_SECTION, Config, known, load_recipe
from facekiln.errors import KilnError
from facekiln.models.registry import UPSAMPLING
from facekiln.suggest import suggest

RESULTS = "results"

# Every artifact that has a parent to be compared with: its pattern, and the pattern of the parent.
PARENTS = {
    "torchscript/{model}_{size}.pt": "checkpoints/{model}.pth",
    "onnx/{model}_{size}.onnx": "checkpoints/{model}.pth",
    "onnx/{model}_{size}.sim.onnx": "onnx/{model}_{size}.onnx",
    "caffe/{model}_{size}.caffemodel": "onnx/{model}_{size}.sim.onnx",
    "nnie/{model}_{size}.wk": "caffe/{model}_{size}.caffemodel",
    "nnie/{model}_{size}_int16.wk": "caffe/{model}_{size}.caffemodel",
    "tengine/{model}_{size}.tmfile": "onnx/{model}_{size}.sim.onnx",
    "tengine/{model}_{size}_uint8.tmfile": "tengine/{model}_{size}.tmfile",
    "tengine/{model}_{size}_int8.tmfile": "tengine/{model}_{size}.tmfile",
    "ncnn/{model}_{size}.param": "onnx/{model}_{size}.sim.onnx",
    "ncnn/{model}_{size}_fp16.param": "onnx/{model}_{size}.sim.onnx",
    "ncnn/{model}_{size}_int8.param": "onnx/{model}_{size}.sim.onnx",
    "sophon/{chip}/{model}_{size}_{precision}_{batch}b.bmodel": "onnx/{model}_{size}.sim.onnx",
    "sophon/{chip}/{model}_{size}_{precision}_{batch}b_{cores}core.bmodel": "onnx/{model}_{size}.sim.onnx",
    "magicmind/{model}_{size}_force_float32_{batch}b.mm": "onnx/{model}_{size}.sim.onnx",
    "magicmind/{model}_{size}_force_float16_{batch}b.mm": "onnx/{model}_{size}.sim.onnx",
    "magicmind/{model}_{size}_qint8_mixed_float16_{batch}b.mm": "onnx/{model}_{size}.sim.onnx",
}
# What may stand for a wildcard.
_FORMS = {
    "model": r"\w+",
    "size": r"\d+",
    "chip": "[a-z0-9]+",
    "precision": r"[a-z]+\d+",
    "batch": r"\d+(?:-\d+)?",
    "cores": r"\d+",
}


_WHY_MULTIPLE = "the feature pyramid's upsampled maps would need a Crop layer, which {chip} has not"


def matching(pattern: str, path: str) -> dict[str, str] | None:
    """Return the wildcards of `path` under a pattern as in `PARENTS`, or None where it does not match."""
    regex = re.escape(pattern)
    for name, form in _FORMS.items():
        regex = regex.replace(rf"\{{{name}\}}", f"(?P<{name}>{form})")
    found = re.fullmatch(regex, path)
    return found.groupdict() if found else None


class Wildcards(Protocol):
    """What Snakemake hands to input functions."""

    model: str
    size: str


class Targets:
    """Input files of rules, with names checked."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def models_with(self, *kinds: str) -> str:
        """Return a regular expression for the models whose weights are of those kinds; may match nothing."""
        names = [
            name
            for name, model in self.config.models.items()
            if (kind := model.weights or self.config.weights) in kinds
            and getattr(model, WEIGHTS_SECTION[kind])
        ]
        return "|".join(map(re.escape, names)) or "(?!)"

    def checkpoint(self, model: str, size: str | None = None) -> str:
        """Return the path of a model's checkpoint, the model, its weights and the size being known.

        Raises:
            KilnError: unknown model or size (with a suggestion), or weights the model cannot have.
        """
        declared = self.config.model(model)
        if size is not None:
            declared.size(size)
        if declared.born != "checkpoint":
            raise KilnError(
                f"is born as {declared.born}: it has no checkpoint",
                file=f"config/models/{model}.yaml",
                where="born",
                hint=f"start from {RESULTS}/onnx/{model}_{next(iter(declared.sizes))}.onnx",
            )
        self.config.weights_of(model)
        return f"{RESULTS}/checkpoints/{model}.pth"

    def own_file_of(self, wildcards: Wildcards) -> list[str]:
        """Return the user's own checkpoint that a rule copies, where no sha256 pins it and it may change.

        Raises:
            KilnError: it is not there.
        """
        model = self.config.model(wildcards.model)
        if self.config.weights_of(model.name) != "local" or model.local is None or model.local.sha256:
            return []
        path = Path(model.local.path).expanduser()
        if not path.is_file():
            raise KilnError(
                f"your own checkpoint of '{model.name}' is not there",
                file=path,
                hint=f"put it there, or correct `local.path` in config/models/{model.name}.yaml",
            )
        return [str(path)]

    def models_born_as(self, stage: str) -> str:
        """Return a regular expression for the models that are born as `checkpoint` or `onnx`."""
        names = [name for name, model in self.config.models.items() if model.born == stage]
        return "|".join(map(re.escape, names)) or "(?!)"

    def checkpoint_of(self, wildcards: Wildcards) -> str:
        """Return the checkpoint of a rule's `model`, its `size` being known (see `checkpoint`)."""
        return self.checkpoint(wildcards.model, getattr(wildcards, "size", None))

    def audits_of(self, wildcards: Wildcards) -> list[str]:
        """Return the audits of the datasets that a rule's `model` is trained and judged on.

        Raises:
            KilnError: unknown model, recipe or dataset, or photographs for a synthetic model.
        """
        from facekiln.data.declared import declared_set
        from facekiln.training.recipe import datasets_of, refuse_photographs

        name = Path(self.recipe_of(wildcards)).stem
        recipe = load_recipe(name)
        for dataset in datasets_of(recipe):
            declared_set(dataset)
        if self.config.weights_of(wildcards.model) == "synthetic":
            refuse_photographs(wildcards.model, name, recipe)
        return [f"{RESULTS}/datasets/{dataset}/report.json" for dataset in datasets_of(recipe)]

    def threads_of(self, wildcards: Wildcards) -> int:
        """Return the threads that the recipe of a rule's `model` trains with."""
        return int(load_recipe(Path(self.recipe_of(wildcards)).stem)["threads"])

    def dataset_digest(self, name: str) -> str:
        """Return a hash of a dataset's declaration and of the state of its files: a change makes a new audit.

        Raises:
            KilnError: unknown dataset (with a suggestion).
        """
        from facekiln.data.declared import declared_set

        declared = declared_set(name)
        return f"{declared.digest()} {declared.state()}".rstrip()

    def recipe_of(self, wildcards: Wildcards) -> str:
        """Return the training recipe of a rule's `model`."""
        return f"config/training/{self.config.model(wildcards.model).recipe}.yaml"

    def caffe_for_nnie(self, wildcards: Wildcards) -> dict[str, str]:
        """Return the Caffe pair and its heads, the size being one that the NNIE takes."""
        self.check_size_for_chip("nnie", wildcards.model, wildcards.size)
        stem = f"{RESULTS}/caffe/{wildcards.model}_{wildcards.size}"
        return {part: f"{stem}.{part}" for part in ("prototxt", "caffemodel")} | {
            "heads": f"{stem}.heads.json"
        }

    def onnx_for_tengine(self, wildcards: Wildcards) -> str:
        """Return the simplified ONNX file, the size being one that the model has."""
        self.check_size_for_chip("tengine", wildcards.model, wildcards.size)
        return f"{RESULTS}/onnx/{wildcards.model}_{wildcards.size}.sim.onnx"

    def onnx_for_ncnn(self, wildcards: Wildcards) -> str:
        """Return the simplified ONNX file, the size being one that the model has."""
        self.check_size_for_chip("ncnn", wildcards.model, wildcards.size)
        return f"{RESULTS}/onnx/{wildcards.model}_{wildcards.size}.sim.onnx"

    def check_size_for_chip(self, chip: str, model: str, size: str) -> None:
        """Check that a chip's tools take a model's input size.

        Raises:
            KilnError: unknown model or size, or, where the network upsamples maps, a side that is no multiple
                of the chip's `size_multiple`.
        """
        declared = self.config.model(model)
        if declared.network not in UPSAMPLING:
            declared.size(size)
            return
        multiple = int(self.config.chips[chip]["size_multiple"])
        if size not in declared.sizes and int(size) % multiple:
            near = min(declared.sizes, key=lambda label: abs(int(label) - int(size)))
            raise KilnError(
                f"size {size} is not a multiple of {multiple}",
                file=f"{RESULTS}/{chip}/{model}_{size}",
                value=size,
                limit=_WHY_MULTIPLE.format(chip=chip),
                hint=f"did you mean '{near}'? known sizes of '{model}': {', '.join(declared.sizes)}",
            )
        for side, pixels in zip(("height", "width"), declared.size(size), strict=True):
            if pixels % multiple:
                raise KilnError(
                    f"{side} {pixels} is not a multiple of {multiple}",
                    file=f"config/models/{model}.yaml",
                    where=f"sizes.{size}",
                    value=pixels,
                    limit=_WHY_MULTIPLE.format(chip=chip),
                    hint=f"use a multiple of {multiple}",
                )

    def parent_of(self, artifact: str) -> str:
        """Return the artifact that `artifact` (below results/) is compared with.

        Raises:
            KilnError: it is of no kind that has a parent, or its model or size is unknown.
        """
        for pattern, parent in PARENTS.items():
            wildcards = matching(pattern, artifact)
            if wildcards:
                self.config.model(wildcards["model"]).size(wildcards["size"])
                if parent.startswith("checkpoints/"):
                    self.checkpoint(**wildcards)
                return f"{RESULTS}/{parent.format(**wildcards)}"
        near = suggest(artifact, PARENTS, self.config)
        raise KilnError(
            f"'{artifact}' has no parent to be compared with"
            + (f": {near.reason}" if near and near.reason else ""),
            file=f"{RESULTS}/parity/{artifact}.json",
            hint=f"did you mean '{RESULTS}/parity/{near.name}.json'?"
            if near
            else "compare one of: " + ", ".join(PARENTS),
        )

    def refuse_unknown(self, path: str, outputs: Iterable[object]) -> NoReturn:
        """Raise the error for a target that no rule makes, with the nearest name that one would make.

        Args:
            path: the target, below results/.
            outputs: the outputs that rules declare, `results/` included, as Snakemake writes them.
        """
        patterns = {plain_pattern(str(output)) for output in outputs}
        folder = path.split("/")[0]
        known(folder, sorted({pattern.split("/")[0] for pattern in patterns}), f"folder in {RESULTS}/,")
        for pattern in patterns:
            wildcards = matching(pattern, path)
            if wildcards and "model" in wildcards:
                self.checkpoint(wildcards["model"], wildcards.get("size"))
        forms = sorted({form for form in map(told_pattern, outputs) if form.startswith(f"{folder}/")})
        near = suggest(path, [str(output).removeprefix(f"{RESULTS}/") for output in outputs], self.config)
        ending = PurePosixPath(near.name if near else path).suffix
        if ending:
            forms = [form for form in forms if form.endswith(ending)] or forms
        raise KilnError(
            f"no rule makes '{RESULTS}/{path}'" + (f": {near.reason}" if near and near.reason else ""),
            hint=(f"did you mean '{RESULTS}/{near.name}'? " if near else "")
            + f"names in {RESULTS}/{folder}/ are: {', '.join(forms)}; "
            f"models: {', '.join(self.config.models)}",
        )


def plain_pattern(output: str) -> str:
    """Return a rule's output below results/ with bare wildcard names: `nnie/{model}_{size}.wk`."""
    return re.sub(r"\{(\w+),[^}]*\}", r"{\1}", str(output)).removeprefix(f"{RESULTS}/")


def told_pattern(output: object) -> str:
    """Return a rule's output below results/ for people: wildcards' names, or words that may stand there."""

    def told(found: re.Match[str]) -> str:
        name, constraint = found.groups()
        if not re.fullmatch(r"[\w-]+(\|[\w-]+)*", constraint):
            return f"{{{name}}}"
        return f"{{{constraint}}}" if "|" in constraint else constraint

    return re.sub(r"\{(\w+),([^}]*)\}", told, str(output)).removeprefix(f"{RESULTS}/")


def unclaimed(regexes: Iterable[str]) -> str:
    """Return a regular expression for every path below results/ that none of the rules' outputs matches.

    Args:
        regexes: the outputs' regular expressions, `results/` included.
    """
    bare = (
        re.sub(r"\(\?P<\w+>", "(?:", regex).removeprefix(f"{RESULTS}/").removesuffix("$") for regex in regexes
    )
    return rf"(?!(?:{'|'.join(bare)})$).+"


def model_and_size_of(path: Path | str, config: Config) -> tuple[str, str]:
    """Return (model, size label) from an artifact's file name, `{model}_{size}...`.

    Raises:
        KilnError: the name is not of that form, or names an unknown model or size.
    """
    found = re.match(
        r"(?P<model>\w+?)_(?P<size>\d+)(?:_(?:int16|uint8|int8|fp16|fp32|(?:force|qint8)_[a-z0-9_]+?))?"
        r"(?:_\d+(?:-\d+)?b(?:_\d+core)?)?(?:\.|$)",
        Path(path).name,
    )
    if not found:
        raise KilnError(
            "its name does not say model and size", file=path, hint="name them: --model NAME --size LABEL"
        )
    config.model(found["model"]).size(found["size"])
    return found["model"], found["size"]
