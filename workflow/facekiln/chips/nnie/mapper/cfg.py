"""nnie_mapper's `.cfg`: typed, with its limits; parsed and written.

Grammar: one `[key] value` per line in any order, the value runs to the end of the line, lines that start
with `#` are comments. The group image_list, image_type, norm_type, mean_file is repeated once per input
layer, in prototxt order. Keys, defaults and limits: table 3-6 of the HiSVP development guide, as
transcribed in the README of rinetd/nnie_mapper. Relative paths are relative to the current directory, not
to the cfg.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, fields
from pathlib import Path

from facekiln.artifact import read_bytes
from facekiln.config import known
from facekiln.errors import KilnError

GROUP_KEYS = ("image_list", "image_type", "norm_type", "mean_file")
IMAGE_TYPES = {0: "S32 feature map or vector", 1: "U8 gray or RGB", 3: "YVU420SP", 5: "YVU422SP"}
NORM_TYPES = {
    0: "none",
    1: "mean file",
    2: "channel mean",
    3: "data_scale",
    4: "mean file, then data_scale",
    5: "channel mean, then data_scale",
}
USES_SCALE = (3, 4, 5)
USES_MEAN = (1, 2, 4, 5)
COMPILE_MODES = {8: 0, 16: 1}
DEFAULT_SCALE = 0.00390625
_FLT_MAX = 3.4028234663852886e38
_MISSPELT = {"instructions_name": "instruction_name"}
_LINE = re.compile(r"\[([^\]]*)\](.*)")


@dataclass(frozen=True)
class InputGroup:
    """The four keys that belong to one input layer."""

    image_list: str
    image_type: int = 1
    norm_type: int = 0
    mean_file: str = "null"


@dataclass(frozen=True)
class MapperConfig:
    """All keys of a `.cfg`, with the vendor's defaults.

    Attributes:
        inputs: one group per input layer, in prototxt order.
        data_scale: (1/4096, FLT_MAX]; the default is 1/256, which is not 1/255.
        RGB_order: the order in which the network sees the channels.
        compile_mode: 0 = 8 bit, 1 = 16 bit, 2 = 16 bit where a layer's name ends in `_hp`.
        instruction_name: output path without `.wk`, shorter than 120 characters.
        log_level: 0..3; None writes no log files.
        notes: what the parser accepted but a person should know.
    """

    prototxt_file: str
    caffemodel_file: str
    inputs: tuple[InputGroup, ...]
    net_type: int = 0
    data_scale: float = DEFAULT_SCALE
    RGB_order: str = "BGR"
    batch_num: int = 256
    sparse_rate: float = 0.0
    compile_mode: int = 0
    compress_mode: int = 0
    is_simulation: int = 0
    instruction_name: str = "inst"
    internal_stride: int = 16
    is_check_prototxt: int = 0
    log_level: int | None = None
    max_roi_frame_cnt: int = 300
    roi_coordinate_file: tuple[str, ...] = ()
    recurrent_tmax: int = 1024
    gfpq_param_file: str | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)


_CHOICES: dict[str, tuple[object, ...]] = {
    "net_type": (0, 1, 2),
    "RGB_order": ("RGB", "BGR"),
    "compile_mode": (0, 1, 2),
    "compress_mode": (0, 1),
    "is_simulation": (0, 1),
    "internal_stride": (16, 32),
    "is_check_prototxt": (0, 1),
    "image_type": tuple(IMAGE_TYPES),
    "norm_type": tuple(NORM_TYPES),
}
_RANGES: dict[str, tuple[float, float]] = {
    "batch_num": (0, 256),
    "sparse_rate": (0, 1),
    "log_level": (0, 3),
    "max_roi_frame_cnt": (1, 5000),
    "recurrent_tmax": (1, 1024),
}
_INTEGERS = {key for key in (*_CHOICES, *_RANGES) if key not in ("RGB_order", "sparse_rate")}
_FLOATS = {"data_scale", "sparse_rate"}
_SINGLE = [f.name for f in fields(MapperConfig) if f.name not in ("inputs", "notes")]
_KEYS = [*_SINGLE, *GROUP_KEYS]


def check_value(key: str, value: object, file: Path | str | None = None, where: str | None = None) -> None:
    """Check one value against its documented limits.

    Raises:
        KilnError: it is outside; the message has the limits.
    """

    def refuse(limit: str) -> KilnError:
        return KilnError(f"[{key}] is out of range", file=file, where=where, value=value, limit=limit)

    if key in _CHOICES and value not in _CHOICES[key]:
        raise refuse(" or ".join(map(str, _CHOICES[key])))
    if key in _RANGES and value is not None:
        low, high = _RANGES[key]
        if not low <= float(str(value)) <= high:
            raise refuse(f"{low:g}..{high:g}")
    if key == "data_scale" and not 1 / 4096 < float(str(value)) <= _FLT_MAX:
        raise refuse("(1/4096, FLT_MAX]")
    if isinstance(value, str):
        if not value or value != value.strip() or len(value.splitlines()) != 1:
            raise refuse("one line of text without blanks around it")
        if key == "instruction_name" and len(value) >= 120:
            raise refuse("fewer than 120 characters")


def check_config(config: MapperConfig, file: Path | str | None = None) -> None:
    """Check every value, and the rules between values.

    Raises:
        KilnError: names the key, the value and the limit.
    """
    for key in _SINGLE:
        values = getattr(config, key)
        for value in values if isinstance(values, tuple) else [values]:
            if value is not None:
                check_value(key, value, file)
    if not config.inputs:
        raise KilnError("[image_list] is missing", file=file, hint="add one group per input layer")
    for number, group in enumerate(config.inputs):
        where = f"input {number}"
        for key in GROUP_KEYS:
            check_value(key, getattr(group, key), file, where)
        if group.image_type == 0 and group.norm_type != 0:
            raise KilnError(
                "[norm_type] must be 0 where [image_type] is 0", file=file, where=where, value=group.norm_type
            )
        if group.norm_type in USES_MEAN and group.mean_file == "null":
            raise KilnError(
                f"[norm_type] {group.norm_type} ({NORM_TYPES[group.norm_type]}) needs a [mean_file]",
                file=file,
                where=where,
                hint=".binaryproto for 1 and 4, text with one float per line per channel for 2 and 5",
            )


def _typed(key: str, text: str, file: Path | str, line: int) -> object:
    kind = int if key in _INTEGERS else float if key in _FLOATS else str
    try:
        return kind(text)
    except ValueError as error:
        raise KilnError(
            f"[{key}] is not {'an integer' if kind is int else 'a number'}",
            file=file,
            where=f"line {line}",
            value=text,
            hint="a value runs to the end of the line: put comments on lines of their own, after #",
        ) from error


def _groups(values: dict[str, list[object]], file: Path | str) -> tuple[InputGroup, ...]:
    counts = {key: len(values[key]) for key in GROUP_KEYS}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise KilnError(
            f"image_list, image_type, norm_type and mean_file must stand once per input layer; here: {said}",
            file=file,
            hint="mean_file must exist even where nothing is subtracted: `[mean_file] null`",
        )
    rows = zip(*(values[key] for key in GROUP_KEYS), strict=True)
    return tuple(InputGroup(*row) for row in rows)


def _notes(config: MapperConfig, given: set[str]) -> list[str]:
    scaled = any(group.norm_type in USES_SCALE for group in config.inputs)
    if scaled and "data_scale" not in given:
        return ["[data_scale] is not given: the mapper uses 0.00390625 = 1/256, which is not 1/255"]
    if not scaled and config.data_scale != DEFAULT_SCALE:
        return ["[data_scale] is given, but no [norm_type] uses it"]
    return []


def parse_cfg(text: str, file: Path | str = "<cfg>") -> MapperConfig:
    """Parse the text of a `.cfg`.

    Raises:
        KilnError: a wrong line, key, value or group, with its line and a suggestion.
    """
    values: dict[str, list[object]] = defaultdict(list)
    notes: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if not match:
            raise KilnError("a line is not `[key] value`", file=file, where=f"line {number}", value=stripped)
        key, value = match[1].strip(), match[2].strip()
        if key in _MISSPELT:
            notes.append(
                f"line {number}: [{key}] is the guide's spelling; read as [{_MISSPELT[key]}], which tools use"
            )
            key = _MISSPELT[key]
        try:
            known(key, _KEYS, "key")
        except KilnError as error:
            raise KilnError(str(error), file=file, where=f"line {number}") from None
        if not value:
            raise KilnError(f"[{key}] has no value", file=file, where=f"line {number}")
        if values[key] and key not in (*GROUP_KEYS, "roi_coordinate_file"):
            raise KilnError(f"[{key}] stands twice", file=file, where=f"line {number}", value=value)
        values[key].append(_typed(key, value, file, number))
    for key in ("prototxt_file", "caffemodel_file", "image_list"):
        if not values[key]:
            raise KilnError(f"[{key}] is missing", file=file)
    single = {key: values[key][0] for key in _SINGLE if values[key] and key != "roi_coordinate_file"}
    config = MapperConfig(
        **single,  # type: ignore[arg-type]
        inputs=_groups(values, file),
        roi_coordinate_file=tuple(map(str, values["roi_coordinate_file"])),
    )
    check_config(config, file)
    notes += _notes(config, {key for key, given in values.items() if given})
    return MapperConfig(**{**vars(config), "notes": tuple(notes)})


def read_cfg(path: Path | str) -> MapperConfig:
    """Read a `.cfg`.

    Raises:
        KilnError: unreadable, not UTF-8 text, or see `parse_cfg`.
    """
    data = read_bytes(path)
    try:
        return parse_cfg(data.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise KilnError("is not UTF-8 text", file=path) from error


def write_cfg(config: MapperConfig) -> str:
    """Return the text of a complete `.cfg`: every key, in the guide's order, without comments.

    Raises:
        KilnError: a value breaks its limits or cannot stand on a line.
    """
    check_config(config)
    lines = []
    for key in _SINGLE:
        value = getattr(config, key)
        for item in value if isinstance(value, tuple) else [value]:
            if item is not None:
                lines.append(f"[{key}] {item}")
    for group in config.inputs:
        lines += [f"[{key}] {getattr(group, key)}" for key in GROUP_KEYS]
    return "\n".join(lines) + "\n"
