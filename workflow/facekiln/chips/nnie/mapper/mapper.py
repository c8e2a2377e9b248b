"""The emulated nnie_mapper: a program with the vendor tool's interface, whose .wk no board can run.

`nnie_mapper_emu X.cfg` (or `python -m facekiln.chips.nnie.mapper X.cfg`) reads the same .cfg, enforces the
documented limits, calibrates on the image list, quantises with GFPQ, and writes `<instruction_name>.wk`,
marked EMULATED. Relative paths in the .cfg, and side files, belong to the current directory, as the
vendor's do. Its log has the vendor's stages. Exit status: 0, 1 where the mapping failed (no .wk is left
then), 2 for a wrong command line.

Two files are read besides those that the .cfg names, if they stand beside the prototxt: `X.heads.json`
(what the outputs are) and `X.prototxt.kiln.json` (names before legalisation). Limits and resizing are set
by chips/nnie.yaml of the folder in $FACEKILN_CONFIG, or of ./config.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from facekiln.caffe.net import Net
from facekiln.caffe.reader import read_net, read_prototxt
from facekiln.chips.nnie.legalise.limits import Finding
from facekiln.chips.nnie.legalise.restrictions import check_hp_names, check_net
from facekiln.chips.nnie.mapper.build import build_wk
from facekiln.chips.nnie.mapper.cfg import MapperConfig, read_cfg
from facekiln.chips.nnie.mapper.dumps import runtime_text, write_layer_dumps
from facekiln.chips.nnie.mapper.log import MapperLog
from facekiln.chips.nnie.mapper.quantise import check_emulated, hp_bits, quantise
from facekiln.chips.nnie.settings import CONFIG_VARIABLE, NnieSettings, load_settings
from facekiln.errors import KilnError
from facekiln.progress import progress_bar

USAGE = "usage: nnie_mapper_emu X.cfg"
_DUMP_LEVEL = 3


class _Refused(Exception):
    """The network breaks limits; each is in the log already."""


def _tell(findings: Sequence[Finding], log: MapperLog) -> None:
    for finding in findings:
        source = f"restrictions  rule: {finding.rule}"
        if finding.level == "refuse":
            text = f"error:{finding.what}, but the limit is: {finding.limit.text}!"
            log.error(source, f"layer name: [{finding.layer}]. {text}")
        else:
            log.warning(source, f"layer name: [{finding.layer}]. {finding.what}")
    if any(finding.level == "refuse" for finding in findings):
        raise _Refused


def _findings(net: Net, config: MapperConfig, settings: NnieSettings) -> list[Finding]:
    groups = zip(net.inputs, config.inputs, strict=False)
    images = {name for name, group in groups if group.image_type}
    return check_hp_names(net, config.compile_mode) + check_net(net, settings.restrictions, images)


def _check_only(config: MapperConfig, settings: NnieSettings, log: MapperLog) -> None:
    with log.stage("parse"):
        net = read_prototxt(config.prototxt_file)
        _tell(_findings(net, config, settings), log)
    log.line("check prototxt only: no known limit refuses this network")


def _map(config: MapperConfig, settings: NnieSettings, log: MapperLog, wk: Path) -> None:
    with log.stage("parse"):
        net = read_net(config.prototxt_file, config.caffemodel_file)
        _tell(_findings(net, config, settings), log)
    with log.stage("prepare"):
        check_emulated(config, net)
        bits = hp_bits(config, net)
    with log.stage("quantise"):
        quantised = quantise(config, net, bits, settings, log)
    engine = quantised.engine
    # The vendor's middle stages have no counterpart here: the container is built in one step.
    for stage in ("optimise", "memory", "instructions", "compress", "index"):
        with log.stage(stage):
            pass
    with log.stage("binary"):
        wk.parent.mkdir(parents=True, exist_ok=True)
        build_wk(wk, config, net, quantised)
    images = {name for name, group in zip(net.inputs, config.inputs, strict=True) if group.image_type}
    Path("RUNTIME.txt").write_text(runtime_text(engine, images), encoding="utf-8")
    if config.log_level == _DUMP_LEVEL:
        with log.stage("dumps"), progress_bar(len(engine.plan.operations), "mapper_quant", "layer") as bar:
            write_layer_dumps(Path(), engine, engine.trace(quantised.last), bar.update)


def run(cfg: Path, log: MapperLog) -> int:
    """Map what a .cfg names, in the current directory; return the exit status."""
    settings = load_settings(os.environ.get(CONFIG_VARIABLE, "config"))
    log.line(f"Mapper Version 0.0.0.0 (NNIE_{settings.nnie}) EMULATED by facekiln")
    config: MapperConfig | None = None
    wk: Path | None = None
    status = 1
    try:
        config = read_cfg(cfg)
        wk = Path(f"{config.instruction_name}.wk")
        wk.unlink(missing_ok=True)
        for note in config.notes:
            log.warning("cfg", note)
        if config.is_check_prototxt:
            _check_only(config, settings, log)
        else:
            _map(config, settings, log, wk)
        status = 0
    except _Refused:
        pass
    except KilnError as error:
        first, *more = str(error).splitlines()
        log.error("facekiln", " ".join([first, *(line.strip() for line in more)]))
    except OSError as error:
        log.error("facekiln", f"{error.filename}: {error.strerror}")
    except MemoryError:
        log.error("facekiln", "out of memory: close other programs, or map on a larger machine")
    finally:
        if status and wk:
            with contextlib.suppress(OSError):
                wk.unlink(missing_ok=True)
    if config:
        log.write_files(Path(), config.log_level)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        sys.stderr.write(f"{USAGE}\n{__doc__}")
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    try:
        return run(Path(arguments[0]), MapperLog())
    except KilnError as error:
        sys.stdout.write(f"ERROR: file: facekiln\n{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
