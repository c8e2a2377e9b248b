"""Make a quantised tmfile on disk from the fp32 one, with its scale table and a record of what was done."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import read_json, write_bytes
from facekiln.chips.tengine.build_file import Built, checked, facts_of, written
from facekiln.chips.tengine.equalise import equalise, pairs_of
from facekiln.chips.tengine.format import FP32, INT8, UINT8, Quant, TmGraph
from facekiln.chips.tengine.quantise import quantise
from facekiln.chips.tengine.ranges import activations, measure_ranges
from facekiln.chips.tengine.reader import read_tmfile
from facekiln.chips.tengine.scale_table import read_table, table_text
from facekiln.chips.tengine.scales import ALGORITHMS, HISTOGRAMS, scales_of, scales_of_ranges
from facekiln.chips.tengine.settings import TengineSettings
from facekiln.chips.tengine.simulate import Simulation
from facekiln.chips.tengine.writer import tmfile_bytes
from facekiln.chips.vendor_tool import run_tool
from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.parity.sight import Run, judge_sight, measure_sight
from facekiln.progress import log
from facekiln.provenance import read_record, tool_versions, write_record
from facekiln.vision.image import read_image
from facekiln.vision.preprocess import to_tensor

_HINT = (
    "quantise.algorithm mse, equalise true, or many more calibration pictures; KL on few pictures does this"
)

LIST, FACTS = "list.txt", "calibration.json"
DTYPES = {"uint8": UINT8, "int8": INT8}


def calibration_pictures(folder: Path, model: Model, label: str) -> list[Path]:
    """Return the pictures of a calibration set, which must be of the model's size.

    Raises:
        KilnError: no list.txt, an empty one, a picture that is not there, or a set of another size.
    """
    if (folder / FACTS).is_file():
        size, declared = read_json(folder / FACTS).get("size"), list(model.size(label))
        if size != declared:
            raise KilnError("the calibration set has another size", file=folder, value=size, limit=declared)
    try:
        names = (folder / LIST).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise KilnError(
            f"cannot be read: {error.strerror}",
            file=folder / LIST,
            hint=f"facekiln calibration make --model {model.name} --size {label} --source {folder}"
            " --output FOLDER makes such a set of your pictures",
        ) from error
    paths = [folder / name for name in names if name.strip()]
    for path in paths:
        if not path.is_file():
            raise KilnError("a listed picture does not exist", file=path)
    if not paths:
        raise KilnError("lists no picture", file=folder / LIST)
    return paths


def _feeds(paths: Iterable[Path], model: Model, label: str) -> Iterator[NDArray[np.float32]]:
    for path in paths:
        picture = read_image(path)
        if picture.shape[:2] != model.size(label):
            size = model.size(label)
            raise KilnError("is not of the network's size", file=path, value=picture.shape[:2], limit=size)
        yield to_tensor(picture, model.input)


@dataclass(frozen=True)
class Calibration:
    """Where scales come from: a folder of pictures, and a scale table that wins over measuring."""

    folder: Path
    table: Path | None = None


def quantise_file(
    source: Path,
    precision: str,
    calibration: Calibration,
    model: Model,
    label: str,
    settings: TengineSettings,
    output: Path,
    *,
    table_out: Path | None = None,
) -> Built:
    """Quantise an fp32 tmfile, check that it still finds what that one finds, and write it with its record.

    Args:
        source: the fp32 file.
        precision: "uint8" or "int8".
        calibration: pictures, and a table instead of measuring.
        model, label: whose preprocessing and faces.
        settings: who quantises and how, and the gate.
        output: the quantised file.
        table_out: the scales before they are handed back, as quant_tool writes them.

    Raises:
        KilnError: an operator has no kernel in that type, the set or table does not fit, or a tool failed.
        GateError: the quantised file has gone blind. Nothing is written then.
    """
    graph = read_tmfile(source)
    if graph.dtype != FP32:
        raise KilnError("is quantised already", file=source, value=graph.precision, limit="fp32")
    record = read_record(source)
    names = dict(record.facts.get("outputs", {})) if record else {}
    paths = calibration_pictures(calibration.folder, model, label)
    evened, pairs = equalise(graph) if _equalised(calibration, settings) else (graph, 0)
    if calibration.table and not pairs and settings.quantise.equalise and pairs_of(graph):
        log.info(
            "%s: its scales are of a network that is not evened out, so this one is not", calibration.table
        )
    scales = _scales(evened, paths, DTYPES[precision], calibration, model, label, settings)
    if settings.tools.mode == "builtin" and scales is not None:
        try:
            data = tmfile_bytes(quantise(evened, scales, DTYPES[precision], style=settings.quantise.style))
        except KilnError as error:
            raise KilnError(str(error), file=source) from error
    else:
        asked = Asked(precision, tmfile_bytes(evened), table_text(scales).encode() if scales else None)
        data, text = _by_quant_tool(asked, paths, model, label, settings)
    result, warnings = checked(data, output)
    if result.precision != precision:
        raise KilnError(
            "is of another precision than was asked for", file=output, value=result.precision, limit=precision
        )
    feeds = list(_feeds(paths[: settings.gate.pictures], model, label))
    figures = measure_sight(_runner(graph, names), _runner(result, names), feeds, model, model.size(label))
    judge_sight(figures, settings.gate, str(output), _HINT)
    write_bytes(output, data)
    outputs = [output]
    if table_out is not None:
        write_bytes(table_out, table_text(scales).encode() if scales else text)
        outputs.append(table_out)
    write_record(
        outputs,
        verb="tengine quantise",
        inputs=[source, *([calibration.table] if calibration.table else [calibration.folder / LIST])],
        settings={
            "model": model.name,
            "precision": precision,
            "algorithm": "table" if calibration.table else settings.quantise.algorithm,
            "style": settings.quantise.style,
            "equalise": pairs > 0,
            "mode": settings.tools.mode,
            "pictures": len(paths),
        },
        tools=tool_versions("numpy", "onnx", "onnxruntime"),
        facts={
            "outputs": names,
            **facts_of(result),
            "equalised_pairs": pairs,
            "gate": figures,
            "warnings": [item.sentence() for item in warnings],
        },
    )
    return Built(result, len(data), [], warnings, figures)


def scales_file(source: Path, ranges: Path, method: str, precision: str, output: Path) -> tuple[int, int]:
    """Write our own ranges of an ONNX file as its fp32 tmfile's scale table.

    The scales are of the network as it is. `quantise_file` without a table evens its weights out first, which
    changes the ranges of every channel: they cannot be had from those of the ONNX file.

    Args:
        source: the fp32 file.
        ranges: of `facekiln quant ranges`.
        method: "minmax", "percentile", "kl" or "mse".
        precision: "uint8" or "int8".
        output: the table.

    Returns:
        How many lines it has, and how many pairs of convolutions `quantise_file` would even out.

    Raises:
        KilnError: the file is quantised already, or the ranges are of another ONNX file.
    """
    from facekiln.quant.ranges import read_ranges

    graph, found, record = read_tmfile(source), read_ranges(ranges), read_record(source)
    if graph.dtype != FP32:
        raise KilnError("is quantised already", file=source, value=graph.precision, limit="fp32")
    made_from = {item["sha256"] for item in record.inputs} if record else set()
    if made_from and found.artifact_sha256 and found.artifact_sha256 not in made_from:
        raise KilnError(
            "was measured on another ONNX file than the tmfile was made from",
            file=ranges,
            value=found.artifact_sha256[:16],
            limit=", ".join(sorted(one[:16] for one in made_from)),
            hint="facekiln quant ranges",
        )
    scales = scales_of_ranges(graph, found, DTYPES[precision], method)
    write_bytes(output, table_text(scales).encode())
    write_record(
        output,
        verb="tengine scales",
        inputs=[source, ranges],
        settings={"precision": precision, "method": method, "equalise": False},
        tools=tool_versions("numpy"),
    )
    return len(scales), len(pairs_of(graph))


def _equalised(calibration: Calibration, settings: TengineSettings) -> bool:
    """Whether weights are evened out first; a table's scales are of a network that was, or was not.

    Ours says which in its record; a table of quant_tool's has none.
    """
    if calibration.table is None:
        return settings.quantise.equalise and settings.quantise.style == "exact"
    record = read_record(calibration.table)
    return bool(record and record.settings.get("equalise"))


def _scales(
    graph: TmGraph,
    paths: list[Path],
    dtype: int,
    calibration: Calibration,
    model: Model,
    label: str,
    settings: TengineSettings,
) -> dict[str, Quant] | None:
    """Return the scales to quantise with; None where the user's tool is to measure them itself."""
    algorithm = settings.quantise.algorithm
    if calibration.table:
        return read_table(calibration.table, activations(graph))
    if settings.tools.mode != "builtin" and ALGORITHMS[algorithm] is not None:
        return None
    ranges = measure_ranges(
        graph, lambda: _feeds(paths, model, label), len(paths), histograms=HISTOGRAMS.get(algorithm)
    )
    return scales_of(graph, ranges, dtype, algorithm=algorithm, style=settings.quantise.style)


