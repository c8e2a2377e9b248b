"""What the SOPHON rules ask: which files an artifact is made from, and whether its name makes sense."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from facekiln.chips.sophon.artifacts import (
    Artifact,
    artifact_of,
    check_artifact,
    check_batch,
    check_spelling,
)
from facekiln.chips.sophon.environment import wanted
from facekiln.chips.sophon.settings import check_models, check_search, settings_from
from facekiln.config import Config, known
from facekiln.errors import KilnError
from facekiln.targets import RESULTS, Targets

_ROOM = f"{RESULTS}/sophon"


class Wildcards(Protocol):
    """What Snakemake hands to input functions; `cores` is empty or `_2core`."""

    chip: str
    model: str
    size: str
    precision: str
    batch: str
    cores: str


class SophonTargets:
    """Input files of the SOPHON rules, with names checked; the tool's environment is not among them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings = settings_from(config.chips["sophon"])
        check_models(self.settings, config.models)
        check_search(self.settings.calibrate)
        self._targets = Targets(config)

    def stamp(self) -> str:
        """Return the file that says that the environment is made; another tool or release is another file."""
        return wanted(self.settings, self.config).stamp_of_rules

    def identity(self) -> dict[str, str]:
        """Return the tool's release and lock, a rerun trigger."""
        return wanted(self.settings, self.config).identity()

    def tolerance(self, wildcards: Wildcards) -> list[float]:
        """Return the tolerance of a rule's `precision`, a rerun trigger."""
        return list(self.settings.deploy.tolerance[self.artifact(wildcards).precision])

    def calibration(self) -> tuple[str, str]:
        """Return what decides a calibration table's bytes of its settings, a rerun trigger."""
        return self.settings.calibrate.method, self.settings.calibrate.search

    def plan(self, wildcards: Any) -> list[Any]:
        """Return what decides a qtable of the settings, a rerun trigger: nothing of other chips or models."""
        mixed, chip = self.settings.mixed, wildcards.chip
        float_type = mixed.precision.get(chip)
        if mixed.by == "ours":
            return [mixed.by, float_type, mixed.most_layers, list(mixed.kept(chip, wildcards.model))]
        return [mixed.by, float_type, mixed.most_layers, mixed.expected_cosine, self.identity()]

    def gate(self, wildcards: Wildcards) -> list[str]:
        """Return what decides whether an int8 file sees, a rerun trigger; empty for other precisions."""
        if self.artifact(wildcards).precision != "int8":
            return []
        model = self.config.model(wildcards.model)
        return [repr(self.settings.gate), model.digest("decode", "priors")]

    def artifact(self, wildcards: Wildcards) -> Artifact:
        """Return what a rule's wildcards name.

        Raises:
            KilnError: there is no such chip, model, size, precision or batch, or the chip lacks it; says why
                and what to ask for instead.
        """
        cores = wildcards.cores.strip("_").removesuffix("core")
        artifact = Artifact(
            wildcards.chip,
            wildcards.model,
            wildcards.size,
            wildcards.precision,
            int(wildcards.batch),
            int(cores or 1),
        )
        check_artifact(artifact, self.config, self.settings)
        check_spelling(
            f"{wildcards.model}_{wildcards.size}_{wildcards.precision}_{wildcards.batch}b{wildcards.cores}.bmodel",
            artifact,
        )
        return artifact

    def _batch(self, wildcards: Any) -> int:
        batch = int(wildcards.batch)
        check_batch(batch, self.settings)
        if wildcards.batch != str(batch):
            raise KilnError(f"is spelled {batch}b", value=f"{wildcards.batch}b")
        return batch

    def for_transform(self, wildcards: Any) -> dict[str, str]:
        """Return what a top.mlir is made from."""
        self._batch(wildcards)
        self._targets.check_size_for_chip("sophon", wildcards.model, wildcards.size)
        name = f"{wildcards.model}_{wildcards.size}"
        return {
            "onnx": f"{RESULTS}/onnx/{name}.sim.onnx",
            "calibration": f"{RESULTS}/calibration/{name}/calibration.json",
            "images": f"{RESULTS}/calibration/{name}/images",
        }

    def for_compile(self, wildcards: Wildcards) -> dict[str, str]:
        """Return what a .bmodel is made from; int8 has tables, of its batch and, mixed, of its chip."""
        artifact = self.artifact(wildcards)
        name = f"{artifact.model}_{artifact.size}_{artifact.batch}b"
        top = f"{_ROOM}/mlir/{name}"
        files = {
            "top": f"{top}/top.mlir",
            "weights": f"{top}/weights.npz",
            "pictures": f"{top}/input.npz",
            "reference": f"{top}/reference.npz",
        }
        if artifact.precision == "int8":
            files["table"] = f"{_ROOM}/calibration/{name}.table"
            files["qtable"] = f"{_ROOM}/calibration/{artifact.chip}/{name}.qtable"
            pictures = f"{RESULTS}/calibration/{artifact.model}_{artifact.size}"
            files |= {"calibration": f"{pictures}/calibration.json", "images": f"{pictures}/images"}
        return files

    def for_calibrate(self, wildcards: Any) -> dict[str, str]:
        """Return what a calibration table is made from; the tool's own methods need no ranges.

        A batch's has that of single pictures beside it.
        """
        self._batch(wildcards)
        self._targets.check_size_for_chip("sophon", wildcards.model, wildcards.size)
        name = f"{wildcards.model}_{wildcards.size}"
        top = f"{_ROOM}/mlir/{name}_{wildcards.batch}b"
        files = {
            "top": f"{top}/top.mlir",
            "weights": f"{top}/weights.npz",
            "onnx": f"{RESULTS}/onnx/{name}.sim.onnx",
            "calibration": f"{RESULTS}/calibration/{name}/calibration.json",
            "images": f"{RESULTS}/calibration/{name}/images",
        }
        if self.settings.calibrate.method.startswith("ours:"):
            files["ranges"] = f"{RESULTS}/calibration/{name}/ranges.json"
        if wildcards.batch != "1":
            files["single"] = f"{_ROOM}/calibration/{name}_1b.table"
        return files

    def for_plan(self, wildcards: Any) -> dict[str, str]:
        """Return what a chip's qtable is made from; sensitivities, or pictures, only where settings ask."""
        known(wildcards.chip, self.settings.chips, "SOPHON chip")
        files = self.for_calibrate(wildcards)
        wanted = ["top", "onnx"]
        mixed = self.settings.mixed
        if mixed.by != "ours":
            wanted += ["weights", "calibration", "images"]
        found = {part: files[part] for part in wanted}
        if mixed.by != "ours":
            name = f"{wildcards.model}_{wildcards.size}_{wildcards.batch}b"
            found["table"] = f"{_ROOM}/calibration/{name}.table"
        if mixed.by == "ours" and mixed.most_layers:
            found["sensitivity"] = f"{RESULTS}/quant/{wildcards.model}_{wildcards.size}/sensitivity.json"
        return found

    def plan_tools(self) -> list[str]:
        """Return the stamp of the tools where a plan is a search of theirs."""
        return [self.stamp()] if self.settings.mixed.by != "ours" else []

    def plan_options(self, wildcards: Any) -> str:
        """Return the options that hand those files to the command."""
        files = self.for_plan(wildcards)
        if "sensitivity" in files:
            return f"--sensitivity {files['sensitivity']}"
        if "calibration" in files:
            folder = files["calibration"].rpartition("/")[0]
            return f"--calibration {folder} --table {files['table']}"
        return ""

    def for_twin(self, wildcards: Wildcards) -> dict[str, str]:
        """Return what a twin is made from: the .bmodel, and what that was made from."""
        return {"bmodel": f"{RESULTS}/{self.artifact(wildcards).path}", **self.for_compile(wildcards)}

    def table_options(self, wildcards: Wildcards) -> str:
        """Return the options that hand int8's tables to the command; empty for other precisions."""
        files = self.for_compile(wildcards)
        if "table" not in files:
            return ""
        return f"--table {files['table']} --qtable {files['qtable']}"

    def gate_options(self, wildcards: Wildcards) -> str:
        """Return the option that hands int8's gate its pictures; empty for other precisions."""
        files = self.for_compile(wildcards)
        folder = files.get("calibration", "").rpartition("/")[0]
        return f"--calibration {folder}" if folder else ""

    def proved_with(self, artifact: str) -> list[str]:
        """Return what a parity report of an artifact reads besides it and its parent; empty for other chips'.

        Args:
            artifact: below results/.

        Returns:
            A .bmodel's twin, and for a batch the file for one picture.

        Raises:
            KilnError: it is a .bmodel by its ending, but names something that there is not.
        """
        if not artifact.endswith(".bmodel"):
            return []
        named = artifact_of(artifact, self.config, self.settings)
        stem = f"{RESULTS}/{artifact.removesuffix('.bmodel')}"
        files = [f"{stem}.twin/final.mlir", f"{stem}.twin/weights.npz"]
        if named.batch > 1:
            files.append(f"{RESULTS}/{replace(named, batch=1).path}")
        return files

    def tools_of(self, artifact: str) -> list[str]:
        """Return the stamp of the tools that run an artifact here; nothing for other chips'."""
        return [self.stamp()] if artifact.endswith(".bmodel") else []

    def run_settings(self, artifact: str) -> str:
        """Return the settings that a .bmodel's parity report depends on, a rerun trigger; else nothing."""
        if not artifact.endswith(".bmodel"):
            return ""
        run = self.settings.run
        precision = artifact_of(artifact, self.config, self.settings).precision
        # Which of the two an int8 file is, its record says.
        names = ("int8", "mixed") if precision == "int8" else (precision,)
        return repr([(run.twin[name], run.batch[name]) for name in names])

    def threads_of(self, artifact: str, backend: str = "sophon-cmodel") -> int:
        """Return the threads that a rule that runs an artifact asks for.

        The C model's engines are threads that poll each other: where they share cores, each waits for the
        other's time slice. RFB-320 on BM1684 took 0.2 to 0.6 s on four cores and 3.3 s on two (measured,
        tpu_mlir 1.26).
        """
        return 4 if artifact.endswith(".bmodel") and backend == "sophon-cmodel" else 2
