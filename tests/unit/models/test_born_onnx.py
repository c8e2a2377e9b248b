"""Models born as ONNX: only the declared file, with the declared interface, gets in."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from facekiln.cli import main
from facekiln.config import Model, load_config
from facekiln.errors import KilnError
from facekiln.models.born_onnx import parse_born_onnx
from facekiln.models.registry import build_network


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    return load_config(root / "config").model("ghostone")


def made(inputs: dict[str, list[int]] | None = None, outputs: dict[str, list[int]] | None = None) -> bytes:
    """An ONNX file that sums its inputs, by default with the interface of the declared one's input."""
    given = inputs or {"input": [1, 3, 112, 112]}
    wanted = outputs or {"output": [1, 3, 112, 112]}
    graph = helper.make_graph(
        [helper.make_node("Sum", list(given), [name]) for name in wanted],
        "g",
        *(
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in values.items()]
            for values in (given, wanted)
        ),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString()


def test_the_declared_interface_is_taken(model: Model) -> None:
    assert parse_born_onnx(made(), "x.onnx", model).graph.node[0].op_type == "Sum"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (made(inputs={"data": [1, 3, 112, 112]}), r"its input is not as config/models/ghostone\.yaml says"),
        (made(inputs={"input": [1, 3, 96, 96]}, outputs={"output": [1, 3, 96, 96]}), "its input is not as"),
        (
            made(inputs={"input": [1, 3, 112, 112], "b": [1, 3, 112, 112]}),
            "its input is not as",
        ),
        (made(outputs={"landms": [1, 3, 112, 112]}), "its outputs are not as"),
        (b"<html>404</html>", "is a web page or XML, not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\x08\x07\x12\x04junk", "is not a valid ONNX model"),
        (made()[:-40], "is not a valid ONNX model"),
        (b"", "is empty"),
    ],
)
def test_other_files_are_refused(model: Model, data: bytes, words: str) -> None:
    with pytest.raises(KilnError, match=rf"x\.onnx: {words}"):
        parse_born_onnx(data, "x.onnx", model)


def test_a_model_of_two_sizes_is_no_single_file(model: Model) -> None:
    with pytest.raises(KilnError, match="says `born: onnx` and has one size"):
        parse_born_onnx(made(), "x.onnx", replace(model, sizes={"112": (112, 112), "96": (96, 96)}))
    with pytest.raises(KilnError, match="born: a model that is born as ONNX"):
        parse_born_onnx(made(), "x.onnx", replace(model, born="checkpoint"))


def test_it_has_no_network_here(model: Model) -> None:
    with pytest.raises(KilnError, match=r"ghostone\.yaml: born: .*no checkpoint(?s:.)*facekiln onnx fetch"):
        build_network(model)


@pytest.mark.published
def test_the_published_file_is_fetched_from_a_mirror_as_it_is(
    root: Path, mirror: Callable[[str], Path], tmp_path: Path
) -> None:
    path = mirror("pfld_ghostone_112.onnx")
    target = tmp_path / "ghostone_112.onnx"
    given = ["--config", str(root / "config"), "--mirror", str(path.parent), "--output", str(target)]
    assert main(["onnx", "fetch", "--model", "ghostone", *given]) == 0
    assert target.read_bytes() == path.read_bytes()
    assert (tmp_path / "ghostone_112.onnx.kiln.json").is_file()
    assert len(onnx.load(str(target)).graph.node) == 110


def test_a_model_with_a_checkpoint_is_told_to_export_it(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--config", str(root / "config"), "--output", str(tmp_path / "x.onnx")]
    assert main(["onnx", "fetch", "--model", "retinaface", *given]) == 1
    assert "retinaface.yaml: is not born as a published ONNX file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
