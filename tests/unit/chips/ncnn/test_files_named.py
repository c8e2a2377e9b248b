"""Every error of ncnn's verbs names the file, also where a layer or parameter is what is wrong."""

from pathlib import Path

import pytest

from facekiln.cli import main
from facekiln.errors import GateError, KilnError, in_file

HEAD = "7767517\n2 2\nInput in0 0 1 in0\n"


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ("Nope a 1 1 in0 out0 0=1", "a: what a Nope layer stores is not known here"),
        ("Convolution a 1 1 in0 out0 0=x 1=1 5=0 6=3", "parameter 0 is no integer"),
        ("Convolution a 1 1 in0 out0 0=1 1=1 5=0 6=-3", "a: its weight has an impossible size"),
        ("Convolution a 1 1 in0 out0 0=1 1=1 5=0 6=3 8=7", "a: its int8 parameter"),
    ],
)
def test_a_layer_that_is_wrong_is_told_with_its_file(
    tmp_path: Path, layer: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    param = tmp_path / "net.param"
    param.write_text(HEAD + layer + "\n")
    param.with_suffix(".bin").write_bytes(bytes(64))
    assert main(["ncnn", "halve", str(param), "--output", str(tmp_path / "half.param")]) == 1
    said = capsys.readouterr().err
    assert f"{param}: " in said and told in said
    assert not (tmp_path / "half.param").exists()


def test_a_file_that_is_named_stays_and_a_gate_stays_a_gate() -> None:
    with pytest.raises(KilnError, match=r"^other\.bin: wrong"), in_file("a.param"):
        raise KilnError("wrong", file="other.bin")
    with pytest.raises(GateError, match=r"^a\.param: layer: outside"), in_file("a.param"):
        raise GateError("outside", where="layer")
