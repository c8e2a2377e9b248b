"""Why a tool of tpu_mlir failed: its own cause, which stands in mid-log, and what to do.

The last line of its output only repeats the command, and every failure is exit status 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAIL = 4
# Characters of the tool's own words in a message.
_LONGEST = 300


@dataclass(frozen=True)
class Cause:
    """What was wrong, in the tool's or our words, and the next step."""

    what: str
    hint: str | None = None


@dataclass(frozen=True)
class _Known:
    pattern: re.Pattern[str]
    what: str  # "{0}" is the matched text, "{1}" its first group
    hint: str


def _known(pattern: str, what: str, hint: str) -> _Known:
    return _Known(re.compile(pattern, re.MULTILINE), what, hint)


_FULL = _known(
    r"^.*No space left on device.*$",
    "the disk is full: {0}",
    "free some space: results/, the system's temporary folder and the toolchains folder are written",
)
# The tool says "similiarity" itself.
_MISSED = (
    r"^min_simil\w* = \(([^)]*)\)\s*\nTarget\s+(?:\S*/)?(\S+)\s*\nReference\s+(?:\S*/)?(\S+)\s*\n"
    r"npz compare FAILED"
)
_MEMORY = "let fewer jobs run at once (snakemake --resources mem_mb=...), or give the job more memory"
# One that brings others with it stands before them.
_KNOWN = (
    _FULL,
    _known(
        r"^.*(?:version [`']GLIBC_[\d.]+' not found.*|\*\*\* stack smashing detected \*\*\*.*)$",
        "a glibc of the wheel meets the machine's: {0}",
        "facekiln sophon environment --remove, then --make; it takes the wheel's own libc files out",
    ),
    _known(
        r"^.*(?:LLVM ERROR: out of memory|MemoryError|std::bad_alloc|Cannot allocate memory).*$",
        "there is not enough memory: {0}",
        _MEMORY,
    ),
    _known(r"^Killed$", "one of its processes was killed, which the system does for want of memory", _MEMORY),
    _known(
        r"^(?:ModuleNotFoundError|ImportError): (.*)$",
        "its environment lacks something: {1}",
        "facekiln sophon environment --remove, then --make",
    ),
    _known(
        _MISSED.replace(r"(\S+)\s*\nReference", r"(\S*_model_outputs\.npz)\s*\nReference"),
        "the compiled file, simulated, is not the quantised model: least cosine, euclidean similarity and "
        "signal-to-noise ratio are {1} ({2} against {3})",
        "this is the compiler's fault, not the model's: keep the release of envs/sophon.txt; try --opt 1",
    ),
    _known(
        _MISSED,
        "it misses the tolerance: least cosine, euclidean similarity and signal-to-noise ratio are {1} "
        "({2} against {3})",
        "int8: calibrate on more and better pictures, or keep layers in float (facekiln sophon plan); the "
        "limits are deploy.tolerance in config/chips/sophon.yaml",
    ),
    _known(r"^npz compare FAILED", "two of its stages differ", "its log has the layers"),
    _known(
        r"^can't open calibration table file!?$",
        "the calibration table is not there",
        "give its path as seen from the job's folder, or an absolute one",
    ),
    _known(
        r"^can't get scale and zeropoint$",
        "no threshold for some layer: INT8 without a calibration table, or with one that lacks it",
        "facekiln sophon calibrate makes a table of the same top.mlir",
    ),
    _known(
        r"argument --(?:chip|processor)\S*: invalid choice: '?(\w+)'?",
        "it knows no chip '{1}'",
        "use one of chips in config/chips/sophon.yaml",
    ),
    _known(
        r"^\S+: error: (unrecognized arguments: .*|argument .*|the following arguments are required: .*)$",
        "its options are others in this release: {1}",
        "keep the release of envs/sophon.txt (environment.folder: null), or report this",
    ),
    _known(
        r"^ASSERT INFO: *Not Implemented",
        "the chip does not do this precision, or this operator in it",
        "bm1684 has no float16; else keep the layer in float32 (facekiln sophon plan)",
    ),
    _known(
        r"^RuntimeError: Op not support:\{(.*)\}$",
        "it has no operator {1} of ONNX",
        "make the network of others (facekiln onnx simplify folds some); what it knows is onnxop_factory of "
        "tpu_mlir/python/transform/OnnxConverter.py in the folder that `facekiln sophon environment` tells",
    ),
    _known(
        r"^AssertionError: Please check --input_shapes formula.*$",
        "the network's input has no fixed shape",
        "give one shape for each input: --input_shapes [[1,3,H,W]]",
    ),
    _known(
        r"local variable 'session' (?:referenced before assignment|.*not associated)",
        "its ONNX Runtime 1.16 cannot read the file: the IR version is above 9 or the opset above 19",
        "save it with ir_version 8 (model.ir_version = 8) and an opset up to 18",
    ),
    _known(
        r"^.*Got invalid dimensions for input: (.*)\n((?: .*\n?)*)",
        "the test input has another shape than the network: {1} {2}",
        "make the test input by the same model and size",
    ),
    _known(
        r"^.*WRONG:Shapes of the input tensors are not supported.*$|^ +assert \(?overflow >= 0\)?",
        "the input has another size or batch than the file was compiled for",
        "`model_tool --info` and `facekiln sophon inspect` tell the shape",
    ),
    _known(
        r"FATAL: ?File\[(.*?)\] is broken",
        "{1} is cut short or damaged, or no bmodel",
        "remove it and build it again",
    ),
    _known(
        r"^RuntimeError: There is no inputs$",
        "the calibration folder has no pictures or tensors",
        "check the folder that --dataset names",
    ),
    _known(
        r"^FileNotFoundError: .*: '?(.*?)'?$", "{1} is not there", "give paths as seen from the job's folder"
    ),
    _known(
        r"^PermissionError: .*$",
        "{0}",
        "the environment's folder and the job's have to be writable: the simulator links its library anew",
    ),
)
# What else may be a cause, in this order: an assertion's text, a fatal line, an exception but the last.
_GENERIC = (
    re.compile(r"^ASSERT INFO:\s*(.+)$", re.MULTILINE),
    re.compile(r"^(?:.*\bFATAL\b:?|LLVM ERROR:|.*: error:)\s*(.+)$", re.MULTILINE),
    re.compile(r"^(?!RuntimeError: \[!Error\])((?:\w+\.)*\w*(?:Error|Exception|Warning): .+)$", re.MULTILINE),
    re.compile(r"^ +(assert .+)\nAssertionError$", re.MULTILINE),
    re.compile(r"^(.+)\nUNREACHABLE executed", re.MULTILINE),
    re.compile(r"^(.*Assertion `.*' failed\.?)$", re.MULTILINE),
)


