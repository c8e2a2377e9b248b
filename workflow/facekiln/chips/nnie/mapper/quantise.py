"""The emulated mapper's work: what it can emulate, ranges over the pictures, the quantised engine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.net import Net
from facekiln.chips.nnie.engine.engine import Engine
from facekiln.chips.nnie.engine.fuse import fuse
from facekiln.chips.nnie.engine.ranges import measure_ranges
from facekiln.chips.nnie.mapper.cfg import MapperConfig
from facekiln.chips.nnie.mapper.inputs import calibration_batches, count_batches
from facekiln.chips.nnie.mapper.log import MapperLog
from facekiln.chips.nnie.settings import NnieSettings
from facekiln.errors import KilnError
from facekiln.progress import progress_bar

Batch = Mapping[str, NDArray[np.float32]]
_MODE_BITS = {0: 8, 1: 16}


@dataclass(frozen=True)
class Quantised:
    """What a calibration gave.

    Attributes:
        engine: the quantised network.
        pictures: how many it was calibrated on.
        set_sha256: hash of the calibration inputs, after mean and scale.
        last: the last picture's inputs, which dumps belong to.
    """

    engine: Engine
    pictures: int
    set_sha256: str
    last: Batch


def check_emulated(config: MapperConfig, net: Net) -> None:
    """Refuse what the vendor's tool can and the emulator cannot, rather than do something else.

    Raises:
        KilnError: names the key.
    """

    def refuse(key: str, value: object, why: str) -> KilnError:
        hint = "map with the vendor's tool, or change the key"
        return KilnError(f"is not emulated: {why}", where=f"[{key}]", value=value, hint=hint)

    if config.net_type:
        raise refuse("net_type", config.net_type, "only CNNs (0) are")
    if config.gfpq_param_file:
        raise refuse("gfpq_param_file", config.gfpq_param_file, "its syntax is not public")
    if config.sparse_rate and any(layer.type == "InnerProduct" for layer in net.layers):
        raise refuse("sparse_rate", config.sparse_rate, "how the vendor chooses the weights is not public")


def hp_bits(config: MapperConfig, net: Net) -> int | dict[str, int]:
    """Return the precision: 8, 16, or for compile_mode 2 the layers whose names end in `_hp` at 16.

    Raises:
        KilnError: compile_mode 2, and no layer that computes is named `_hp`.
    """
    if config.compile_mode in _MODE_BITS:
        return _MODE_BITS[config.compile_mode]
    chosen = {step.name: 16 for step in fuse(net).steps if step.name.endswith("_hp")}
    if not chosen:
        raise KilnError(
            "compile_mode 2 needs layers whose names end in `_hp`",
            where="[compile_mode]",
            value=config.compile_mode,
            hint="rename the layers that need 16 bit (not fused activations), or use 0 or 1",
        )
    return chosen


def _warn_of_zeros(ranges: Mapping[str, float], net: Net, log: MapperLog) -> None:
    silent = [blob for blob, largest in ranges.items() if largest == 0]
    silent += [layer.name for layer in net.layers if layer.blobs and not layer.blobs[0].any()]
    for name in silent:
        # The vendor's own words, and the value that libgfpq takes.
        log.warning(f"quantise  name: {name}", "data containing only zeros; set max value to 1e-6.")


def quantise(
    config: MapperConfig, net: Net, bits: int | dict[str, int], settings: NnieSettings, log: MapperLog
) -> Quantised:
    """Measure ranges over the calibration set and quantise.

    Raises:
        KilnError: the calibration set is empty, unreadable or does not fit; a value overflows.
    """
    digest = hashlib.sha256()
    count = count_batches(config)
    last: Batch = {}
    threads = settings.emulator.threads or os.cpu_count() or 1

    def warn(text: str) -> None:
        log.warning("image_list", text)

    def batches() -> Iterator[Batch]:
        nonlocal last
        for batch in calibration_batches(config, net.inputs, settings.emulator.resize, warn):
            for name in net.inputs:
                digest.update(batch[name].tobytes())
            last = batch
            yield batch

    with progress_bar(count, "calibration", "picture") as bar:
        ranges = measure_ranges(net, batches(), progress=bar.update, threads=threads)
    _warn_of_zeros(ranges, net, log)
    return Quantised(Engine(net, ranges, bits, threads), count, digest.hexdigest(), last)
