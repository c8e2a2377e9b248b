"""The compiler's own estimate of a run's time, from the schedule that it leaves beside the .bmodel.

It is a model's figure, never compared here with a chip; releases of the compiler disagree by up to 27 % on
one network. So it is always called "compiler estimate" and named with the release.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# bm1684x, bm1688 and cv186x; bm1684. One file per core.
_FILES = ("compiler_profile_*.txt", "_*.dat")
_TAIL = 8192
_CYCLES = re.compile(r"API_END total_cycle:(\d+)")
_RUNTIME = re.compile(r"runtime: ([\d.]+)\s*ms")


@dataclass(frozen=True)
class Estimate:
    """What the compiler's schedule says of one run of a whole batch.

    Attributes:
        cycles: until the slowest core has ended.
        milliseconds: the same as the compiler converts it.
        release: of the compiler, e.g. "tpu_mlir 1.26".
    """

    cycles: int
    milliseconds: float
    release: str

    def record(self, batch: int) -> dict[str, Any]:
        """Return it for a sidecar."""
        return {
            "what": "compiler estimate, not a measurement",
            "release": self.release,
            "cycles": self.cycles,
            "milliseconds": self.milliseconds,
            "milliseconds_per_picture": round(self.milliseconds / batch, 6),
        }


def read_estimate(folder: Path, release: str) -> Estimate | None:
    """Return the estimate in the folder of a compilation, or None where the compiler left none.

    Args:
        folder: in which model_deploy ran.
        release: of the compiler.
    """
    found: list[tuple[int, float]] = []
    for path in (path for pattern in _FILES for path in sorted(folder.glob(pattern))):
        text = _tail(path)
        cycles, runtime = _CYCLES.findall(text), _RUNTIME.findall(text)
        if cycles and runtime:
            found.append((int(cycles[-1]), float(runtime[-1])))
    if not found:
        return None
    return Estimate(max(cycles for cycles, _ in found), max(time for _, time in found), release)


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL))
        return stream.read().decode("utf-8", "replace")
