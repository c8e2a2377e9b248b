"""Whatever a file holds, a reader gives samples below its folder or a KilnError, and no other exception."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facekiln.data.lapa import read_lapa
from facekiln.data.pfld_list import read_pfld_list
from facekiln.data.sample import Listing
from facekiln.data.voc import read_voc
from facekiln.data.wflw import read_wflw
from facekiln.data.wider import read_wider_label, read_wider_text
from facekiln.data.wider_mat import read_wider_mat
from facekiln.errors import KilnError

Reader = Callable[[str, Path, Path], Listing]

WORDS = st.sampled_from(
    [
        "# ",
        "\n",
        " ",
        "a.jpg",
        "../a.jpg",
        "0",
        "1",
        "2",
        "-1",
        "-1.0",
        "1e308",
        "nan",
        "106",
        "\r\n",
        "\0",
        "0 " * 10,
    ]
)
ROW = " ".join(["0.5"] * 196 + ["0"] * 9)
TEXTS = st.one_of(
    st.lists(WORDS, max_size=40).map("".join),
    st.text(max_size=80),
    st.lists(WORDS, max_size=4).map(lambda words: f"a.jpg {ROW} " + "".join(words)),
    st.lists(WORDS, max_size=4).map(lambda words: f"{ROW} 0 " + "".join(words)),
)


def _read_all(read: Reader, name: str, content: bytes, folder_of: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "marks" / name
        path.parent.mkdir()
        path.write_bytes(content)
        images = Path(folder) / "images"
        try:
            for sample in read("any", images, path.parent if folder_of else path):
                assert isinstance(sample.picture, Path) and ".." not in sample.picture.parts
                assert sample.picture.is_relative_to(images)
                assert sample.boxes.shape == (len(sample), 4) and sample.ignore.shape == (len(sample),)
        except KilnError as error:
            assert name in str(error) or "annotated twice" in str(error)


@pytest.mark.parametrize("read", [read_wider_text, read_wider_label, read_wflw, read_pfld_list])
@given(text=TEXTS)
@settings(max_examples=80)
def test_text(read: Reader, text: str) -> None:
    _read_all(read, "list.txt", text.encode("utf-8", "surrogatepass"))


@given(text=TEXTS)
@settings(max_examples=60)
def test_lapa(text: str) -> None:
    _read_all(read_lapa, "a.txt", text.encode("utf-8", "surrogatepass"), folder_of=True)


XML = b"""<annotation><filename>a.jpg</filename><size><width>6</width><height>4</height></size><object>
<name>face</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>"""


@given(at=st.integers(0, len(XML)), junk=st.binary(max_size=6), cut=st.integers(0, 40))
@settings(max_examples=150)
def test_xml(at: int, junk: bytes, cut: int) -> None:
    _read_all(read_voc, "a.xml", XML[:at] + junk + XML[at + cut :], folder_of=True)


@pytest.fixture(scope="module")
def mat(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small ground truth file, uncompressed so that damage reaches the parser."""
    from scipy.io import savemat

    def cells(*items: object) -> np.ndarray:
        held = np.empty((len(items), 1), object)
        for index, item in enumerate(items):
            held[index, 0] = item
        return held

    one = cells(np.zeros((1, 1), np.uint8))
    names = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    content = {f"{name}_label_list": cells(one) for name in names}
    boxes = cells(cells(np.ones((1, 4), np.int32)))
    savemat(
        path, content | {"event_list": cells("e"), "file_list": cells(cells("f")), "face_bbx_list": boxes}
    )
    return path.read_bytes()


@given(damage=st.dictionaries(st.integers(124, 10_000), st.integers(0, 255), max_size=4), cut=st.floats(0, 1))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mat(mat: bytes, damage: dict[int, int], cut: float) -> None:
    damaged = bytearray(mat)
    for at, value in damage.items():
        damaged[at % len(mat)] = value
    _read_all(read_wider_mat, "a.mat", bytes(damaged))
    _read_all(read_wider_mat, "a.mat", mat[: int(cut * len(mat))])