def cause_of(text: str, status: int) -> Cause:
    """Return why a tool failed.

    Args:
        text: its cleaned output.
        status: its exit status; negative, the signal that ended it.
    """
    if status == -9:
        return Cause("it was killed, which the system does for want of memory", _MEMORY)
    return _cause(_KNOWN, text) or _unknown(text)


def _cause(table: tuple[_Known, ...], text: str) -> Cause | None:
    for known in table:
        found = known.pattern.search(text)
        if found:
            groups = [_short(group or "") for group in (found[0], *found.groups())]
            return Cause(known.what.format(*groups).strip(), known.hint)
    return None


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]} ..."


def _unknown(text: str) -> Cause:
    for pattern in _GENERIC:
        found = pattern.search(text)
        if found:
            return Cause(_short(found[1]), "its whole output is in the log")
    tail = [line.strip() for line in text.splitlines() if line.strip()][-_TAIL:]
    if not tail or not re.search("error|fail|fatal|abort", text, re.IGNORECASE):
        said = f"; it said last: {_short(tail[-1])}" if tail else ""
        return Cause(
            f"it ended without a word, as a process does that is killed for want of memory{said}", _MEMORY
        )
    return Cause(" | ".join(_short(line) for line in tail), "its whole output is in the log")


# Of pip.
_INSTALL = (
    _FULL,
    _known(
        r"THESE PACKAGES DO NOT MATCH THE HASHES",
        "a file is not the one that was locked",
        "the index or the folder serves another file of that name; take the wheels of the public index",
    ),
    _known(
        r"^.*(?:Temporary failure in name resolution|Connection refused|ProxyError|SSLError|timed out).*$",
        "the index is not reachable: {0}",
        "set PIP_PROXY, PIP_CERT or PIP_INDEX_URL; without any index, environment.wheels in "
        "config/chips/sophon.yaml",
    ),
    _known(
        r"^ERROR: (No matching distribution found for .*)$",
        "{1}",
        "is an index reachable (PIP_INDEX_URL, PIP_PROXY, pip.conf)? without one, put every wheel of "
        "envs/sophon.txt into a folder and name it as environment.wheels in config/chips/sophon.yaml",
    ),
)


def install_cause_of(text: str, status: int) -> Cause:
    """Return why pip failed, as `cause_of`."""
    if status == -9:
        return Cause("pip was killed, which the system does for want of memory", _MEMORY)
    return _cause(_INSTALL, text) or _unknown(text)
