"""The `.cfg` of a declared model: preprocessing, colour order and precision become nnie_mapper's keys."""

from __future__ import annotations

from dataclasses import dataclass

from facekiln.chips.nnie.mapper.cfg import (
    COMPILE_MODES,
    DEFAULT_SCALE,
    USES_SCALE,
    InputGroup,
    MapperConfig,
    check_config,
)
from facekiln.chips.nnie.settings import NnieSettings
from facekiln.config import Input, Model
from facekiln.errors import KilnError


@dataclass(frozen=True)
class CfgPaths:
    """The paths that a .cfg names, relative to the folder in which the mapper will run."""

    prototxt: str = "net.prototxt"
    caffemodel: str = "net.caffemodel"
    image_list: str = "list.txt"
    mean_file: str = "mean.txt"
    instruction: str = "inst"


def norm_type_of(declared: Input) -> int:
    """Return the norm_type of `(x - mean) * scale`: 0 none, 2 channel mean, 3 scale, 5 both.

    Raises:
        KilnError: the channels have different scales, which the mapper has no key for.
    """
    if len(set(declared.scale)) > 1:
        raise KilnError(
            "the mapper has one data_scale for all channels",
            where="input.scale",
            value=list(declared.scale),
            limit="equal scales",
            hint="fold the difference into the first convolution's weights, or retrain with one scale",
        )
    has_mean, has_scale = any(declared.mean), declared.scale[0] != 1
    return {(False, False): 0, (True, False): 2, (False, True): 3, (True, True): 5}[has_mean, has_scale]


def mean_text(declared: Input) -> str | None:
    """Return the mean file's text, a float per line in the network's channel order, or None for no mean."""
    if not any(declared.mean):
        return None
    return "".join(f"{float(mean)}\n" for mean in declared.mean)


def cfg_for(
    model: Model, settings: NnieSettings, precision: int, paths: CfgPaths | None = None
) -> MapperConfig:
    """Return the complete .cfg of a model with one U8 image input.

    Args:
        model: its declared mean, scale and colour decide norm_type, data_scale, mean_file and RGB_order.
        settings: the keys that the model does not decide.
        precision: 8 or 16 bit.
        paths: what the .cfg names.

    Raises:
        KilnError: the preprocessing or the precision has no form in a .cfg.
    """
    paths = paths or CfgPaths()
    if precision not in COMPILE_MODES:
        raise KilnError("unknown precision", value=precision, limit="8 or 16")
    norm_type = norm_type_of(model.input)
    order = model.input.colour.upper() if settings.cfg.rgb_order == "model" else settings.cfg.rgb_order
    scale = float(model.input.scale[0]) if norm_type in USES_SCALE else DEFAULT_SCALE
    config = MapperConfig(
        prototxt_file=paths.prototxt,
        caffemodel_file=paths.caffemodel,
        inputs=(
            InputGroup(
                image_list=paths.image_list,
                image_type=1,
                norm_type=norm_type,
                mean_file=paths.mean_file if norm_type in (2, 5) else "null",
            ),
        ),
        net_type=0,
        data_scale=scale,
        RGB_order=order,
        batch_num=settings.cfg.batch_num,
        sparse_rate=float(settings.cfg.sparse_rate),
        compile_mode=COMPILE_MODES[precision],
        compress_mode=settings.cfg.compress_mode,
        is_simulation=settings.cfg.is_simulation,
        instruction_name=paths.instruction,
        internal_stride=settings.cfg.internal_stride,
        log_level=settings.cfg.log_level,
    )
    check_config(config)
    return config
