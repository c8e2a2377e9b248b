"""What results/magicmind/{model}_{size}_{precision}_{batch}b.mm asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from facekiln.config import known
from facekiln.errors import KilnError

PRECISIONS = ("force_float32", "force_float16", "qint8_mixed_float16")
# The quantised ones need a calibration set.
QUANTISED = ("qint8_mixed_float16",)
_BATCH = re.compile(r"([1-9]\d{0,2})(?:-([1-9]\d{0,2}))?")


@dataclass(frozen=True)
class Batch:
    """How many pictures a file takes at once: fixed where `least` is `most`, else mutable between them."""

    least: int
    most: int

    @property
    def mutable(self) -> bool:
        """Whether the batch may change from run to run."""
        return self.least != self.most

    def __str__(self) -> str:
        """Return it as names have it: `4`, or `1-8`."""
        return f"{self.least}-{self.most}" if self.mutable else str(self.least)


def batch_from(text: str) -> Batch:
    """Return the batch that a name has: `4` fixed, `1-8` mutable.

    Raises:
        KilnError: neither, or the range is empty.
    """
    found = _BATCH.fullmatch(text)
    least = int(found[1]) if found else 0
    most = int(found[2]) if found and found[2] else least
    if not found or most < least or (found[2] and most == least):
        raise KilnError(
            "is no batch of a MagicMind file",
            value=text,
            limit="1 to 999, or LEAST-MOST for a mutable one",
            hint="e.g. retinaface_640_force_float16_4b.mm, retinaface_640_force_float16_1-8b.mm",
        )
    return Batch(least, most)


def check_precision(precision: str) -> None:
    """Refuse an unknown precision.

    Raises:
        KilnError: with what there is.
    """
    known(precision, PRECISIONS, "MagicMind precision")
