"""What this machine has: packages, vendor tools, the mirror. Nothing is imported to find out."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from facekiln.config import Config, load_config
from facekiln.errors import KilnError

REQUIRED = (
    "torch",
    "onnx",
    "onnxsim",
    "onnxruntime",
    "opencv-python-headless",
    "protobuf",
    "snakemake",
    "numpy",
    "paramiko",
)
OPTIONAL = {
    "MNN": "the second Caffe reader in parity reports; pip install -e .[dev]",
    "pyarrow": "Parquet files of detections; pip install -e .[parquet]",
    "ncnn": "runs and proves what is made for ncnn; pip install -e .[ncnn]",
    "pnnx": "converts ONNX for ncnn; pip install -e .[ncnn]",
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer: `ok`, `missing` (needed) or `absent` (optional)."""

    verdict: str
    what: str
    detail: str


def findings(config_folder: Path | str = "config") -> list[Finding]:
    """Look at Python, packages, the config, the mirror and the mapper."""
    rows = [Finding("ok", "python", f"{platform.python_version()} ({sys.executable})")]
    rows += [_package(name, None) for name in REQUIRED]
    rows += [_package(name, why) for name, why in OPTIONAL.items()]
    try:
        config = load_config(config_folder)
    except KilnError as error:
        return [*rows, Finding("missing", "config", str(error))]
    rows.append(Finding("ok", "config", f"models: {', '.join(config.models)}; weights: {config.weights}"))
    rows.append(_mirror(config.mirror))
    rows.append(_sophon(config_folder, config))
    rows.append(_magicmind(config_folder))
    mapper = config.chips.get("nnie", {}).get("mapper", {})
    mode = mapper.get("mode", "emulator")
    if mode == "local" and not shutil.which(mapper["command"][0]):
        rows.append(
            Finding("missing", "nnie mapper", f"mode local, but '{mapper['command'][0]}' is not in PATH")
        )
    else:
        rows.append(
            Finding(
                "ok", "nnie mapper", f"mode {mode}" + (" (files are EMULATED)" if mode == "emulator" else "")
            )
        )
    return rows


def _package(name: str, why: str | None) -> Finding:
    try:
        return Finding("ok", name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding("absent", name, why) if why else Finding("missing", name, "pip install -e .")


def _sophon(config_folder: Path | str, config: Config) -> Finding:
    """Look for SOPHON's tools; as they are made on first need, only broken ones are `missing`."""
    from facekiln.chips.sophon.environment import fault_of, is_faulty_on_bm1684, wanted
    from facekiln.chips.sophon.interpreter import find_interpreter
    from facekiln.chips.sophon.settings import load_settings

    what, make = "sophon tools", "facekiln sophon environment --make"
    try:
        settings = load_settings(config_folder)
        environment = wanted(settings, config)
        fault = fault_of(environment)
        if not fault:
            warned = "; WRONG ON BM1684: use 1.26" if is_faulty_on_bm1684(environment.version) else ""
            return Finding("ok", what, f"tpu_mlir {environment.version} in {environment.folder}{warned}")
        if environment.own or environment.folder.exists():
            return Finding("missing", what, f"{environment.folder}: {fault}; {make}")
        python = find_interpreter(settings.environment)
    except KilnError as error:
        return Finding("absent", what, f"not made, and cannot be: {error}")
    return Finding("absent", what, f"made on first need with {python.path} (Python {python.version}); {make}")


def _magicmind(config_folder: Path | str) -> Finding:
    """Look whether the program of the SDK's mode is here; what is behind it is asked when it builds."""
    from facekiln.chips.magicmind.settings import load_settings

    what = "magicmind sdk"
    try:
        sdk = load_settings(config_folder).sdk
    except KilnError as error:
        return Finding("missing", what, str(error))
    if sdk.mode == "emulator":
        return Finding("ok", what, "mode emulator (files are EMULATED)")
    program = {"local": sdk.python, "docker": (sdk.docker_program,), "ssh": sdk.ssh_program}[sdk.mode][0]
    if not shutil.which(program):
        return Finding("missing", what, f"mode {sdk.mode}, but '{program}' is not in PATH")
    named = {"docker": sdk.docker_image, "ssh": sdk.ssh_host}
    if sdk.mode in named and not named[sdk.mode]:
        key = "image" if sdk.mode == "docker" else "host"
        return Finding("missing", what, f"mode {sdk.mode}, but sdk.{sdk.mode}.{key} is not set")
    return Finding("ok", what, f"mode {sdk.mode}, by {named.get(sdk.mode) or program}")


def _mirror(mirror: str | None) -> Finding:
    if mirror is None:
        return Finding(
            "absent", "mirror", "published weights are fetched by address; set FACEKILN_MIRROR for a folder"
        )
    if not Path(mirror).is_dir():
        return Finding("missing", "mirror", f"{mirror} is no folder")
    return Finding("ok", "mirror", mirror)
