"""Which file did the user mean? The nearest name that a rule makes, and what is wrong with the one asked for.

Names with a model are few enough to be listed, and each is compared with the one asked for. Names with
another artifact's in them (`parity/{artifact}.json`) are taken apart at their slashes, and each part is
mended alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from facekiln.config import DEFAULT_FOLDER, Config

# A part of a name: the wildcard that it stands for, "" for text between wildcards; and its text.
Part = tuple[str, str]

_WILDCARD = re.compile(r"\{(\w+)(?:,([^}]*))?\}")
_WORDS = re.compile(r"[\w-]*")
_LEAST, _LEAST_WORD = 0.6, 0.4
_TYPE = re.compile(r"(?<![a-z0-9])(uint|q?int|fp|float|f)(\d+)(?!\d)")
_KINDS = {"qint": "int", "fp": "float", "f": "float"}
# What a name without a type holds.
_TYPE_OF = {"nnie": "int8", "tengine": "float32", "ncnn": "float32"}
# What one type of number counts beside the likeness of letters, which is 1 for the same name.
_SAME_TYPE = 0.15


@dataclass(frozen=True)
class Suggestion:
    """The nearest name below results/ that a rule makes, and what is wrong with the one asked for."""

    name: str
    reason: str


def suggest(path: str, patterns: Iterable[str], config: Config) -> Suggestion | None:
    """Return the nearest name that a rule makes, None where none is near.

    Args:
        path: what was asked for, below results/.
        patterns: of outputs below results/, with constraints or without: `nnie/{model,\\w+}_{size}.wk`.
        config: has the models, sizes, chips and tables.
    """
    # An artifact's constraint may hold slashes, and decides nothing here.
    plain = [re.sub(r"\{artifact,[^}]*\}", "{artifact}", pattern) for pattern in dict.fromkeys(patterns)]
    listed = [pattern for pattern in plain if "{artifact}" not in pattern]
    folder = path.split("/")[0]
    found = [one for pattern in listed if _in(pattern, folder) for one in _names(pattern, path, config)]
    for pattern in plain:
        if "{artifact}" in pattern and _in(pattern, folder):
            found += _mended(pattern, path, listed, config)
    score = _Score(path)
    best = max(found, key=lambda one: score(_text(one)), default=[])
    if not best or score(_text(best)) < _LEAST:
        return None
    return Suggestion(_text(best), _reason(path, best, listed, config))


def _in(pattern: str, folder: str) -> bool:
    return pattern.split("/")[0] == folder


def _text(parts: Sequence[Part]) -> str:
    return "".join(text for _, text in parts)


def _split(pattern: str) -> list[Part]:
    """Return a pattern's parts; a wildcard's text is its constraint."""
    parts: list[Part] = []
    place = 0
    for found in _WILDCARD.finditer(pattern):
        parts += [("", pattern[place : found.start()]), (found[1], found[2] or "")]
        place = found.end()
    return [part for part in (*parts, ("", pattern[place:])) if any(part)]


def _names(pattern: str, path: str, config: Config) -> list[list[Part]]:
    """Return every name of a pattern; none where a wildcard can be anything."""
    done: list[list[Part]] = [[]]
    for kind, text in _split(pattern):
        done = [
            [*front, (kind, value)]
            for front in done
            for value in (_values(kind, text, dict(front), path, config) if kind else [text])
        ]
    return done


def _values(kind: str, form: str, chosen: Mapping[str, str], path: str, config: Config) -> list[str]:
    """Return what may stand for a wildcard behind those that are chosen already."""
    words = form.split("|")
    if form and all(_WORDS.fullmatch(word) for word in words):
        return words
    sophon = config.chips.get("sophon", {})
    chip = sophon.get("chips", {}).get(chosen.get("chip", ""), {})
    match kind:
        case "model":
            return list(config.models)
        case "size" if "model" in chosen:
            return list(config.models[chosen["model"]].sizes)
        case "table":
            return list(config.tables)
        case "chip":
            return list(sophon.get("chips", {}))
        case "precision" if "chip" in chosen:
            return list(chip["precisions"])
        case "precision" if path.startswith("magicmind/"):
            from facekiln.chips.magicmind.names import PRECISIONS

            return list(PRECISIONS)
        case "cores":
            return ["", *(f"_{count}core" for count in chip.get("cores", []) if count > 1)]
        case "batch" if path.startswith("sophon/"):
            return list(map(str, sophon.get("batches", [])))
        case "batch":
            typed = re.search(r"_([1-9]\d{0,2})b|_([1-9]\d?)\.", path)
            return [typed[1] or typed[2]] if typed else ["1"]
        case _:
            return []


class _Score:
    """How near a name is to the one asked for: 1 for the same, more where both hold one type of number."""

    def __init__(self, asked: str) -> None:
        self._type = _type_of(asked)
        self._matcher = difflib.SequenceMatcher(autojunk=False)
        self._matcher.set_seq2(asked.lower())

    def __call__(self, name: str) -> float:
        self._matcher.set_seq1(name.lower())
        same = self._type is not None and (_type_of(name) or _TYPE_OF.get(name.split("/")[0])) == self._type
        return self._matcher.ratio() + (_SAME_TYPE if same else 0.0)


def _type_of(name: str) -> str | None:
    """Return `int8`, `float16`, ... as a name has it, in whichever spelling; the first where it has two."""
    found = _TYPE.search(name.lower().replace("_", "."))
    return f"{_KINDS.get(found[1], found[1])}{found[2]}" if found else None


def _mended(pattern: str, path: str, listed: Sequence[str], config: Config) -> list[list[Part]]:
    """Return the name of a pattern with `{artifact}` whose parts are nearest to those of `path`, if any."""
    forms, words = pattern.split("/"), path.split("/")
    place = next(index for index, form in enumerate(forms) if form.startswith("{artifact}"))
    behind = len(forms) - place - 1
    if len(words) < place + 2 + behind:
        return []
    ending = forms[place].removeprefix("{artifact}")
    typed = "/".join(words[place : len(words) - behind]).removesuffix(ending)
    near = suggest(typed, listed, config)
    parts: list[Part] = [("artifact", near.name if near else typed), ("", ending)]
    for form, word in zip(forms[:place][::-1], words[:place][::-1], strict=True):
        parts = [*_nearest_word(form, word), ("", "/"), *parts]
    for form, word in zip(forms[place + 1 :], words[len(words) - behind :], strict=True):
        parts += [("", "/"), *_nearest_word(form, word)]
    return [] if ("", "?") in parts else [[part for part in parts if part[1]]]


def _nearest_word(form: str, word: str) -> list[Part]:
    """Return a part between slashes as it should be: as it is if it can be anything, "?" if none is near."""
    split = _split(form)
    place = next((place for place, (kind, _) in enumerate(split) if kind), None)
    if place is None:
        return split if difflib.get_close_matches(word, [form], cutoff=_LEAST_WORD) else [("", "?")]
    front, ending = _text(split[:place]), _text(split[place + 1 :])
    kind, constraint = split[place]
    bare, entry = word.removeprefix(front).removesuffix(ending), ""
    if kind == "dataset":
        bare, at, name = bare.partition("@")
        entry = at + name
    choices = _words_of(kind, constraint)
    if choices and bare not in choices:
        near = difflib.get_close_matches(bare, choices, n=1, cutoff=_LEAST_WORD)
        if not near:
            return [("", "?")]
        bare = near[0]
    return [("", front), (kind, bare + entry), ("", ending)]


def _words_of(kind: str, constraint: str) -> list[str]:
    words = constraint.split("|")
    if constraint and all(_WORDS.fullmatch(word) for word in words):
        return words
    if kind in ("backend", "host"):
        from facekiln.predictions.names import BACKENDS

        return list(BACKENDS)
    if kind == "board":
        from facekiln.boards.settings import load_boards

        return ["local", *(load_boards() if DEFAULT_FOLDER.is_dir() else ())]
    if kind == "dataset":
        from facekiln.data.declared import load_datasets

        return list(load_datasets())
    return []


def _reason(path: str, best: Sequence[Part], listed: Sequence[str], config: Config) -> str:
    """Return what is wrong with a name: the one part that is not as in the nearest, or the first one."""
    for place, (kind, text) in enumerate(best):
        front, end = _text(best[:place]), _text(best[place + 1 :])
        if len(path) < len(front + end) or not path.startswith(front) or not path.endswith(end):
            continue
        typed = path[len(front) : len(path) - len(end)]
        if kind == "artifact":
            near = suggest(typed, listed, config)
            return near.reason if near else f"'{typed}' is no artifact"
        usual = _TYPE_OF.get(path.split("/")[0])
        told = f": names without a precision are of {usual}" if usual and _type_of(typed) == usual else ""
        return _wrong(kind, typed, text) + told
    rest = path
    for place, (_, text) in enumerate(best):
        if not rest.startswith(text):
            return next((f"its {kind} is missing or wrong" for kind, _ in best[place:] if kind), "")
        rest = rest.removeprefix(text)
    return ""


def _wrong(kind: str, typed: str, text: str) -> str:
    if not typed:
        return f"its {kind} is missing" if kind else f"it lacks '{text}'"
    if not kind:
        typed, text = _apart(typed, text)
        if not text:
            return f"'{typed}' is too much"
        return f"'{typed}' stands where '{text}' belongs" if typed else f"it lacks '{text}'"
    if typed.startswith((f"{text}_", f"{text}.")):
        return f"'{typed.removeprefix(text)}' is too much"
    return f"there is no {kind} '{typed.strip('_')}' of such files"


def _apart(one: str, other: str) -> tuple[str, str]:
    """Return where two texts differ, by whole words."""
    words = [re.findall(r"[^/_.]+|[/_.]", text) for text in (one, other)]
    while words[0] and words[1] and words[0][0] == words[1][0]:
        words = [words[0][1:], words[1][1:]]
    while words[0] and words[1] and words[0][-1] == words[1][-1]:
        words = [words[0][:-1], words[1][:-1]]
    return "".join(words[0]), "".join(words[1])
