"""What a file that should be a model is instead, told from its first bytes."""

from __future__ import annotations

# The first bytes of what people download or rename by mistake, and what to call it.
_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it points to"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"%PDF", "a PDF"),
)


def looks_like(head: bytes) -> str | None:
    """Return what a file plainly is, in words, or None where it may be a model.

    Args:
        head: its first bytes; 64 are enough.
    """
    if not head:
        return "empty"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"<":
        return "a web page or XML"
    if text[:2] in (b'{"', b"{\n") or text[:2] == b"[{":
        return "JSON text, perhaps a server's error message"
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    # The first tensor's name of a safetensors header comes right after its 8-byte length.
    if head[8:10] == b'{"':
        return "a safetensors file"
    # Field 1 (IR version) as a small number, then field 2 (producer) as text: an ONNX ModelProto.
    if head[:1] == b"\x08" and head[2:3] == b"\x12":
        return "an ONNX model"
    return None
