from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from facekiln.chips.ncnn.header import header_of, write_header
from facekiln.chips.ncnn.param import parse_param

TEXT = """7767517
4 5
Input data 0 1 data
Split 1split 1 2 data x/1 x.1
ReLU x_1 1 1 x/1 loc
ReLU 3 1 1 x.1 530
"""


def test_indices_are_ncnns_and_names_stay_apart() -> None:
    text = header_of(parse_param(TEXT), "net-v1.param")
    found = {name: int(value) for name, value in re.findall(r"(\w+) = (\d+)", text)}
    assert found == {
        "net_v1_BLOB_data": 0,
        "net_v1_BLOB_x_1_1": 1,
        "net_v1_BLOB_x_1_2": 2,
        "net_v1_BLOB_loc": 3,
        "net_v1_BLOB__530": 4,
        "net_v1_LAYER_data": 0,
        "net_v1_LAYER__1split": 1,
        "net_v1_LAYER_x_1": 2,
        "net_v1_LAYER__3": 3,
    }
    assert "net_v1_INPUTS[1] = {0};" in text
    assert "net_v1_OUTPUTS[2] = {3, 4};" in text


@pytest.mark.parametrize("language", ["c", "c++"])
def test_it_compiles(language: str, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is here")
    header = write_header(tmp_path / "a.param", header_of(parse_param(TEXT), "a.param"))
    assert header.name == "a.id.h"
    source = (
        '#include "a.id.h"\n#include "a.id.h"\nint outputs(void) { return a_OUTPUTS[0] + a_INPUTS[0]; }\n'
    )
    program = subprocess.run(
        [compiler, "-x", language, "-Wall", "-Werror", "-fsyntax-only", "-I", str(tmp_path), "-"],
        input=source.encode(),
        capture_output=True,
    )
    if b"cc1plus" in program.stderr:
        pytest.skip("no C++ compiler is here")
    assert program.returncode == 0, program.stderr.decode()
