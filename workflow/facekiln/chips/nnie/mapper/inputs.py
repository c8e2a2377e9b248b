"""What the emulated mapper calibrates on: image lists, means and scales of a `.cfg`, as network inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.nnie.mapper.cfg import IMAGE_TYPES, USES_SCALE, InputGroup, MapperConfig
from facekiln.chips.nnie.mapper.job import read_list
from facekiln.errors import KilnError
from facekiln.unreadable import unreadable

Array = NDArray[np.float32]

# The endings that the guide lists, in either case.
ENDINGS = frozenset(
    [
        ".bmp",
        ".dib",
        ".jpeg",
        ".jpg",
        ".jpe",
        ".jp2",
        ".png",
        ".webp",
        ".pbm",
        ".pgm",
        ".ppm",
        ".sr",
        ".ras",
        ".tiff",
        ".tif",
    ]
)
_BLACK, _WHITE = 2.0, 253.0


def _mean_text(path: Path, channels: int) -> Array:
    try:
        words = path.read_text(encoding="utf-8").split()
        values = np.array([float(word) for word in words], np.float32)
    except OSError as error:
        raise unreadable(path, error, "the mean file cannot be read") from error
    except ValueError as error:
        raise KilnError(f"the mean file is not one float per line: {error}", file=path) from error
    if len(values) != channels or not np.isfinite(values).all():
        raise KilnError(
            "the mean file must hold one float per channel", file=path, value=len(values), limit=channels
        )
    return values.reshape(channels, 1, 1)


def _mean_binaryproto(path: Path, shape: list[int]) -> Array:
    from google.protobuf.message import DecodeError

    from facekiln.caffe.schema import message_class

    try:
        blob = message_class("BlobProto").FromString(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error, "the mean file cannot be read") from error
    except DecodeError as error:
        raise KilnError("the mean file is not a .binaryproto", file=path) from error
    data = b"".join(blob.data)
    values = np.frombuffer(data[: len(data) // 4 * 4], "<f4")
    if values.size != np.prod(shape[1:]):
        raise KilnError("the mean image has another size", file=path, value=values.size, limit=shape[1:])
    return values.reshape(shape[1:]).copy()


def mean_of(group: InputGroup, shape: list[int]) -> Array:
    """Return what an input's norm_type subtracts: float32 [C, H, W] or broadcastable to it.

    Raises:
        KilnError: the mean file is missing or does not fit the input.
    """
    if group.norm_type in (2, 5):
        return _mean_text(Path(group.mean_file), shape[1])
    if group.norm_type in (1, 4):
        return _mean_binaryproto(Path(group.mean_file), shape)
    return np.zeros((1, 1, 1), np.float32)


def scale_of(group: InputGroup, config: MapperConfig) -> float:
    """Return what an input's norm_type multiplies by."""
    return float(config.data_scale) if group.norm_type in USES_SCALE else 1.0


def normalised(values: Array, mean: Array, scale: float) -> Array:
    """Return `(x - mean) * scale` in float32; the vendor's comparison script multiplies first instead."""
    return (values - mean) * np.float32(scale)


def normaliser(group: InputGroup, config: MapperConfig, shape: list[int]) -> Callable[[Array], Array]:
    """Return the function `(x - mean) * scale` of one input, on float32 [1, C, H, W].

    Raises:
        KilnError: the mean file is missing or does not fit the input.
    """
    mean, scale = mean_of(group, shape), scale_of(group, config)
    return lambda x: normalised(x, mean, scale)


def picture_to_planes(
    image: NDArray[np.uint8], shape: list[int], order: str, resize: str
) -> NDArray[np.float32]:
    """Return a picture as the chip would see it before mean and scale.

    Args:
        image: uint8 BGR, [h, w, 3].
        shape: the input's [1, C, H, W], C 1 or 3.
        order: RGB or BGR, the .cfg's RGB_order.
        resize: how pictures of another size are resized: nearest, linear, area or cubic.

    Returns:
        float32 [1, C, H, W] of 0..255.
    """
    import cv2

    _, channels, height, width = shape
    if image.shape[:2] != (height, width):
        filters = {
            "nearest": cv2.INTER_NEAREST,
            "linear": cv2.INTER_LINEAR,
            "area": cv2.INTER_AREA,
            "cubic": cv2.INTER_CUBIC,
        }
        image = np.asarray(cv2.resize(image, (width, height), interpolation=filters[resize]), np.uint8)
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)[None, None]
    ordered = image[:, :, ::-1] if order == "RGB" else image
    return np.ascontiguousarray(ordered.transpose(2, 0, 1)[None], np.float32)


