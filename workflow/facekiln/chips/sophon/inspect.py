"""What a bmodel says, for people and as JSON, and what a user of it would stumble over."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facekiln.artifact import sha256_of
from facekiln.chips.sophon.bmodel import read_bmodel
from facekiln.chips.sophon.bmodel_format import Bmodel, BmodelTensor, Memory, Net, Section, Stage
from facekiln.chips.sophon.clock import EPOCH
from facekiln.chips.sophon.environment import is_faulty_on_bm1684

_PAGE = 4096
_NO_CLOCK = " (set by facekiln, so that equal inputs give equal bytes)"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Finding:
    """Something to know: a rule's id, "error", "warning" or "note", where, and what."""

    rule: str
    level: str
    where: str
    what: str


def section_sha256(file: Path, section: Section) -> str:
    """Return the sha256 of a binary in the file as 64 hexadecimal digits, read piece by piece."""
    digest, left = hashlib.sha256(), section.size
    with file.open("rb") as stream:
        stream.seek(section.start)
        while left and (chunk := stream.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def tensor_facts(tensor: BmodelTensor) -> dict[str, Any]:
    """Return what a file says of one input or output, ready for JSON."""
    return {
        "name": tensor.name,
        "type": tensor.dtype,
        "shape": list(tensor.shape),
        "scale": tensor.scale if math.isfinite(tensor.scale) else str(tensor.scale),
        "zero_point": tensor.zero_point,
        "bytes": tensor.bytes,
    }


def memory_facts(memory: Memory) -> dict[str, int]:
    """Return memory in bytes with its sums, ready for JSON."""
    return {"device": memory.device, **asdict(memory), "host": memory.host}


def _stage_facts(stage: Stage) -> dict[str, Any]:
    return {
        "batch": stage.batch,
        "cores": stage.cores,
        "dynamic": stage.dynamic,
        "subnets": stage.subnets,
        "subnets_on_host": stage.cpu_subnets,
        "inputs": [tensor_facts(tensor) for tensor in stage.inputs],
        "outputs": [tensor_facts(tensor) for tensor in stage.outputs],
        "weights": stage.weights.section.size if stage.weights else 0,
        "weights_sha256": stage.weights.stated.hex() if stage.weights else None,
        "instructions": stage.instructions,
        "context": stage.context,
    }


def describe_bmodel(model: Bmodel, found: Sequence[Finding] = ()) -> dict[str, Any]:
    """Return everything that a read file says, ready for JSON, with what was found of it (`findings`)."""
    kinds: Counter[str] = Counter()
    for section in model.sections:
        kinds[section.kind] += section.size
    kernel = model.kernel
    return {
        "bytes": model.bytes,
        "chip": model.chip,
        "version": f"{model.kind}.{model.version}",
        "tool": model.tool,
        "time": model.time,
        "devices": model.devices,
        "kernel": kernel and {"name": kernel.name, "bytes": kernel.section.size},
        "nets": [
            {
                "name": net.name,
                "dynamic": net.dynamic,
                "address_mode": net.address_mode,
                "cascade": net.cascade,
                "stages": [_stage_facts(stage) for stage in net.stages],
            }
            for net in model.nets
        ],
        "memory": memory_facts(model.memory),
        "tool_memory": memory_facts(model.tool_memory),
        "sections": {**dict(sorted(kinds.items())), "header and tables": model.sections_start},
        "findings": [asdict(finding) for finding in found],
    }


def describe(path: Path | str) -> dict[str, Any]:
    """Return what a file says and what was found of it, with its name and sha256, ready for JSON.

    Raises:
        KilnError: see `read_bmodel`.
    """
    model = read_bmodel(path)
    return {"file": str(path), "sha256": sha256_of(path), **describe_bmodel(model, findings(model))}


def findings(model: Bmodel) -> list[Finding]:
    """Return what a user of a file would stumble over, errors first; reads its weights to check them."""
    found = []
    for net, stage in model.stages:
        found += _of_stage(model, net, stage)
    if model.chip == "BM1684" and is_faulty_on_bm1684(model.tool):
        what = f"{model.tool} makes wrong int8 files of batch 4 for BM1684: use 1.26"
        found.append(Finding("BM-TOOL", "warning", "file", what))
    if model.chip not in ("BM1682", "BM1684") and model.kernel is None:
        what = (
            "carries no kernel module: the board's runtime uses its own, which must be of a fitting release"
        )
        found.append(Finding("BM-KERNEL", "warning", "file", what))
    if model.bytes != model.stated_bytes:
        what = f"{model.bytes - model.stated_bytes} bytes follow what the header states"
        found.append(Finding("BM-TRAILING", "warning", "file", what))
    if any(section.start % _PAGE for section in model.sections):
        what = "binaries do not start at pages of 4096 bytes, as those of older releases"
        found.append(Finding("BM-ALIGN", "note", "file", what))
    if model.memory.device != model.tool_memory.device:
        what = (
            f"model_tool --info counts each net's first stage only: it says {model.tool_memory.device:,} "
            f"bytes of device memory, all stages need {model.memory.device:,}"
        )
        found.append(Finding("BM-MEMORY", "note", "file", what))
    order = ("error", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.level))


