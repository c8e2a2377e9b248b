"""MATLAB files (version 5), read through SciPy; a broken one is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.errors import KilnError


def load_mat(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """Return the named variables of a .mat file, as SciPy gives them (cells are object arrays).

    Raises:
        KilnError: it cannot be read, is no MATLAB 5 file, or lacks a variable.
    """
    from scipy.io import loadmat

    try:
        # appendmat would read `x.mat` where `x` was asked for.
        found: dict[str, Any] = loadmat(path, variable_names=names, appendmat=False)
    except OSError as error:
        raise KilnError(f"cannot be read: {error.strerror or error}", file=path) from error
    except NotImplementedError as error:
        raise KilnError(
            "is a MATLAB 7.3 file", file=path, limit="version 5", hint="in MATLAB: save(..., '-v7')"
        ) from error
    except Exception as error:  # a damaged file raises anything from struct.error to zlib.error
        raise KilnError(f"is no whole MATLAB file: {error}", file=path, hint="fetch it again") from error
    for name in names:
        if name not in found:
            raise KilnError("lacks a variable", file=path, where=name, hint="is this the right file?")
    return {name: found[name] for name in names}


def has_variable(path: Path, name: str) -> bool:
    """Tell whether a .mat file holds a variable.

    Raises:
        KilnError: see `load_mat`.
    """
    from scipy.io import whosmat

    try:
        return any(name == found for found, _, _ in whosmat(path, appendmat=False))
    except OSError as error:
        raise KilnError(f"cannot be read: {error.strerror or error}", file=path) from error
    except Exception as error:  # see above
        raise KilnError(f"is no whole MATLAB file: {error}", file=path, hint="fetch it again") from error


def real_array(value: Any, shape: tuple[int | None, ...], file: Path, where: str) -> NDArray[np.float64]:
    """Return a variable as finite float64 of a shape (None: any length), whatever integer type it has.

    Integers are widened before any sum, because annotations are stored as uint8, uint16 or int32.

    Raises:
        KilnError: wrong shape, or not finite numbers.
    """
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=False)
    )
    if not fits or array.dtype.kind not in "iuf":
        wanted = "x".join("n" if length is None else str(length) for length in shape)
        have = f"{'x'.join(map(str, array.shape))} {array.dtype}"
        raise KilnError("is no array of the expected shape", file=file, where=where, value=have, limit=wanted)
    real = array.astype(np.float64)
    if not np.isfinite(real).all():
        raise KilnError("holds numbers that are not finite", file=file, where=where)
    return real
