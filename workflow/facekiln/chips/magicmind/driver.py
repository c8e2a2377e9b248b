"""Builds a MagicMind model inside the vendor's own Python: `python3 driver.py JOB_FOLDER`.

The SDK's images carry Python 3.7, so this is one file of standard library and numpy that is copied into the
job folder. The folder has `job.json` (see `facekiln.chips.magicmind.job`), the network's files and, where the
model is quantised, `samples.npy`. The model is written to the name that the job gives; `result.json` is
written last, so that a folder without it is a build that did not end well. Progress goes to standard output,
one `facekiln: stage i/n: words` a line; a failure is the line `facekiln: failed: {JSON}` and exit status 1.

The calls are those of Cambricon's public samples (magicmind_cloud, releases 0.13 to 1.7).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

JOB, RESULT = "job.json", "result.json"
VERSION = 2
_KINDS = {"onnx": "kOnnx", "torchscript": "kPytorch", "caffe": "kCaffe"}
_ALGORITHMS = {"linear": "LINEAR_ALGORITHM", "eqnm": "EQNM_ALGORITHM"}
_STAGES = 6


class Fault(Exception):
    """What stops a build: `what` happened, to which `call`, the SDK's own `answer`, and the next step."""

    def __init__(self, what: str, call: str = "", answer: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.told = {"what": what, "call": call, "answer": answer, "hint": hint}


def tell(text: str) -> None:
    """Print a line at once: the caller reads along."""
    sys.stdout.write("facekiln: " + text + "\n")
    sys.stdout.flush()


def stage(number: int, text: str) -> None:
    """Tell which of the stages begins."""
    tell(f"stage {number}/{_STAGES}: {text}")


def check(status: Any, call: str, hint: str = "") -> None:
    """Stop where an answer of the SDK is not ok; calls that answer nothing have raised where they failed."""
    if status is None or status is True:
        return
    ok = getattr(status, "ok", None)
    if ok is None:
        if status is False:
            raise Fault("the SDK refused", call, "False", hint)
        return
    if not ok():
        raise Fault("the SDK refused", call, str(status), hint)


def attribute(owner: Any, name: str, what: str) -> Any:
    """Return a name of the SDK, or stop with the names that it has instead: releases differ."""
    if not hasattr(owner, name):
        there = [key for key in dir(owner) if not key.startswith("_")]
        raise Fault(
            f"this release of the SDK has no {name}",
            what,
            "has: " + ", ".join(there[:40]),
            "the driver knows releases 0.13 to 1.7",
        )
    return getattr(owner, name)


def read_job(folder: Path) -> dict[str, Any]:
    """Read job.json and check what the build cannot do without."""
    try:
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Fault(
            f"job.json cannot be read: {error}", hint="give the folder that facekiln wrote"
        ) from error
    if job.get("version") != VERSION:
        raise Fault(
            f"the job is of version {job.get('version')}, the driver of {VERSION}",
            hint="write the job folder again with the facekiln that this driver came with",
        )
    for key in (
        "name",
        "kind",
        "files",
        "inputs",
        "build_config",
        "calibration",
        "precisions",
        "places",
        "output",
    ):
        if key not in job:
            raise Fault(f"job.json has no `{key}`", hint="write the job folder again")
    for name in job["files"]:
        if not (folder / name).is_file():
            raise Fault(f"the job folder has no {name}", hint="copy the whole folder")
    return job


def import_sdk() -> Any:
    """Return (the runtime module, the Parser class)."""
    try:
        import magicmind.python.runtime as mm
        from magicmind.python.runtime.parser import Parser
    except ImportError as error:
        raise Fault(
            f"the MagicMind SDK cannot be imported: {error}",
            "import magicmind.python.runtime",
            hint=f"run this in the vendor's image (Python {sys.version.split()[0]} here)",
        ) from error
    return mm, Parser


def sdk_version(mm: Any) -> str:
    """Return the SDK's version by the first way that answers; which one a release has is not documented."""
    for name in ("__version__", "get_version", "version"):
        found = getattr(mm, name, None)
        try:
            value = found() if callable(found) else found
        except Exception:
            continue
        if isinstance(value, (str, int)) and str(value):
            return str(value)
    try:
        import pkg_resources

        return str(pkg_resources.get_distribution("magicmind").version)
    except Exception:
        return "unknown"


def parse(mm: Any, parser_class: Any, job: dict[str, Any], folder: Path) -> Any:
    """Return the parsed network, its inputs' sizes set."""
    network = mm.Network()
    kind = attribute(attribute(mm, "ModelKind", "ModelKind"), _KINDS[job["kind"]], "ModelKind")
    parser = parser_class(kind)
    if job["kind"] == "torchscript":
        types = [attribute(mm.DataType, item["dtype"], "DataType") for item in job["inputs"]]
        check(parser.set_model_param("pytorch-input-dtypes", types), "Parser.set_model_param")
    files = [str(folder / name) for name in job["files"]]
    check(
        parser.parse(network, *files),
        "Parser.parse({})".format(", ".join(job["files"])),
        "the operator that it does not know is named above; try another `source`",
    )
    for place, item in enumerate(job["inputs"]):
        if item["dims"] is not None:
            check(
                network.get_input(place).set_dimension(mm.Dims(list(item["dims"]))),
                "set_dimension({})".format(item["dims"]),
            )
    return network


def configure(mm: Any, job: dict[str, Any]) -> Any:
    """Return the builder's configuration; the older form of `archs` is tried where the newer is refused."""
    config = mm.BuilderConfig()
    wanted = job["build_config"]
    answer = config.parse_from_string(json.dumps(wanted))
    refused = answer is False or not getattr(answer, "ok", lambda: True)()
    if refused and "archs" in wanted:
        older = dict(wanted)
        older["archs"] = [
            name for item in wanted["archs"] for name in (item if isinstance(item, dict) else [item])
        ]
        if older["archs"] != wanted["archs"]:
            tell(f"note: `archs` with cluster counts was refused ({answer}); trying names alone")
            config = mm.BuilderConfig()
            answer = config.parse_from_string(json.dumps(older))
    check(answer, "BuilderConfig.parse_from_string", "a key of another release? see build_config in job.json")
    return config


def set_precisions(mm: Any, network: Any, wanted: dict[str, str], places: dict[str, int]) -> list[str]:
    """Set the precision of the nodes that the plan names; return those that were set, by the SDK's names.

    A parser may name nodes its own way. Of the plan's nodes some are known by their place, too: the number of
    a convolution in the order of computation.
    """
    if not wanted:
        return []
    nodes, convolutions = {}, []
    for node in network.get_all_nodes_in_network():
        nodes[node.get_node_name()] = node
        if "conv" in str(node.get_node_type()).lower():
            convolutions.append(node.get_node_name())
    kinds, missing = {}, []
    for name in sorted(wanted):
        place = places.get(name, len(convolutions))
        if name in nodes:
            kinds[name] = wanted[name]
        elif place < len(convolutions):
            kinds.setdefault(convolutions[place], wanted[name])
            tell(f"note: {name} is {convolutions[place]} here, by its place")
        else:
            missing.append(name)
    if missing:
        raise Fault(
            "the plan names nodes that the parsed network has not: " + ", ".join(missing[:5]),
            "get_all_nodes_in_network",
            f"has {len(nodes)}: " + ", ".join(sorted(nodes)[:20]),
            "name them as here in `precisions` of config/chips/magicmind.yaml",
        )
    for name, wanted_kind in sorted(kinds.items()):
        kind = attribute(mm.DataType, wanted_kind, "DataType")
        check(nodes[name].set_precision(0, kind), f"set_precision({name})")
        check(nodes[name].set_output_type(0, kind), f"set_output_type({name})")
    return sorted(kinds)


def calibration_data(mm: Any, samples: np.ndarray, batch: int, note: Callable[[int], None]) -> Any:
    """Return our samples behind the SDK's own interface.

    Args:
        mm: the SDK.
        samples: [N, C, H, W], what the network takes.
        batch: how many make a sample; a short rest is not given, as the SDK's own samples do it.
        note: called with how many were given.
    """

    class Data(mm.CalibDataInterface):
        def __init__(self) -> None:
            super().__init__()
            self._place = 0
            self._current: np.ndarray | None = None

        def get_shape(self) -> Any:
            return mm.Dims([batch] + [int(side) for side in samples.shape[1:]])

        def get_data_type(self) -> Any:
            return mm.DataType.FLOAT32

        def get_sample(self) -> np.ndarray | None:
            return self._current

        def next(self) -> Any:
            end = self._place + batch
            if end > len(samples):
                return mm.Status(mm.Code.OUT_OF_RANGE, "Data end reached")
            self._current = np.ascontiguousarray(samples[self._place : end], dtype=np.float32)
            self._place = end
            note(end)
            return mm.Status.OK()

        def reset(self) -> Any:
            self._place = 0
            self._current = None
            return mm.Status.OK()

    return Data()


def activate_device(mm: Any, number: int) -> Any:
    """Make a device of this machine the current one: calibration needs one."""
    with mm.System() as system:
        count = system.device_count()
    tell(f"note: {count} MLU here")
    if number >= count:
        raise Fault(
            f"calibration needs an MLU, and there is no device {number} here",
            "System.device_count",
            str(count),
            "pass the device into the container, or name a machine with one: sdk.remote",
        )
    device = mm.Device()
    device.id = number
    check(device.active(), "Device.active")
    return device


def calibrate(mm: Any, network: Any, config: Any, wanted: dict[str, Any], folder: Path) -> int:
    """Calibrate; return how many samples were given."""
    samples = np.load(str(folder / wanted["samples"]), mmap_mode="r", allow_pickle=False)
    batch = int(wanted["batch"])
    if len(samples) < batch:
        raise Fault(f"there are fewer samples than a batch takes: {len(samples)} of {batch}")
    given = [0]

    def note(count: int) -> None:
        given[0] = max(given[0], count)
        tell(f"sample {count}/{len(samples)}")

    algorithms = attribute(mm, "QuantizationAlgorithm", "QuantizationAlgorithm")
    algorithm = attribute(algorithms, _ALGORITHMS[wanted["algorithm"]], "QuantizationAlgorithm")
    calibrator = mm.Calibrator([calibration_data(mm, samples, batch, note)])
    check(calibrator.set_quantization_algorithm(algorithm), "set_quantization_algorithm")
    if wanted["remote"]:
        remote = attribute(mm, "RemoteConfig", "RemoteConfig")()
        remote.address = wanted["remote"]
        check(calibrator.set_remote(remote), "set_remote({})".format(wanted["remote"]))
    else:
        activate_device(mm, int(wanted["device"]))
    check(
        calibrator.calibrate(network, config),
        "Calibrator.calibrate",
        "are the samples normalised as it wants them (`calibration.samples`)?",
    )
    if not given[0]:
        raise Fault("the SDK took no sample, so nothing is calibrated", "Calibrator.calibrate")
    return given[0]


def described(model: Any, end: str) -> list[dict[str, Any]]:
    """Return name, shape and type of the built model's inputs or outputs."""
    names = list(getattr(model, f"get_{end}_names")())
    shapes = list(getattr(model, f"get_{end}_dimensions")())
    kinds = list(getattr(model, f"get_{end}_data_types")())
    found = []
    for place, name in enumerate(names):
        shape = shapes[place]
        sides = shape.GetDims() if hasattr(shape, "GetDims") else shape
        found.append({"name": str(name), "shape": [int(side) for side in sides], "dtype": str(kinds[place])})
    return found


def build(folder: Path) -> dict[str, Any]:
    """Do the whole job; return what result.json gets."""
    begun = time.time()
    stage(1, "read the job")
    job = read_job(folder)
    mm, parser_class = import_sdk()
    version = sdk_version(mm)
    tell(f"note: MagicMind {version}, Python {sys.version.split()[0]}")
    stage(2, "parse " + ", ".join(job["files"]))
    network = parse(mm, parser_class, job, folder)
    stage(3, "configure")
    config = configure(mm, job)
    kept = set_precisions(mm, network, job["precisions"], job["places"])
    given = 0
    if job["calibration"]:
        stage(4, "calibrate")
        given = calibrate(mm, network, config, job["calibration"], folder)
    else:
        stage(4, "calibrate: not wanted")
    stage(5, "build " + job["name"])
    model = mm.Builder().build_model(job["name"], network, config)
    if model is None:
        raise Fault("the SDK built no model", "Builder.build_model", hint="its log is above")
    stage(6, "write " + job["output"])
    path = folder / job["output"]
    check(model.serialize_to_file(str(path)), "serialize_to_file")
    if not path.is_file() or not path.stat().st_size:
        raise Fault("the SDK said that it wrote the model, but there is none", "serialize_to_file")
    return {
        "version": VERSION,
        "sdk": version,
        "python": sys.version.split()[0],
        "samples": given,
        "precisions": kept,
        "inputs": described(model, "input"),
        "outputs": described(model, "output"),
        "bytes": path.stat().st_size,
        "seconds": round(time.time() - begun, 3),
    }


def fail(told: dict[str, str]) -> NoReturn:
    """Tell why in one line that the caller parses, and end."""
    tell("failed: " + json.dumps(told, sort_keys=True))
    sys.exit(1)


def main(arguments: list[str]) -> None:
    """Run the job of the folder that is named, or of this file's."""
    folder = Path(arguments[0] if arguments else __file__).resolve()
    folder = folder if folder.is_dir() else folder.parent
    result = folder / RESULT
    if result.exists():
        result.unlink()
    try:
        told = build(folder)
    except Fault as fault:
        fail(fault.told)
    except Exception as error:  # whatever the SDK raises, its words must reach the reader
        import traceback

        traceback.print_exc()
        fail({"what": f"{type(error).__name__}: {error}", "call": "", "answer": "", "hint": ""})
    part = folder / (RESULT + ".part")
    part.write_text(json.dumps(told, indent=2, sort_keys=True), encoding="utf-8")
    part.rename(result)
    tell("done: " + json.dumps({"bytes": told["bytes"], "sdk": told["sdk"]}, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1:])
