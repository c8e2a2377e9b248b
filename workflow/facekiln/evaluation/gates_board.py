"""The board's way from an NNIE network's maps to faces, beside the host's.

A board program reads int32 maps in units of 1/4096, compares scores as integers, and suppresses boxes by an
overlap whose common part has one pixel added to its sides and whose areas have not (hanson-young/nniefacelib,
its detector's post-processing; the scale is HiSilicon's SVP_NNIE sample). The host decodes the emulator's
floating-point maps. This gate tells what those differences cost in faces; it says nothing about a chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.config import Config, Decode, Model
from facekiln.data.pictures import procedural_pictures
from facekiln.errors import KilnError
from facekiln.evaluation.gates import Verdict, skipped
from facekiln.evaluation.gates_run import judge_pairs
from facekiln.parity.agreement import SCORE_MARGIN
from facekiln.vision.decode import decode_boxes
from facekiln.vision.detect import Faces, faces_from_outputs
from facekiln.vision.heads import Arrays, HeadMap, assemble
from facekiln.vision.priors import make_priors

UNIT = 4096
_LOWEST, _HIGHEST = -(2**31), 2**31 - 1


def to_board(blobs: Arrays) -> dict[str, NDArray[np.int32]]:
    """Return maps as a board's memory holds them: int32 in units of 1/4096."""
    return {
        name: np.clip(np.rint(np.asarray(value, np.float64) * UNIT), _LOWEST, _HIGHEST).astype(np.int32)
        for name, value in blobs.items()
    }


def board_faces(
    maps: dict[str, NDArray[np.int32]],
    heads: Sequence[HeadMap],
    model: Model,
    size: tuple[int, int],
    decode: Decode,
) -> Faces:
    """Turn int32 maps into faces as the board program does.

    Args:
        maps: by blob, [1, channels, H, W] in units of 1/4096.
        heads: how the maps form the model's outputs.
        model: a detector.
        size: (height, width) of the network's input, pixels.
        decode: thresholds.

    Returns:
        Faces in pixels of the input, without landmarks.
    """
    if model.priors is None:
        raise KilnError("the model has no priors, so it finds no faces", where=model.name)
    outputs = assemble(maps, heads)
    by_values = {value.shape[2]: value[0] for value in outputs.values() if value.ndim == 3}
    scores, offsets = by_values[2][:, 1], by_values[4]
    candidates = np.flatnonzero(scores > int(decode.score_threshold * UNIT))
    chosen = candidates[np.argsort(-scores[candidates], kind="stable")[: decode.top_k]]
    priors = make_priors(model.priors, size)[chosen]
    values = offsets[chosen].astype(np.float32) / np.float32(UNIT)
    boxes = decode_boxes(values, priors, model.priors.variances) * np.array(
        [size[1], size[0], size[1], size[0]], np.float32
    )
    kept = _suppress(boxes, decode.nms_iou)[: decode.keep]
    found = scores[chosen][kept].astype(np.float32) / np.float32(UNIT)
    return Faces(boxes[kept].astype(np.float32), found, np.zeros((len(kept), 0, 2), np.float32))


def _suppress(boxes: NDArray[np.floating], iou: float) -> list[int]:
    """Keep the best of each cluster; `boxes` come best first."""
    kept: list[int] = []
    free = np.ones(len(boxes), bool)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides.prod(axis=1)
    for index in range(len(boxes)):
        if not free[index]:
            continue
        kept.append(index)
        low = np.maximum(boxes[index, :2], boxes[:, :2])
        high = np.minimum(boxes[index, 2:], boxes[:, 2:])
        common = np.clip(high - low + 1, 0, None).prod(axis=1)
        union = areas[index] + areas - common
        overlap = np.divide(common, union, out=np.ones_like(common), where=union > 0)
        free[index + 1 :] &= ~(overlap > iou)[index + 1 :]
    return kept


def gate_board_decode(path: Path, model: Model, label: str, config: Config, *, subject: str) -> Verdict:
    """Run an emulated `.wk` on drawn pictures and decode its maps both ways.

    Raises:
        KilnError: the file is damaged or is not emulated.
    """
    if path.suffix != ".wk" or model.priors is None:
        return skipped("board_decode", subject, "only a detector's .wk has maps that a board decodes")
    from facekiln.chips.nnie.runtime import WkRuntime

    runtime, size = WkRuntime(path), model.size(label)
    # As everywhere, a face at the threshold is lost only if it is below it by more than a margin.
    lower = replace(model.decode, score_threshold=max(0.0, model.decode.score_threshold - SCORE_MARGIN))
    pairs = []
    for _, picture in procedural_pictures(config.parity["count"], config.parity["seed"], size):
        maps = runtime.run(picture)
        host = faces_from_outputs(assemble(maps, runtime.heads), model, size, lower)
        pairs.append((host, board_faces(to_board(maps), runtime.heads, model, size, lower)))
    return judge_pairs(
        pairs,
        config.gates["pipelines"],
        model.decode.score_threshold,
        gate="board_decode",
        subject=subject,
        emulated=True,
    )
