"""Our reader of bmodels against files that Google's flatbuffers package wrote, damage and foreign files."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facekiln.chips.sophon.bmodel import read_bmodel
from facekiln.chips.sophon.bmodel_format import Bmodel
from facekiln.chips.sophon.differ import compare
from facekiln.chips.sophon.inspect import describe_bmodel, render, section_lines
from facekiln.errors import KilnError
from support.bmodels import S, T, bmodel_bytes

_B1 = S()
_B4 = S(inputs=(T("input", (4, 3, 8, 8)),), weights=b"v" * 4096, context=30000)


@pytest.fixture
def read(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write_and_read(**changes: object) -> Bmodel:
        path = tmp_path / "x.bmodel"
        path.write_bytes(bmodel_bytes(**changes))
        return read_bmodel(path)

    return write_and_read


def test_what_a_file_says(read) -> None:  # type: ignore[no-untyped-def]
    quantised = S(
        inputs=(T("input", (1, 3, 8, 8), dtype=2, scale=26.5, zero=-3),),
        outputs=(T("b", (1, 4, 4), dtype=1), T("a", (1, 4, 2), dtype=8)),
    )
    model = read(nets=(("rfb", (quantised,)), ("other", (_B1, _B4))))
    assert (model.chip, model.kind, model.version, model.tool) == (
        "BM1684X",
        "B",
        "2.2+v1.26-20251229",
        "v1.26-20251229",
    )
    assert model.time == "Sat Nov 21 10:18:28 2026"
    assert [(net.name, len(net.stages)) for net in model.nets] == [("rfb", 1), ("other", 2)]
    stage = model.nets[0].stages[0]
    (given,) = stage.inputs
    assert (given.dtype, given.shape, given.scale, given.zero_point) == ("int8", (1, 3, 8, 8), 26.5, -3)
    assert [(out.name, out.dtype) for out in stage.outputs] == [("b", "float16"), ("a", "bfloat16")]
    assert [stage.batch for _, stage in model.stages] == [1, 1, 4]
    assert model.kernel is not None
    assert (model.kernel.name, model.kernel.section.size) == ("libkernel.so", 100)
    assert stage.weights is not None
    assert [name for name, _, _ in stage.weights.locations] == ["tpu.Conv2D.weight", "tpu.Lut.1"]


def test_places_are_those_of_the_bytes(read) -> None:  # type: ignore[no-untyped-def]
    model = read()
    data = model.file.read_bytes()
    told = {section.kind: data[section.start : section.start + section.size] for section in model.sections}
    assert told == {
        "kernel module": b"k" * 100,
        "weights": b"w" * 4096,
        "TPU commands": b"t" * 256,
        "DMA commands": b"d" * 128,
    }
    start, size = model.time_at
    assert data[start : start + size] == b"Sat Nov 21 10:18:28 2026\n"


def test_memory_counts_every_stage_and_the_tools_does_not(read) -> None:  # type: ignore[no-untyped-def]
    # As `model_tool --info` of 1.26 does on a file of batch 1 and 4: measured, tests/integration.
    model = read(nets=(("net", (_B1, _B4)),))
    assert (model.memory.weight, model.memory.instruct, model.memory.runtime) == (8192, 768, 30000)
    assert (model.tool_memory.weight, model.tool_memory.instruct, model.tool_memory.runtime) == (
        4096,
        768,
        8192,
    )


def test_equal_weights_lie_in_memory_once(read) -> None:  # type: ignore[no-untyped-def]
    four = S(inputs=(T("input", (4, 3, 8, 8)),))
    assert read(nets=(("net", (_B1, four)),)).memory.weight == 4096
    unstated = (S(stated=b""), S(stated=b""))
    assert read(nets=(("net", unstated),)).memory.weight == 8192


def test_memory_of_bm1684_has_commands_of_128_bytes_and_a_buffer(read) -> None:  # type: ignore[no-untyped-def]
    # libsophon: BM1684's runtime keeps a buffer of the largest input or output, 4 bytes a value, int8 1.
    memory = read(chip="BM1684").memory
    assert (memory.instruct, memory.runtime) == (3 * 128, 8192 + 4 * 3 * 8 * 8)
    small = S(inputs=(T("input", (1, 3, 8, 8), dtype=2),), outputs=(T("o", (1, 4)),))
    assert read(chip="BM1684", nets=(("net", (small,)),)).memory.runtime == 8192 + 192


def test_cores_dynamic_nets_and_parts_on_the_host(read) -> None:  # type: ignore[no-untyped-def]
    two = read(nets=(("net", (S(cores=2),)),))
    assert (two.nets[0].stages[0].cores, two.memory.instruct) == (2, 2 * 384)
    moving = read(nets=(("net", (S(dynamic=1),)),))
    assert (moving.nets[0].dynamic, moving.memory.instruct) == (True, 40)
    mixed = read(nets=(("net", (S(on_cpu=1),)),))
    assert (mixed.nets[0].stages[0].cpu_subnets, mixed.memory.host_weight) == (1, 64)


def test_what_older_and_newer_compilers_write_otherwise(read) -> None:  # type: ignore[no-untyped-def]
    """No number of cores, no subnets, activations in several parts, words for layers on the host."""
    stage = S(cores=0, subnets=False, context=1, contexts=(8192, 4096), host_words=10)
    (found,) = read(nets=(("net", (stage,)),)).nets[0].stages
    assert (found.cores, found.subnets, found.instructions) == (1, 0, 384)
    assert (found.context, found.host_context) == (12288, 40)


def test_a_binary_that_ends_beyond_the_file_is_refused(read) -> None:  # type: ignore[no-untyped-def]
    kernel, weights, tpu, dma = 4096, 4096, 4096, 4096
    all_of_them = kernel + weights + tpu + dma
    assert read(kernel_start=all_of_them - 100).kernel.section.size == 100
    with pytest.raises(KilnError, match=f"past the end of the file's binaries.*{all_of_them - 99}"):
        read(kernel_start=all_of_them - 99)


def test_the_start_of_an_empty_binary_means_nothing(read) -> None:  # type: ignore[no-untyped-def]
    # tpu_mlir 1.30.2 leaves uninitialised memory there in BM1684's files.
    assert read(kernel=b"", kernel_start=2**63).kernel is None


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data, path = bmodel_bytes(), tmp_path / "x.bmodel"
    for length in [*range(200), *range(200, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(KilnError) as caught:
            read_bmodel(path)
        assert length < 64 or "truncated" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>" * 3, "web page"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (b"\x08\x07\x12\x07pytorch onnx" + bytes(60), "ONNX file"),
        (b"CviModel" + bytes(60), "cvimodel"),
        (b"#loc = loc(unknown)\nmodule {" + bytes(60), ".mlir text"),
        (b"\x89PNG" + bytes(60), "not a bmodel"),
        (b"", "is empty"),
    ],
)
def test_foreign_files_are_named(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x.bmodel"
    path.write_bytes(content)
    with pytest.raises(KilnError, match=told):
        read_bmodel(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "none.bmodel", tmp_path):
        with pytest.raises(KilnError, match="cannot be read"):
            read_bmodel(path)


def _patched(at: int, layout: str, value: int) -> bytes:
    data = bytearray(bmodel_bytes())
    struct.pack_into(layout, data, at, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (_patched(4, "<I", 128), "header|vtable|ends too early"),
        (_patched(4, "<I", 1 << 20), "header of another size"),
        (_patched(8, "<I", 4), "unlikely size"),
        (_patched(8, "<I", 2**32 - 1), "unlikely size"),
        (_patched(12, "<Q", 2**60), "truncated"),
        (_patched(12, "<Q", 4096), "past the end of the file's binaries"),
        (_patched(64, "<I", 2**31), "ends too early"),
    ],
)
def test_damaged_headers(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "x.bmodel"
    path.write_bytes(data)
    with pytest.raises(KilnError, match=told):
        read_bmodel(path)


def _survives(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    tracemalloc.start()
    try:
        model = read_bmodel(path)
        describe_bmodel(model)
        render(model)
        section_lines(model)
        compare(model, model)
    except KilnError as error:
        assert str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 64 << 20


_FILE = bmodel_bytes(nets=(("net", (_B1, _B4)), ("two", (S(cores=2, on_cpu=0),)), ("host", (S(on_cpu=1),))))
_FLAT = int.from_bytes(_FILE[8:12], "little")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(_FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, (64 + _FLAT) // 4 - 1)) * 4
        value = data.draw(st.one_of(st.integers(0, len(damaged)), st.integers(0, 2**32 - 1)))
        struct.pack_into("<I", damaged, at, value)
    _survives(bytes(damaged), tmp_path / "x.bmodel")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=600))
def test_random_tables_behind_an_honest_header(tmp_path: Path, flat: bytes) -> None:
    header = struct.pack("<IIIQ", 0xFF55AAEE, 64, len(flat), 0) + bytes(44)
    _survives(header + flat, tmp_path / "x.bmodel")


def test_tables_that_point_to_one_another_end(read) -> None:  # type: ignore[no-untyped-def]
    # A hundred thousand cores, all the same table: the sum of what is read is bounded.
    with pytest.raises(KilnError, match="over and over"):
        read(nets=(("net", (S(cores=100_000),)),))
