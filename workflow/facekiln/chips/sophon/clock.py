"""The one clock in a .bmodel, set to a known time, so that the same inputs give the same bytes.

tpu_mlir 1.26 writes the time of compilation as C's ctime() does (local time, 25 bytes with the line feed)
into the flatbuffer behind the file's 64-byte header. Nothing checksums it: model_tool and the simulator take
the changed file. Measured on 1.26: no other byte differs between two compilations.
"""

from __future__ import annotations

import re

from facekiln.errors import KilnError

EPOCH = b"Thu Jan  1 00:00:00 1970\n"
_HEADER = 64
_SIZE_AT = slice(8, 12)  # of the flatbuffer, little-endian
_CTIME = re.compile(
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    rb" [ \d]\d \d\d:\d\d:\d\d \d{4}\n"
)


def normalise(data: bytes) -> bytes:
    """Return a .bmodel's bytes with its time of compilation set to the epoch; length and layout are kept.

    Only the flatbuffer is looked at: the kernels and weights behind it may hold anything.

    Raises:
        KilnError: it is no whole .bmodel, or does not hold exactly one such time.
    """
    end = _HEADER + int.from_bytes(data[_SIZE_AT], "little")
    if len(data) < _HEADER or not _HEADER < end <= len(data):
        raise KilnError("is no whole .bmodel", value=f"{len(data)} bytes", limit=f"at least {end} bytes")
    normal, found = _CTIME.subn(EPOCH, data[:end])
    if found != 1:
        raise KilnError(
            "the time of compilation is not where tpu_mlir 1.26 writes it, so the file is not reproducible",
            value=f"{found} times in the description of the nets",
            limit="exactly one",
            hint="use the pinned tpu_mlir: facekiln sophon environment --check",
        )
    return normal + data[end:]