def _pictures(
    group: InputGroup, config: MapperConfig, shape: list[int], resize: str, warn: Callable[[str], None]
) -> Iterator[Array]:
    from facekiln.vision.image import read_image

    normalise = normaliser(group, config, shape)
    resized = 0
    for path in read_list(Path(group.image_list)):
        if path.suffix.lower() not in ENDINGS:
            raise KilnError(
                "the mapper reads no pictures of this ending",
                file=path,
                value=path.suffix,
                limit=" ".join(sorted(ENDINGS)),
            )
        image = read_image(path)
        if not _BLACK < float(image.mean()) < _WHITE:
            warn(f"{path} is all black or all white; such pictures make a calibration worse")
        resized += image.shape[:2] != tuple(shape[2:])
        yield normalise(picture_to_planes(image, shape, config.RGB_order, resize))
    if resized:
        warn(f"{resized} pictures were resized ({resize}); the vendor tool's filter is not known")


def _feature_maps(group: InputGroup, shape: list[int]) -> Iterator[Array]:
    """Yield the tensors of a feature map list: one per line, its floats split by blanks or commas."""
    path = Path(group.image_list)
    found = False
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                values = np.array(line.replace(",", " ").split(), np.float32)
                if values.size != np.prod(shape[1:]) or not np.isfinite(values).all():
                    raise KilnError(
                        "a line must hold one whole tensor",
                        file=path,
                        where=f"line {number}",
                        value=values.size,
                        limit=shape[1:],
                    )
                found = True
                yield values.reshape(1, *shape[1:])
    except OSError as error:
        raise unreadable(path, error, "the feature map list cannot be read") from error
    except ValueError as error:
        raise KilnError(f"the feature map list is not floats: {error}", file=path) from error
    if not found:
        raise KilnError("the feature map list is empty", file=path)


def count_batches(config: MapperConfig) -> int:
    """Return how many calibration batches a .cfg names, for progress.

    Raises:
        KilnError: a list is missing or empty, or two inputs have lists of different length.
    """
    counts = {}
    for group in config.inputs:
        path = Path(group.image_list)
        counts[group.image_list] = len(read_list(path))
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise KilnError("the inputs have lists of different length", value=said)
    return next(iter(counts.values()))


def calibration_batches(
    config: MapperConfig, inputs: dict[str, list[int]], resize: str, warn: Callable[[str], None]
) -> Iterator[dict[str, Array]]:
    """Yield each calibration picture (one per input) as network inputs, in list order.

    Args:
        config: its groups belong to `inputs` in order.
        inputs: input name -> [1, C, H, W].
        resize: see `picture_to_planes`.
        warn: told of doubtful pictures.

    Raises:
        KilnError: unreadable, missing or foreign pictures, named; YUV inputs; groups that do not match the
            inputs.
    """
    if len(config.inputs) != len(inputs):
        raise KilnError(
            "one group of image_list, image_type, norm_type and mean_file is needed per input layer",
            value=len(config.inputs),
            limit=f"{len(inputs)} ({', '.join(inputs)})",
        )
    streams: list[Iterator[Array]] = []
    for (name, shape), group in zip(inputs.items(), config.inputs, strict=True):
        if group.image_type in (3, 5):
            raise KilnError(
                f"image_type {group.image_type} ({IMAGE_TYPES[group.image_type]}) is not emulated: "
                "the chip's conversion from YUV is not public",
                where=f"input '{name}'",
                hint="use image_type 1, or map with the vendor's tool",
            )
        if group.image_type == 0:
            streams.append(_feature_maps(group, shape))
        else:
            streams.append(_pictures(group, config, shape, resize, warn))
    for values in zip(*streams, strict=True):
        yield dict(zip(inputs, values, strict=True))
