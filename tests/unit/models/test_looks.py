"""What people hand in instead of a model."""

import io

import pytest
import torch

from facekiln.models.looks import looks_like


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\xef\xbb\xbf\n  <html>", "web page"),
        (b'{"message": "Not Found"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:6d1d", "Git LFS pointer"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"conv.weight"', "safetensors"),
        (b"\x08\x08\x12\x07pytorch", "ONNX"),
    ],
)
def test_is_told(head: bytes, words: str) -> None:
    assert words in (looks_like(head) or "nothing")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_either_form_is_not_mistaken(zipped: bool) -> None:
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, stream, _use_new_zipfile_serialization=zipped)
    assert looks_like(stream.getvalue()[:64]) is None
