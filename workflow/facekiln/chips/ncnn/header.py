"""A header, C and C++, with the indices of a graph's blobs and layers, for programs that address them by
number.

ncnn numbers blobs in the order in which layers make them, and layers in their order in the file; the text
and the binary form of a `.param` have the same numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from facekiln.artifact import write_text
from facekiln.chips.ncnn.model import unstamped
from facekiln.chips.ncnn.param import Graph

SUFFIX = ".id.h"


def _word(name: str) -> str:
    word = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{word}" if word[:1].isdigit() else word


def _unique(names: list[str]) -> list[str]:
    """Return C identifiers; names that become the same get their index behind."""
    words = [_word(name) for name in names]
    times = Counter(words)
    taken = {word for word in words if times[word] == 1}
    made = []
    for place, word in enumerate(words):
        if times[word] > 1:
            word = f"{word}_{place}"
            while word in taken:
                word += "_"
            taken.add(word)
        made.append(word)
    return made


def header_of(graph: Graph, param: Path | str) -> str:
    """Return the header's text.

    Args:
        graph: the graph.
        param: its file, whose name gives the prefix and the guard.
    """
    prefix = _word(Path(param).name.removesuffix(".param"))
    guard = f"FACEKILN_{prefix.upper()}_ID_H"
    blobs = graph.blobs()
    index = {blob: place for place, blob in enumerate(blobs)}
    lines = [
        f"/* Indices of {Path(param).name}. Inputs: {', '.join(graph.inputs())};"
        f" outputs in order: {', '.join(graph.outputs())}. */",
        f"#ifndef {guard}",
        f"#define {guard}",
    ]
    for kind, names in (("INPUT", graph.inputs()), ("OUTPUT", graph.outputs())):
        listed = ", ".join(str(index[name]) for name in names)
        lines.append(f"static const int {prefix}_{kind}S[{len(names)}] = {{{listed}}};")
    for kind, names in (("BLOB", blobs), ("LAYER", [unstamped(layer.name) for layer in graph])):
        rows = [f"    {prefix}_{kind}_{word} = {place}" for place, word in enumerate(_unique(names))]
        lines += ["enum {", ",\n".join(rows), "};"]
    lines.append(f"#endif /* {guard} */")
    return "\n".join(lines) + "\n"


def write_header(param: Path, text: str) -> Path:
    """Write the header beside a `.param` and return its path.

    Raises:
        KilnError: the disk is full.
    """
    path = param.with_suffix(SUFFIX)
    write_text(path, text)
    return path
