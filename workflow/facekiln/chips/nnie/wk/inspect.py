"""What a `.wk` says about itself, as data and as text: mapper, precision, nodes, CRC, report table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from facekiln.chips.nnie.wk import payload
from facekiln.chips.nnie.wk.container import (
    FLAGS_IMAGE,
    FLAGS_MAP,
    NAME_BYTES,
    Container,
    Node,
)
from facekiln.chips.nnie.wk.read import instructions_of, parse_wk, read_bytes
from facekiln.errors import KilnError

# Operation codes of the report table, as far as published files show them.
OPS = {
    0x00: "Convolution",
    0x01: "Deconvolution",
    0x03: "Pooling",
    0x04: "DepthwiseConv",
    0x05: "InnerProduct",
    0x06: "LRN",
    0x07: "ReLU (stand-alone)",
    0x10: "Softmax",
    0x18: "BatchNorm/Scale (stand-alone)",
    0x1B: "Eltwise",
    0x1F: "Permute",
    0x25: "Concat",
    0x27: "Reshape/Flatten",
    0x2C: "Input",
    0x2D: "report",
}
_BITS = {1: "8 bit", 2: "16 bit"}
_IMAGE_KINDS = {0: "gray U8", 1: "RGB U8", 3: "BGR U8"}
_NET_TYPES = {0: "CNN", 1: "ROI", 2: "recurrent"}
EMULATED_BANNER = (
    "EMULATED by facekiln: no board can run this file; build it with the vendor's nnie_mapper to ship it"
)


def precision_of(container: Container) -> str:
    """Return `8 bit`, `16 bit`, `mixed` or `unknown`, from the element sizes of the report table."""
    widths = {record.elem_bytes for record in container.report} & set(_BITS)
    if len(widths) == 2:
        return "mixed"
    return _BITS[widths.pop()] if widths else "unknown"


def _kind(node: Node) -> str:
    if node.flags == FLAGS_IMAGE:
        return _IMAGE_KINDS.get(node.kind, f"image kind {node.kind}")
    return "map S32" if node.flags == FLAGS_MAP else "vector S32"


def _node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "shape_hwc": [node.height, node.width, node.channels],
        "kind": _kind(node),
        "flags": node.flags.hex(),
    }


def _collisions(container: Container) -> list[str]:
    warnings = []
    for index, segment in enumerate(container.segments):
        for side, nodes in (("input", segment.sources), ("output", segment.outputs)):
            places: dict[str, list[str]] = {}
            for place, node in enumerate(nodes):
                places.setdefault(node.name, []).append(str(place))
            warnings += [
                f"segment {index}: {side}s {', '.join(at)} share the name '{name}' (the mapper cuts names at "
                f"{NAME_BYTES} characters): address them by index, or rename the blobs before mapping"
                for name, at in places.items()
                if len(at) > 1
            ]
    return warnings


def _report(container: Container) -> dict[str, Any]:
    ops = Counter(OPS.get(record.op, f"op 0x{record.op:02x}") for record in container.report)
    quantised = [record.z for record in container.report if record.elem_bytes in _BITS]
    inputs = [record.z for record in container.report if OPS.get(record.op) == "Input"]
    return {
        "records": len(container.report),
        "ops": dict(ops.most_common()),
        "elem_bytes": {str(k): v for k, v in sorted(Counter(r.elem_bytes for r in container.report).items())},
        "z": {"input": inputs, "min": min(quantised, default=None), "max": max(quantised, default=None)},
    }


def _payload_facts(data: bytes, container: Container) -> dict[str, Any] | None:
    if not container.emulated:
        return None
    tree = payload.decode(instructions_of(data, container))
    facts = tree.get("facts") if isinstance(tree, dict) else None
    return facts if isinstance(facts, dict) else None


def describe(path: Path | str) -> dict[str, Any]:
    """Return everything that a `.wk` says, ready for JSON; broken invariants stand under `problems`.

    Raises:
        KilnError: unreadable, truncated or not a `.wk` at all.
    """
    data = read_bytes(path)
    container = parse_wk(data, path)
    problems = container.problems()
    facts = None
    try:
        facts = _payload_facts(data, container)
    except KilnError as error:
        problems.append(error.what)
    a, b, *_ = container.version
    ruled = container.file_bytes - container.trailing_bytes
    return {
        "file": str(path),
        "bytes": container.file_bytes,
        "emulated": container.emulated,
        "mapper": {
            "nnie": None if container.emulated else f"{a}.{b}",
            "version": ".".join(map(str, container.version)),
            "build": f"B{container.build:03d}",
            "stamp": container.stamp,
        },
        "precision": precision_of(container),
        "crc": {
            "stored": f"{container.crc:08x}",
            "computed": f"{container.computed_crc:08x}",
            "ok": container.crc == container.computed_crc,
        },
        "tmp_bytes": container.tmp_bytes,
        "alignment": container.alignment,
        "segments": [
            {
                "net_type": _NET_TYPES.get(segment.net_type, str(segment.net_type)),
                "instruction_bytes": segment.instruction_length,
                "inputs": [_node(node) for node in segment.sources],
                "outputs": [_node(node) for node in segment.outputs],
            }
            for segment in container.segments
        ],
        "base": container.base,
        "sections": [
            {"name": section.name, "offset": section.offset, "bytes": section.length}
            for section in container.sections
        ],
        "size_rule": {"expected": ruled, "appended": container.trailing_bytes},
        "report": _report(container),
        "payload": facts,
        "warnings": _collisions(container),
        "problems": problems,
    }


def _size_rule(said: dict[str, Any]) -> str:
    appended = said["size_rule"]["appended"]
    if not appended:
        return "header, sections and report table fill the file exactly"
    return f"{appended} bytes are appended after the report table (mapper 1.2.2.9 does so)"


def render(said: dict[str, Any]) -> list[str]:
    """Return `describe`'s result as lines for a person."""
    mapper, crc, report = said["mapper"], said["crc"], said["report"]
    lines = [f"*** {EMULATED_BANNER} ***"] if said["emulated"] else []
    origin = "emulator" if said["emulated"] else f"NNIE {mapper['nnie']}"
    verdict = "valid" if crc["ok"] else f"WRONG, the bytes give {crc['computed']}"
    lines += [
        f"{said['file']}: {said['bytes']:,} bytes, {said['precision']}",
        f"mapper       {mapper['version']} {mapper['build']} ({origin}), build stamp {mapper['stamp']}",
        f"CRC          {crc['stored']} {verdict}",
        f"file size    {_size_rule(said)}",
        f"tmp buffer   {said['tmp_bytes']:,} bytes, rows aligned to {said['alignment']} bytes",
    ]
    for index, segment in enumerate(said["segments"]):
        lines.append(f"segment {index}    {segment['net_type']}, {segment['instruction_bytes']:,} bytes")
        for side in ("inputs", "outputs"):
            for place, node in enumerate(segment[side]):
                height, width, channels = node["shape_hwc"]
                shape = f"{height}x{width}x{channels}"
                lines.append(f"  {side[:-1]:<6} {place:<2} {shape:<13} {node['kind']:<10} {node['name']}")
    lines.append("sections     offset from base, bytes")
    lines += [f"  {s['name']:<10} {s['offset']:>10,} {s['bytes']:>10,}" for s in said["sections"]]
    z = report["z"]
    lines.append(
        f"report       {report['records']} records; z (1/128 octave) of the input {z['input']}, "
        f"of all {z['min']}..{z['max']}"
    )
    lines += [f"  {count:>5}  {name}" for name, count in report["ops"].items()]
    if said["payload"]:
        lines.append("payload      " + ", ".join(f"{key} {value}" for key, value in said["payload"].items()))
    lines += [f"warning: {text}" for text in said["warnings"]]
    lines += [f"PROBLEM: {text}" for text in said["problems"]]
    return lines
