"""The message for what cannot be read: why, and what to do about the common causes."""

from __future__ import annotations

import difflib
import errno
import stat
from pathlib import Path

from facekiln.errors import KilnError

# What makes a file, by the end of its name; the longer ends come first.
MAKERS = {
    "calibration.json": "calibration make",
    "ranges.json": "quant ranges",
    "top.mlir": "sophon transform",
    "final.mlir": "sophon twin",
    ".bmodel": "sophon compile",
    ".qtable": "sophon plan",
    ".sim.onnx": "onnx simplify",
    ".onnx": "onnx export",
    ".caffemodel": "caffe convert",
    ".prototxt": "caffe convert",
    ".param": "ncnn convert",
    ".tmfile": "tengine convert",
    ".wk": "nnie map",
    ".mm": "magicmind build",
}
_RESULTS = "results"
# More names than this are not searched for a near one.
_MOST_NAMES = 10_000


def unreadable(path: Path | str, error: OSError, what: str = "cannot be read") -> KilnError:
    """Return the error for a file or folder that the system would not let be read, with the next step.

    Args:
        path: the file or folder.
        error: what the system said.
        what: the beginning of the message.
    """
    return KilnError(f"{what}: {error.strerror or error}", file=path, hint=hint_of(path, error))


def readable_size(path: Path | str) -> int:
    """Return the bytes of a file (0 of a pipe) that may be read whole.

    Raises:
        KilnError: it is a device, such as /dev/full, whose bytes have no end.
        OSError: it cannot be looked at.
    """
    told = Path(path).stat()
    if stat.S_ISCHR(told.st_mode) or stat.S_ISBLK(told.st_mode):
        raise KilnError("is a device, not a file", file=path, hint="name a file")
    return told.st_size


def hint_of(name: Path | str, error: OSError) -> str | None:
    """Return the next step where the system would not let a file or folder be read, if one is known."""
    path, number = Path(name), error.errno
    if number == errno.ENOENT:
        return _missing(path)
    if number == errno.ENOTDIR:
        inner = next((parent for parent in path.parents if parent.is_file()), path.parent)
        return f"{inner} is no folder: name the folder that holds {path.name}"
    if number == errno.EISDIR:
        inside = sorted(_names(path))
        return f"name a file in it, e.g. {path / inside[0]}" if inside else "the folder is empty: name a file"
    if number in (errno.EACCES, errno.EPERM):
        return "let this account read it, and enter the folders above it: chmod, or ask their owner"
    if number in (errno.ENAMETOOLONG, errno.ELOOP):
        return "name a file that is there"
    return None


def _missing(path: Path) -> str:
    """Return what to do about a path where nothing is: a link, a typing error, or not made yet."""
    if path.is_symlink():
        return f"it is a link to {path.readlink()}, where nothing is: mend the link"
    first = next((one for one in reversed(path.parents) if not one.exists()), path)
    near = difflib.get_close_matches(first.name, _names(first.parent), n=1, cutoff=0.75)
    steps = [f"did you mean {first.with_name(near[0])}?"] if near else []
    makers = [verb for end, verb in MAKERS.items() if path.name.endswith(end)]
    if path.suffix in (".yaml", ".yml"):
        steps.append("run in facekiln's own folder, or name its config folder: --config FOLDER")
    elif _RESULTS in path.parts:
        below = Path(*path.parts[path.parts.index(_RESULTS) :])
        steps.append(f"make it: snakemake --cores 4 {below}")
    elif makers:
        steps.append(f"make it: facekiln {makers[0]} --help")
    elif first != path:
        steps.append(f"the folder {first} is not there: check the path")
    elif not near:
        steps.append("check the name")
    return " ".join(steps)


def _names(folder: Path) -> list[str]:
    try:
        names = [one.name for one in folder.iterdir()]
    except OSError:
        return []
    return names if len(names) <= _MOST_NAMES else []


def foreign_hint(data: bytes) -> str:
    """Return the next step for a file whose bytes are not what they are taken for."""
    if not data.strip(b"\0 \t\r\n"):
        return "it holds nothing: was it cut off, or the disk full? Make it again"
    if data[:256].lstrip()[:1] == b"<":
        return "it is a web page or XML: download the raw file"
    return "is it the right file? If it was cut off or changed, make it again"