def _of_stage(model: Bmodel, net: Net, stage: Stage) -> list[Finding]:
    where, found = f"net {net.name}, batch {stage.batch}", []
    weights = stage.weights
    if weights and weights.encrypted:
        found.append(Finding("BM-ENCRYPTED", "warning", where, "its weights are encrypted"))
    elif weights and weights.stated and section_sha256(model.file, weights.section) != weights.stated.hex():
        what = "its weights are not those that the file states by sha256: the file is damaged"
        found.append(Finding("BM-WEIGHTS", "error", where, what))
    if stage.cpu_subnets:
        what = f"{stage.cpu_subnets} of {stage.subnets} parts run on the host's processor"
        found.append(Finding("BM-HOST", "warning", where, what))
    for side, tensors in (("input", stage.inputs), ("output", stage.outputs)):
        for tensor in tensors:
            if not math.isfinite(tensor.scale) or tensor.scale <= 0:
                what = f"{side} {tensor.name} has a scale of {tensor.scale}: the file is damaged"
                found.append(Finding("BM-SCALE", "error", where, what))
            if "float" in tensor.dtype or (tensor.scale, tensor.zero_point) == (1, 0):
                continue
            rule = (
                f"value x {tensor.scale:g} + {tensor.zero_point}"
                if side == "input"
                else f"(code - {tensor.zero_point}) x {tensor.scale:g}"
            )
            what = f"{side} {tensor.name} holds {tensor.dtype} codes: {rule}, which the caller has to compute"
            found.append(Finding("BM-CODES", "note", where, what))
    return found


def _tensor_line(side: str, tensor: BmodelTensor, dynamic: bool) -> str:
    shape = "x".join(map(str, tensor.shape)) or "-"
    codes = (
        ""
        if tensor.scale == 1 and not tensor.zero_point
        else (f"  scale {tensor.scale:g} zero point {tensor.zero_point}")
    )
    most = "at most " if dynamic and side == "input" else ""
    return f"    {side:<7}{tensor.dtype:<9}{most}{shape:<16} {tensor.name}{codes}"


def _memory_line(name: str, memory: Memory) -> str:
    parts = f"weights {memory.weight:,}, commands {memory.instruct:,}, activations {memory.runtime:,}"
    return f"{name:<13}{memory.device:,} bytes ({parts})"


def render(model: Bmodel, found: Sequence[Finding] = ()) -> list[str]:
    """Return lines for a person, with what was found of the file (`findings`)."""
    kernel, memory = model.kernel, model.memory
    lines = [
        f"{model.file}: {model.bytes:,} bytes",
        f"chip         {model.chip}" + (f", {model.devices} devices" if model.devices > 1 else ""),
        f"version      {model.kind}.{model.version}",
        f"built        {model.time}" + _NO_CLOCK * (model.time == EPOCH.decode().strip()),
        f"kernel       {kernel.name}, {kernel.section.size:,} bytes" if kernel else "kernel       none",
        _memory_line("memory", memory),
    ]
    if memory.host:
        lines.append(f"host memory  {memory.host:,} bytes")
    for net in model.nets:
        mode = f", address mode {net.address_mode}" if net.address_mode else ""
        lines.append(f"net          {net.name}, {'dynamic' if net.dynamic else 'static'}{mode}")
        for place, stage in enumerate(net.stages):
            cores = f", {stage.cores} cores" if stage.cores > 1 else ""
            lines.append(
                f"  stage {place}: batch {stage.batch}{cores}, {stage.context:,} bytes of activations"
            )
            for side, tensors in (("input", stage.inputs), ("output", stage.outputs)):
                lines += [_tensor_line(side, tensor, stage.dynamic) for tensor in tensors]
    for finding in found:
        word = {"error": "PROBLEM", "warning": "warning", "note": "note"}[finding.level]
        lines.append(f"{word}: {finding.rule} {finding.where}: {finding.what}")
    return lines


def section_lines(model: Bmodel) -> list[str]:
    """Return a line for each binary: where it starts, its bytes, what it is, and its sha256."""
    return [
        f"  0x{section.start:08x} {section.size:>12,}  {section.kind:<16} "
        f"{section_sha256(model.file, section)[:16]}  {section.where.removeprefix('model.')}"
        for section in model.sections
    ]
