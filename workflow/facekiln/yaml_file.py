"""YAML files of users: what YAML allows and nobody means is refused by file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from facekiln.artifact import read_bytes
from facekiln.errors import KilnError

# libyaml's is nine times as fast; wheels have it, some distributions' packages do not.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_VALUES = 1_000_000  # of one file, its aliases written out
_MOST_NESTED = 100
_NESTING = "[{-:?"  # each level of nesting needs one of these
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path | str) -> Any:
    """Read a YAML file.

    Raises:
        KilnError: missing, unreadable or not YAML; a key is given twice in one mapping, of which PyYAML would
            keep the last; it is nested too deep; or its aliases hold themselves, or blow up to more than a
            million values. The message has the line.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise KilnError(f"is not YAML: {error}", file=path) from error
    try:
        _check_nesting(text, path)
        loader = _LOADER(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _values(node, path, {})
        return loader.construct_document(node)
    except (yaml.YAMLError, RecursionError) as error:
        raise KilnError(f"is not YAML: {error}", file=path) from error
    except (
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
    ) as error:  # PyYAML's, of a date of month 99 and so on
        raise KilnError(
            f"has a value that is not of its kind: {error}",
            file=path,
            hint="put the value into quotes if it is text; no key here takes a date or a !!tag",
        ) from error


def _check_nesting(text: str, file: Path | str) -> None:
    """Refuse what is nested so deep that libyaml's composer, which recurses in C, would crash."""
    if sum(map(text.count, _NESTING)) < 1000:  # Python's own limit of recursion is no less
        return
    depth = 0
    events: Any = yaml.parse(text, Loader=_LOADER)
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_NESTED:
            line = f"line {event.start_mark.line + 1}"
            raise KilnError("is nested too deep", file=file, where=line, limit=f"{_MOST_NESTED} levels")


def _values(node: yaml.Node, file: Path | str, known_sizes: dict[int, int]) -> int:
    """Return how many values a node is once its aliases are written out."""
    size = known_sizes.get(id(node))
    line = f"line {node.start_mark.line + 1}"
    if size == 0:
        raise KilnError("holds itself by an alias", file=file, where=line, hint="write the value out")
    if size is not None:
        return size
    known_sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if (key.tag, str(key.value)) in seen and key.tag != _MERGE:
                where = f"line {key.start_mark.line + 1}"
                raise KilnError(
                    f"has the key '{key.value}' twice", file=file, where=where, hint="remove one of the two"
                )
            seen.add((key.tag, str(key.value)))
            size += _values(key, file, known_sizes) + _values(value, file, known_sizes)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_values(item, file, known_sizes) for item in node.value)
    if size > _MOST_VALUES:
        raise KilnError("has aliases of aliases", file=file, where=line, value=size, limit=_MOST_VALUES)
    known_sizes[id(node)] = size
    return size
