"""Map a legal Caffe pair on disk to a `.wk`: job folder, mapper, log, record."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from facekiln.artifact import read_json, write_bytes, write_text
from facekiln.caffe.reader import read_prototxt
from facekiln.chips.nnie.legalise.file import check_size
from facekiln.chips.nnie.mapper.cfg import COMPILE_MODES, MapperConfig, read_cfg, write_cfg
from facekiln.chips.nnie.mapper.compile import Mapped, map_job
from facekiln.chips.nnie.mapper.configure import CfgPaths, cfg_for, mean_text
from facekiln.chips.nnie.mapper.job import read_list, write_job
from facekiln.chips.nnie.settings import NnieSettings
from facekiln.chips.nnie.wk.container import short_name
from facekiln.chips.nnie.wk.inspect import describe
from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.progress import log
from facekiln.provenance import read_record, sidecar_of, tool_versions, write_record

LIST, FACTS = "list.txt", "calibration.json"


@dataclass(frozen=True)
class Source:
    """What is mapped.

    Attributes:
        prototxt, caffemodel: a legal pair.
        heads: its .heads.json, if it has one.
        calibration: a calibration folder: list.txt with paths relative to it, and calibration.json.
        model, size: whose declared preprocessing becomes the .cfg.
        precision: 8 or 16.
        cfg: a .cfg of the user's, whose keys win over everything above but the files.
    """

    prototxt: Path
    caffemodel: Path
    heads: Path | None
    calibration: Path | None
    model: Model
    size: str
    precision: int
    cfg: Path | None = None


def _pictures(source: Source) -> list[Path] | None:
    if source.calibration is None:
        return None
    facts = source.calibration / FACTS
    if facts.is_file():
        size = read_json(facts).get("size")
        declared = list(source.model.size(source.size))
        if size != declared:
            raise KilnError("the calibration set has another size", file=facts, value=size, limit=declared)
    return read_list(source.calibration / LIST, source.calibration)


def _config(source: Source, settings: NnieSettings) -> MapperConfig:
    paths = CfgPaths(prototxt=str(source.prototxt), caffemodel=str(source.caffemodel))
    if source.cfg is None:
        if source.calibration is None:
            raise KilnError("no calibration pictures", hint="give --calibration FOLDER, or a .cfg of yours")
        return cfg_for(source.model, settings, source.precision, paths)
    config = read_cfg(source.cfg)
    for note in config.notes:
        log.warning("%s: %s", source.cfg, note)
    if (
        config.compile_mode in COMPILE_MODES.values()
        and config.compile_mode != COMPILE_MODES[source.precision]
    ):
        raise KilnError(
            f"[compile_mode] {config.compile_mode} is not --precision {source.precision}", file=source.cfg
        )
    return replace(config, prototxt_file=paths.prototxt, caffemodel_file=paths.caffemodel)


def make_job(folder: Path, source: Source, settings: NnieSettings) -> MapperConfig:
    """Write the complete job folder of a mapping and return its .cfg (see `job.write_job`).

    Raises:
        KilnError: sizes do not agree, or a file is missing.
    """
    check_size(read_prototxt(source.prototxt), source.model, source.size, source.prototxt)
    pictures = _pictures(source)
    config = _config(source, settings)
    mean = mean_text(source.model.input) if source.cfg is None else None
    return write_job(folder, config, heads=source.heads, pictures=pictures, mean=mean)


def map_files(source: Source, settings: NnieSettings, output: Path, cfg_output: Path | None = None) -> Mapped:
    """Map a pair and write the .wk with its record; the mapper's raw log is kept as `{output}.mapper.log`.

    Args:
        source: what is mapped.
        settings: chip, mode, limits.
        output: the .wk file.
        cfg_output: where the .cfg as used is written, too.

    Raises:
        KilnError: see `make_job` and `compile.map_job`; no .wk is left behind.
    """
    with tempfile.TemporaryDirectory(prefix="nnie-") as name:
        folder = Path(name)
        config = make_job(folder, source, settings)
        mapped = map_job(folder, config, settings, Path(f"{output}.mapper.log"))
    if cfg_output:
        write_text(cfg_output, write_cfg(config))
    write_bytes(output, mapped.data)
    _warn_of_order(source, mapped)
    outputs = [output, *([cfg_output] if cfg_output else [])]
    inputs = [source.prototxt, source.caffemodel, source.heads, source.cfg]
    if source.calibration:
        inputs += [path for path in (source.calibration / LIST, source.calibration / FACTS) if path.is_file()]
    write_record(
        outputs,
        verb="nnie map",
        inputs=[path for path in inputs if path],
        settings={
            "model": source.model.name,
            "size": source.size,
            "precision": source.precision,
            "mode": settings.mapper.mode,
            "chip": settings.chip,
            "cfg": {key: value for key, value in asdict(config).items() if key != "notes"},
        },
        tools={**tool_versions(), "nnie_mapper": _tool(mapped)},
        facts=_facts(output, source),
        emulated=mapped.container.emulated,
    )
    return mapped


def _tool(mapped: Mapped) -> str:
    if mapped.container.emulated:
        return "EMULATED"
    version = ".".join(map(str, mapped.container.version))
    return f"{version} B{mapped.container.build:03d} {mapped.container.stamp}"


def _warn_of_order(source: Source, mapped: Mapped) -> None:
    """Board code indexes outputs by place: say so where the mapper did not keep the prototxt's order."""
    wanted = [short_name(name) for name in read_prototxt(source.prototxt).outputs]
    got = [node.name for segment in mapped.container.segments for node in segment.outputs]
    if wanted != got:
        log.warning("the .wk's outputs are %s, the prototxt's are %s", ", ".join(got), ", ".join(wanted))


def _facts(output: Path, source: Source) -> dict[str, Any]:
    said = describe(output)
    record = read_record(source.prototxt) if sidecar_of(source.prototxt).is_file() else None
    kept = ("precision", "mapper", "crc", "tmp_bytes", "alignment", "segments", "report", "warnings")
    return {
        **{key: said[key] for key in kept},
        "heads": read_json(source.heads)["heads"] if source.heads else [],
        "original_names": record.facts.get("original_names", {}) if record else {},
    }
