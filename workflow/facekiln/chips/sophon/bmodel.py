"""Reading bmodels without the vendor's tool; damage ends in an error that names the offset and the field.

A file is a header of 64 bytes, a flatbuffer, and a block of binaries that the flatbuffer points into. Only
header and flatbuffer are read here; binaries stay on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facekiln.chips.sophon.bmodel_format import (
    BINARY,
    COMMAND_BYTES,
    CPU_SUBNET,
    DTYPES,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    MAX_FLAT_BYTES,
    Bmodel,
    BmodelTensor,
    Module,
    Net,
    Section,
    Stage,
    Weights,
)
from facekiln.chips.sophon.flat import FlatReader, Table
from facekiln.errors import KilnError
from facekiln.unreadable import unreadable


@dataclass
class _Parser:
    """One parse: the flatbuffer, where binaries start, and those found so far."""

    reader: FlatReader
    binaries: int
    binary_bytes: int
    chip: str = ""
    sections: dict[tuple[int, int], Section] = field(default_factory=dict)

    def section(self, table: Table, number: int, name: str) -> Section | None:
        found = table.packed(number, name, BINARY)
        return None if found is None else self.placed(found, f"{table.where}.{name}", table.offset)

    def placed(self, found: tuple[Any, ...], where: str, offset: int) -> Section:
        """Return a binary as a section; the start of an empty one means nothing and may be garbage."""
        start, size = (int(value) for value in found)
        if not size:
            return Section(where, 0, 0)
        if start + size > self.binary_bytes:
            raise self.reader.fail(
                "reaches past the end of the file's binaries",
                offset,
                where,
                value=f"{size} bytes from {start}",
                limit=self.binary_bytes,
            )
        section = Section(where, self.binaries + start, size)
        # A stage and its subnets name the same commands.
        self.sections.setdefault((section.start, size), section)
        return section

    def module(self, table: Table | None) -> Module | None:
        if table is None:
            return None
        name, section = table.required(0, "file_name"), self.section(table, 1, "binary")
        return Module(name, section) if section and section.size else None


def _tensor(table: Table) -> BmodelTensor:
    number = table.u32(1, "data_type")
    return BmodelTensor(
        name=table.required(0, "name"),
        dtype=DTYPES[number] if number < len(DTYPES) else f"type {number}",
        shapes=tuple(shape.numbers(0, "dim", "Q") for shape in table.tables(5, "shape")),
        scale=table.f32(7, "scale", 1.0),
        zero_point=table.i32(10, "zero_point"),
        bytes=table.u64(4, "size"),
        address=table.u64(3, "device_addr"),
    )


def _weights(parser: _Parser, table: Table | None) -> Weights | None:
    section = parser.section(table, 2, "binary_coeff") if table else None
    if table is None or section is None:
        return None
    locations = tuple(
        (item.required(0, "name"), item.u64(1, "offset"), item.u64(2, "size"))
        for item in table.tables(3, "location")
    )
    stated = bytes(table.numbers(1, "check_code", "B"))
    return Weights(section, stated, table.i32(4, "encrypt_mode") != 0, locations)


def _command_bytes(parser: _Parser, groups: list[Table]) -> int:
    """Return the bytes of TPU and DMA commands on the device."""
    total = 0
    for group in groups:
        sections = [parser.section(group, 2, "binary_bdc"), parser.section(group, 3, "binary_gdma")]
        size = COMMAND_BYTES.get(parser.chip)
        if size:
            total += size * (group.u32(0, "bdc_num") + group.u32(1, "gdma_num"))
        else:
            total += sum(section.size for section in sections if section)
    return total


def _core_bytes(parser: _Parser, cores: list[Table]) -> int:
    total = 0
    for core in cores:
        total += _command_bytes(parser, core.tables(0, "gdma_tiu_commands"))
        for number, name in ((1, "sdma_commands"), (2, "hau_commands"), (3, "cdma_commands")):
            for place, item in enumerate(core.packed_list(number, name, BINARY)):
                total += parser.placed(item, f"{core.where}.{name}[{place}]", core.offset).size
    return total


def _cpu_bytes(parser: _Parser, parameters: list[Table]) -> Iterator[int]:
    for parameter in parameters:
        parser.section(parameter, 1, "binary_param")
        for constant in parameter.tables(2, "cpu_const"):
            section = parser.section(constant, 1, "const_data")
            yield section.size if section else 0


def _stage(parser: _Parser, table: Table) -> Stage:
    subnets = table.tables(12, "sub_net")
    instructions = host = on_cpu = 0
    # Subnets share the commands that the stage itself lists, except where they have their own per core.
    own = _command_bytes(parser, table.tables(8, "cmd_group"))
    for subnet in subnets:
        if subnet.i32(0, "subnet_mode") == CPU_SUBNET:
            on_cpu += 1
            host += sum(_cpu_bytes(parser, subnet.tables(2, "cpu_param")))
        elif subnet.i32(5, "is_dynamic"):
            instructions += 4 * subnet.u32(7, "ir_len")
        else:
            instructions += _command_bytes(parser, subnet.tables(1, "cmd_group"))
            instructions += _core_bytes(parser, subnet.tables(14, "core_commands"))
    for number, name in ((9, "net_profile"), (11, "binary_ir"), (15, "net_stat"), (19, "tensor_loc")):
        parser.section(table, number, name)
    return Stage(
        inputs=tuple(_tensor(item) for item in table.tables(0, "input_tensor")),
        outputs=tuple(_tensor(item) for item in table.tables(1, "output_tensor")),
        dynamic=table.i32(5, "is_dynamic") != 0,
        cores=table.u32(16, "core_num") or 1,
        subnets=len(subnets),
        cpu_subnets=on_cpu,
        weights=_weights(parser, table.table(4, "coeff_mem")),
        instructions=instructions if subnets else own,
        context=sum(table.numbers(14, "ctx_sizes", "Q")) or table.u64(3, "ctx_size"),
        io=table.u64(18, "io_size"),
        host_weights=host,
        host_context=4 * table.u32(13, "cpu_mem_size"),
    )


def _net(parser: _Parser, table: Table) -> Net:
    cascade = table.table(4, "cascade")
    stages = table.tables(3, "parameter")
    if not stages:
        raise parser.reader.fail(
            "has no stage: a file of BM1682's first compilers, which is not read", table.offset, table.where
        )
    return Net(
        name=table.required(0, "name"),
        stages=tuple(_stage(parser, stage) for stage in stages),
        address_mode=table.i32(5, "addr_mode"),
        cascade=cascade.text(2, "main_name") if cascade else None,
    )


def _foreign(head: bytes, path: Path) -> KilnError:
    """Return the error for a file that does not start as a bmodel does, naming what it looks like."""
    start = head.lstrip()[:64].lower()
    hint = "name a .bmodel file, e.g. one of results/sophon/{chip}/"
    if start.startswith(b"version https://git-lfs"):
        what, hint = "is a Git LFS pointer, not the file itself", "fetch it: git lfs pull"
    elif start.startswith((b"<!doctype", b"<html", b"<?xml")):
        what, hint = (
            "is a web page, not a bmodel",
            "download the file itself; a login or an error page was saved",
        )
    elif start.startswith(b"pk\x03\x04"):
        what, hint = "is a zip archive, not a bmodel", "unpack it"
    elif head[:1] == b"\x08" and b"onnx" in head:
        what, hint = "is an ONNX file, not a bmodel", "compile it: facekiln sophon compile -h"
    elif b"CviModel" in head[:64]:
        what, hint = "is a cvimodel, of the CV18xx chips, not a bmodel", "inspect it with model_tool --info"
    elif start.startswith((b"module", b"#loc")):
        what, hint = "is an .mlir text, not a bmodel", "compile it: facekiln sophon compile -h"
    else:
        what = "is not a bmodel: it does not start as one"
    return KilnError(
        what,
        file=path,
        where="offset 0x0, magic",
        value=f"0x{head[:4][::-1].hex()}",
        limit=hex(MAGIC),
        hint=hint,
    )


def _head(path: Path) -> tuple[bytes, int, int, int, int]:
    """Return the flatbuffer's bytes, where it starts, where binaries start, their bytes and the file's."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(HEADER_BYTES)
            if len(head) < HEADER.size or HEADER.unpack_from(head)[0] != MAGIC:
                raise _foreign(head, path) if head else KilnError("is empty", file=path)
            _, header, flat, binaries = HEADER.unpack_from(head)
            _check_sizes(path, size, header, flat, binaries)
            stream.seek(header)
            return stream.read(flat), header, header + flat, binaries, size
    except OSError as error:
        raise unreadable(path, error) from error


