"""Picture files: read whole or refused, as they are stored."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from facekiln.errors import KilnError
from facekiln.vision.detect import Faces
from facekiln.vision.image import draw_faces, read_image, write_image


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    done, data = cv2.imencode(".jpg", image)
    assert done
    return data.tobytes()


def exif(orientation: int, thumbnail: bytes = b"") -> bytes:
    """Return an APP1 segment with that orientation, and bytes where a thumbnail would be."""
    body = b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08"
    body += struct.pack(">HHHIHH", 1, 0x0112, 3, 1, orientation, 0) + b"\x00\x00\x00\x00" + thumbnail
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("name", ["x.png", "ünï çødé 顔.png", "x.PNG", "x.bmp"])
def test_written_and_read_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "Ordner ä" / name
    write_image(path, picture())
    assert np.array_equal(read_image(path), picture())


def test_grey_alpha_and_sixteen_bits_become_three_channels_of_eight(tmp_path: Path) -> None:
    image = picture()
    for name, stored, expected in [
        ("grey", image[:, :, 0], np.repeat(image[:, :, :1], 3, axis=2)),
        ("alpha", np.dstack([image, image[:, :, 0]]), image),
        ("deep", image.astype(np.uint16) * 257, image),
    ]:
        path = tmp_path / f"{name}.png"
        path.write_bytes(cv2.imencode(".png", stored)[1].tobytes())
        assert np.array_equal(read_image(path), expected), name


def test_the_orientation_in_exif_is_ignored(tmp_path: Path) -> None:
    plain = jpeg(picture())
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(plain[:2] + exif(6) + plain[2:])
    assert cv2.imread(str(turned)).shape == (60, 40, 3), "OpenCV's own reader would turn it"
    straight = tmp_path / "straight.jpg"
    straight.write_bytes(plain)
    assert np.array_equal(read_image(turned), read_image(straight))


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_cut_jpeg_is_refused_wherever_it_is_cut(tmp_path: Path, progressive: int) -> None:
    settings = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    data = cv2.imencode(".jpg", picture(), settings)[1].tobytes()
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    read_image(path)
    for length in [*range(3, len(data), 61), len(data) - 2, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(KilnError, match=r"x\.jpg: is a truncated JPEG"):
            read_image(path)


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture(tmp_path: Path) -> None:
    whole = jpeg(picture())
    data = whole[:2] + exif(1, jpeg(picture(8, 8))) + whole[2:]
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    assert read_image(path).shape == (40, 60, 3)
    path.write_bytes(data[:-40])
    with pytest.raises(KilnError, match="truncated"):
        read_image(path)


def test_bytes_after_the_end_do_no_harm(tmp_path: Path) -> None:
    # Phones append films and depth maps to their pictures.
    path = tmp_path / "x.jpg"
    path.write_bytes(jpeg(picture()) + b"film" * 1000)
    assert read_image(path).shape == (40, 60, 3)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".webp", ".tiff"])
def test_other_cut_pictures_are_refused(tmp_path: Path, ending: str) -> None:
    data = cv2.imencode(ending, picture())[1].tobytes()
    path = tmp_path / f"x{ending}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(KilnError, match=r"is no picture OpenCV can read"):
        read_image(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html>not here</html>", "is a web page"),
        (b"", "is empty"),
        (b"hello, this is text", "is no picture"),
        (b"\x00" * 100, "is no picture"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "face.jpg"
    path.write_bytes(data)
    with pytest.raises(KilnError, match=rf"face\.jpg: {words}"):
        read_image(path)


def test_a_size_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """A header alone makes OpenCV allocate the whole picture: 30000 x 30000 are 2.7 GB."""
    data = bytearray(cv2.imencode(".jpg", picture())[1].tobytes())
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = (30000).to_bytes(2, "big") * 2
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(KilnError, match=r"x\.jpg: is larger than any picture .*limit: 200000000 pixels"):
        read_image(tmp_path / "x.jpg")


def test_missing_files_and_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="cannot be read: No such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(KilnError, match="cannot be read: Is a directory"):
        read_image(tmp_path)


def test_an_unknown_ending_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match=r"use \.png or \.jpg"):
        write_image(tmp_path / "x.face", picture())
    assert list(tmp_path.iterdir()) == []


def test_drawing_marks_a_copy() -> None:
    image = np.zeros((80, 100, 3), np.uint8)
    faces = Faces(
        boxes=np.array([[20, 30, 60, 70]], np.float32),
        scores=np.array([0.5], np.float32),
        landmarks=np.array([[[40, 50]] * 5], np.float32),
    )
    drawn = draw_faces(image, faces)
    assert not image.any()
    assert drawn[30, 40].any()
    assert drawn[50, 40].any()
    assert not drawn[60, 50].any()


def test_wild_boxes_are_drawn_without_failing() -> None:
    boxes = np.array([[-1e12, -1e12, 1e12, 1e12], [1e9, 1e9, 2e9, 2e9]], np.float32)
    faces = Faces(boxes, np.ones(2, np.float32), np.full((2, 5, 2), 1e15, np.float32))
    assert draw_faces(picture(), faces).shape == (40, 60, 3)


def test_faces_without_landmarks_are_drawn() -> None:
    faces = Faces(
        np.array([[5, 5, 20, 20]], np.float32), np.ones(1, np.float32), np.zeros((1, 0, 2), np.float32)
    )
    assert draw_faces(picture(), faces).shape == (40, 60, 3)
