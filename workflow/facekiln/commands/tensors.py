"""What the verbs `run` and `inspect` of the chips print."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def tell_tensors(outputs: Mapping[str, NDArray[np.float32]], folder: Path | None) -> None:
    """Print name, shape, least, mean and greatest value of each, and write each as .npy into a folder."""
    import numpy as np

    for name, values in outputs.items():
        shape = "x".join(map(str, values.shape))
        figures = f"min {values.min():10.4f}  mean {values.mean():10.4f}  max {values.max():10.4f}"
        sys.stdout.write(f"{name:<32} {shape:<14} {figures}\n")
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{name}.npy", values)


def tell_json(told: list[dict[str, Any]]) -> None:
    """Print what was found about each file: one as itself, several as a list."""
    sys.stdout.write(json.dumps(told[0] if len(told) == 1 else told, indent=2, allow_nan=False) + "\n")