def _check_sizes(path: Path, size: int, header: int, flat: int, binaries: int) -> None:
    hint = "check that the whole file was copied, by its sha256"
    if header < HEADER_BYTES or header > 4096:
        raise KilnError(
            "states a header of another size: a format that is not known",
            file=path,
            where="offset 0x4, header_size",
            value=header,
            limit=HEADER_BYTES,
            hint="is it encrypted (model_tool --decrypt), or made by a newer compiler?",
        )
    if flat < 8 or flat > MAX_FLAT_BYTES:
        raise KilnError(
            "states a flatbuffer of an unlikely size",
            file=path,
            where="offset 0x8, flatbuffers_size",
            value=flat,
            limit=f"8 to {MAX_FLAT_BYTES}",
            hint=hint,
        )
    if header + flat + binaries > size:
        raise KilnError(
            "is truncated",
            file=path,
            where="header",
            value=f"{size} bytes",
            limit=f"{header} + {flat} + {binaries} = {header + flat + binaries} bytes that it states",
            hint=hint,
        )


def read_bmodel(path: Path | str) -> Bmodel:
    """Read what a bmodel says; its binaries are not read.

    Args:
        path: a .bmodel file of any size; no more than its flatbuffer comes into memory.

    Raises:
        KilnError: it cannot be read, is none (with what it looks like), truncated or damaged; the
            message has the offset and the field.
    """
    file = Path(path)
    flat, base, binaries, binary_bytes, size = _head(file)
    reader = FlatReader(flat, file, base)
    root = Table.root(reader, "model")
    parser = _Parser(reader, binaries, binary_bytes)
    parser.chip = root.required(3, "chip")
    nets = tuple(_net(parser, net) for net in root.tables(4, "net"))
    if not nets:
        raise reader.fail("has no net", root.offset, "model.net")
    kernel, cpu_module = (
        parser.module(root.table(6, "kernel_module")),
        parser.module(root.table(8, "cpuop_module")),
    )
    parser.section(root, 10, "lib_backend")
    return Bmodel(
        file=file,
        bytes=size,
        chip=parser.chip,
        kind=root.required(0, "type"),
        version=root.required(1, "version"),
        time=root.required(2, "time").strip(),
        time_at=root.text_at(2, "time"),
        devices=root.u32(7, "device_num") or 1,
        combined_weights=root.u32(9, "bmodel_type") == 1,
        nets=nets,
        kernel=kernel,
        cpu_module=cpu_module,
        sections=tuple(parser.sections[place] for place in sorted(parser.sections)),
        sections_start=binaries,
        stated_bytes=binaries + binary_bytes,
    )
