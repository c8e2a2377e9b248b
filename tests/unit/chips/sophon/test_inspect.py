"""What is told of a bmodel, what two differ in, and the exit statuses of the verbs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from facekiln.chips.sophon.bmodel import read_bmodel
from facekiln.chips.sophon.bmodel_format import Bmodel
from facekiln.chips.sophon.clock import normalise
from facekiln.chips.sophon.differ import compare
from facekiln.chips.sophon.inspect import describe, findings, render, section_lines
from facekiln.cli import main
from support.bmodels import TIME, S, T, bmodel_bytes

_OTHER_TIME = "Sun Nov 22 01:02:03 2026\n"


@pytest.fixture
def file(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(name: str = "a", **changes: Any) -> Path:
        path = tmp_path / f"{name}.bmodel"
        path.write_bytes(bmodel_bytes(**changes))
        return path

    return write


def _rules(model: Bmodel) -> list[tuple[str, str]]:
    return [(finding.rule, finding.level) for finding in findings(model)]


def _differences(a: Path, b: Path) -> list[str]:
    return [difference.sentence() for difference in compare(read_bmodel(a), read_bmodel(b)).differences]


def test_a_sound_file_has_no_findings(file) -> None:  # type: ignore[no-untyped-def]
    assert _rules(read_bmodel(file())) == []


def test_damaged_weights_are_found_by_the_files_own_sha256(file) -> None:  # type: ignore[no-untyped-def]
    path = file()
    data = bytearray(path.read_bytes())
    data[data.index(b"wwww") + 7] ^= 1
    path.write_bytes(data)
    assert _rules(read_bmodel(path)) == [("BM-WEIGHTS", "error")]
    assert main(["sophon", "inspect", str(path)]) == 1


def test_encrypted_weights_are_told_and_not_judged(file) -> None:  # type: ignore[no-untyped-def]
    path = file(nets=(("net", (S(encrypted=1, stated=b"x" * 32),)),))
    assert _rules(read_bmodel(path)) == [("BM-ENCRYPTED", "warning")]


def test_releases_that_are_wrong_on_bm1684(file) -> None:  # type: ignore[no-untyped-def]
    # Measured: 1.27, 1.28.1 and 1.30.2 at batch 4 in int8; 1.21.1 and 1.26 are right.
    def told(version: str, chip: str = "BM1684") -> list[tuple[str, str]]:
        return _rules(read_bmodel(file(chip=chip, version=version, kernel=None)))

    assert told("2.2+v1.26-20251229") == told("2.2+v1.21.1-20250101") == told("2.2") == []
    assert told("2.2+v1.27-20260101") == told("2.2+v1.30.2-20260701") == [("BM-TOOL", "warning")]
    assert told("2.2+v1.30.2-20260701", "BM1684X") == [("BM-KERNEL", "warning")]


def test_codes_at_the_border_are_told_with_their_rule(file) -> None:  # type: ignore[no-untyped-def]
    stage = S(
        inputs=(T("input", (1, 3, 8, 8), dtype=2, scale=26.5, zero=0),),
        outputs=(T("o", (1, 4), dtype=3, scale=0.5, zero=128),),
    )
    model = read_bmodel(file(nets=(("net", (stage,)),)))
    told = [finding.what for finding in findings(model)]
    assert "value x 26.5 + 0" in told[0]
    assert "(code - 128) x 0.5" in told[1]
    assert any("scale 26.5 zero point 0" in line for line in render(model))


def test_pictures_of_bytes_are_no_codes(file) -> None:  # type: ignore[no-untyped-def]
    stage = S(inputs=(T("input", (1, 3, 8, 8), dtype=3),))
    assert _rules(read_bmodel(file(nets=(("net", (stage,)),)))) == []


def test_parts_on_the_host_trailing_bytes_and_memory(file) -> None:  # type: ignore[no-untyped-def]
    four = S(inputs=(T("input", (4, 3, 8, 8)),), weights=b"v" * 4096)
    path = file(nets=(("net", (S(on_cpu=1), four)),))
    path.write_bytes(path.read_bytes() + b"more")
    assert _rules(read_bmodel(path)) == [
        ("BM-HOST", "warning"),
        ("BM-TRAILING", "warning"),
        ("BM-MEMORY", "note"),
    ]


def test_a_scale_that_is_no_number_still_prints(file, capsys) -> None:  # type: ignore[no-untyped-def]
    stage = S(outputs=(T("o", (1, 4), scale=float("nan")),))
    path = file(nets=(("net", (stage,)),))
    assert main(["sophon", "inspect", str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["nets"][0]["stages"][0]["outputs"][0]["scale"] == "nan"


def test_json_and_sections_tell_every_byte(file, capsys) -> None:  # type: ignore[no-untyped-def]
    path = file()
    assert main(["sophon", "inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(describe(path)))
    assert told["sections"] == {
        "DMA commands": 128,
        "TPU commands": 256,
        "header and tables": read_bmodel(path).sections_start,
        "kernel module": 100,
        "weights": 4096,
    }
    assert main(["sophon", "inspect", str(path), "--sections"]) == 0
    assert "kernel_module.binary" in capsys.readouterr().out
    assert len(section_lines(read_bmodel(path))) == 4


def test_the_build_time_alone_is_no_difference(file, capsys) -> None:  # type: ignore[no-untyped-def]
    a, b = file("a"), file("b", time=_OTHER_TIME)
    assert a.read_bytes() != b.read_bytes()
    assert main(["sophon", "compare", str(a), str(b)]) == 0
    assert "identical but for the build time" in capsys.readouterr().out
    assert main(["sophon", "compare", str(a), str(a)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "identical"


def test_a_normalised_file_says_so(file) -> None:  # type: ignore[no-untyped-def]
    path = file()
    assert not any("set by facekiln" in line for line in render(read_bmodel(path)))
    path.write_bytes(normalise(path.read_bytes()))
    assert any("1970 (set by facekiln" in line for line in render(read_bmodel(path)))
    assert _differences(path, file("b")) == []


def test_compare_names_what_differs(file) -> None:  # type: ignore[no-untyped-def]
    a = file("a")
    told = _differences(a, file("b", chip="BM1688", version="2.2+v1.30.2-20260701"))
    assert "chip: BM1684X | BM1688" in told
    assert "version: B.2.2+v1.26-20251229 | B.2.2+v1.30.2-20260701" in told
    told = _differences(a, file("b", nets=(("net", (S(inputs=(T("input", (4, 3, 8, 8), scale=2.0),)),)),)))
    assert "net 'net', stage 0, batch: 1 | 4" in told
    assert "net 'net', stage 0, input 'input', shape: [1, 3, 8, 8] | [4, 3, 8, 8]" in told
    assert "net 'net', stage 0, input 'input', scale: 1.0 | 2.0" in told
    assert _differences(a, file("b", nets=(("other", (S(),)),))) == [
        "net 'net': there | absent",
        "net 'other': absent | there",
    ]


def test_compare_tells_another_order_of_outputs(file) -> None:  # type: ignore[no-untyped-def]
    swapped = S(outputs=S().outputs[::-1])
    told = _differences(file("a"), file("b", nets=(("net", (swapped,)),)))
    assert told == [
        "net 'net', stage 0, outputs, order: "
        "'scores_Softmax' 'boxes_Concat' | 'boxes_Concat' 'scores_Softmax'"
    ]


def test_compare_counts_operators_whose_weights_differ(file, capsys) -> None:  # type: ignore[no-untyped-def]
    other = S(weights=b"w" * 2048 + b"x" * 2048)
    a, b = file("a"), file("b", nets=(("net", (other,)),), time=_OTHER_TIME)
    told = _differences(a, b)
    assert len(told) == 2
    assert told[0].startswith("weights (net[0].parameter[0].coeff_mem.binary_coeff): 4,096 bytes")
    assert told[1] == "weights of net 'net', batch 1 | 1, by operator: 1 of 2 differ | tpu.Lut.1 x1"
    assert main(["sophon", "compare", str(a), str(b)]) == 1
    assert f"built: {TIME.strip()} | {_OTHER_TIME.strip()}" in capsys.readouterr().out
    assert main(["sophon", "compare", str(a), str(b), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["identical"] is False


def test_bytes_that_no_field_explains_still_differ(file) -> None:  # type: ignore[no-untyped-def]
    a, b = file("a"), file("b")
    data = bytearray(b.read_bytes())
    data[40] = 1  # a reserved byte of the header
    b.write_bytes(data)
    assert _differences(a, b) == [
        "header, tables or padding: bytes that no field above explains | addresses or order"
    ]