@dataclass(frozen=True)
class Asked:
    """What quant_tool is given: the precision, the fp32 file, and a scale table if it is not to measure."""

    precision: str
    tmfile: bytes
    table: bytes | None


def _by_quant_tool(
    asked: Asked, paths: list[Path], model: Model, label: str, settings: TengineSettings
) -> tuple[bytes, bytes]:
    """Return what quant_tool makes, and its scale table."""
    command = settings.tools.quant_uint8 if asked.precision == "uint8" else settings.tools.quant_int8
    height, width = model.size(label)
    with tempfile.TemporaryDirectory(prefix="facekiln-tengine-") as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for number, path in enumerate(paths):
            shutil.copyfile(path, folder / "images" / f"{number:05d}{path.suffix}")
        (folder / "in.tmfile").write_bytes(asked.tmfile)
        arguments = ["-m", "in.tmfile", "-i", "images", "-o", "out.tmfile"]
        number = ALGORITHMS[settings.quantise.algorithm] or 0
        arguments += ["-a", str(number), "-g", f"3,{height},{width}"]
        # Mean and scale are in the order after the swap, as the model declares them.
        arguments += ["-w", ",".join(f"{value:.9g}" for value in model.input.mean)]
        arguments += ["-s", ",".join(f"{value:.9g}" for value in model.input.scale)]
        arguments += ["-b", str(int(model.input.colour == "rgb"))]
        if asked.table is not None:
            (folder / "given.scale").write_bytes(asked.table)
            arguments += ["-f", "given.scale"]
        printed = run_tool(settings.tools, command, arguments, folder, key=f"tools.quant_{asked.precision}")
        log.info("%s", printed.strip().splitlines()[-1] if printed.strip() else "quant_tool said nothing")
        tables = sorted(folder.glob("table_*.scale")) or sorted(folder.glob("given.scale"))
        return written(folder / "out.tmfile", printed, "quant_tool"), tables[
            0
        ].read_bytes() if tables else b""


def _runner(graph: TmGraph, names: Mapping[str, str]) -> Run:
    """Return what simulates a file and gives its outputs by the model's names."""
    simulation = Simulation(graph)
    return lambda feed: {names.get(name, name): values for name, values in simulation.run(feed).items()}
