"""Names that survive the mapper: at most 31 characters, different after the cut, safe in file names."""

from __future__ import annotations

import re

from facekiln.caffe.net import Net
from facekiln.chips.nnie.legalise.graph import edit
from facekiln.chips.nnie.wk.container import NAME_BYTES
from facekiln.provenance import Edit

# The mapper writes `/` as `_` in the names of its dumps; other odd characters are not known to be safe.
_UNSAFE = re.compile(r"[^A-Za-z0-9_.\-]")
_HEAD = 14


def _shortened(name: str, taken: set[str]) -> str:
    """Return a safe name that is not taken: its beginning and its end, as the end tells levels apart."""
    safe = _UNSAFE.sub("_", name)
    cut = safe
    if len(safe) > NAME_BYTES:
        cut = f"{safe[:_HEAD]}_{safe[-(NAME_BYTES - _HEAD - 1) :]}"
    number = 1
    while cut in taken:
        number += 1
        ending = f"_{number}"
        base = cut if len(cut) + len(ending) <= NAME_BYTES else cut[: NAME_BYTES - len(ending)]
        candidate = base + ending
        if candidate not in taken:
            cut = candidate
    return cut


def shorten_names(net: Net) -> tuple[dict[str, str], list[Edit]]:
    """Rename layers and blobs in place where the mapper would cut or confuse them.

    A layer and a blob of one name keep one name.

    Returns:
        old -> new name of every renamed layer or blob, and one edit for each.
    """
    names = [*net.inputs, *(name for layer in net.layers for name in (layer.name, *layer.tops))]
    distinct = list(dict.fromkeys(names))
    fine = {name for name in distinct if len(name) <= NAME_BYTES and not _UNSAFE.search(name)}
    taken = set(fine)
    renamed: dict[str, str] = {}
    for name in distinct:
        if name not in fine:
            renamed[name] = _shortened(name, taken)
            taken.add(renamed[name])
    net.inputs = {renamed.get(name, name): shape for name, shape in net.inputs.items()}
    for layer in net.layers:
        layer.name = renamed.get(layer.name, layer.name)
        layer.bottoms = [renamed.get(name, name) for name in layer.bottoms]
        layer.tops = [renamed.get(name, name) for name in layer.tops]
    reason = f"the mapper cuts names at {NAME_BYTES} characters and writes '/' as '_' in file names"
    return renamed, [edit("NNIE-NAME", old, f"'{old}' -> '{new}'", reason) for old, new in renamed.items()]
