"""How predictions are made: an `inference` entry of config.yaml, made whole by the model's declaration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from facekiln.config import Config, Decode, Model, known
from facekiln.errors import KilnError
from facekiln.vision.preprocess import FREE_POLICIES, Resize

DEFAULT = "default"
# Low, so that average precision sees the whole curve; the project's and all reference tests' value.
SCORE_THRESHOLD = 0.02


@dataclass(frozen=True)
class Inference:
    """Everything between a picture and its detections that a setting decides.

    Attributes:
        name: of the entry.
        resize: how pictures come to the input; a landmark model's faces come by its crop and `resize.size`.
        decode: thresholds; of no meaning to a landmark model.
        landmarks: the model finds points of given faces.
    """

    name: str
    resize: Resize
    decode: Decode
    landmarks: bool

    def meta(self) -> dict[str, Any]:
        """Return its part of predictions' `meta`."""
        decode = self.decode
        return {
            "inference": self.name,
            "resize": "crop" if self.landmarks else str(self.resize),
            "interpolation": "none" if self.resize.policy == "original" else self.resize.interpolation,
            "size": list(self.resize.size) if self.resize.size else None,
            "score_threshold": float(decode.score_threshold),
            "nms_iou": float(decode.nms_iou),
            "nms_epsilon": float(decode.epsilon),
            "top_k": int(decode.top_k),
            "keep": int(decode.keep),
            "extent": int(decode.extent),
        }


def inference_of(
    name: str, model: Model, config: Config, *, label: str | None, artifact: str = "the artifact"
) -> Inference:
    """Resolve an entry of config.yaml's `inference` for a model and an artifact.

    Args:
        name: of the entry.
        model: fills what the entry leaves open: resize policy, IoU of suppression, extent.
        config: has the entries.
        label: the size that the artifact is built for; None for a checkpoint, which takes any size: it gets
            the entry's `size`, else the first that the model declares.
        artifact: for messages.

    Raises:
        KilnError: unknown entry or size; sizes that vary, or another size, asked of an artifact that is built
            for one.
    """
    entry = config.inference[known(name, config.inference, "inference entry")]
    where = f"inference.{name}"
    policy = entry.get("resize", "model")
    wanted = None if entry.get("size") is None else str(entry["size"])
    landmarks = model.crop is not None
    if policy == "model":
        policy = model.input.resize
    if landmarks:  # the square is cut as the model declares; there is nothing to keep an aspect of
        policy = "stretch"
    if label is not None and policy in FREE_POLICIES:
        raise KilnError(
            f"is built for one size, and '{policy}' gives each picture a size of its own",
            file=artifact,
            where=where,
            value=f"{label} ({'x'.join(map(str, model.size(label)))})",
            limit="letterbox, stretch or model",
            hint=f"use the checkpoint, which takes any size, or another entry: {', '.join(config.inference)}",
        )
    if label is not None and wanted not in (None, label):
        raise KilnError(
            "is built for another size than asked for", file=artifact, where=where, value=label, limit=wanted
        )
    size = None if policy in FREE_POLICIES else model.size(label or wanted or next(iter(model.sizes)))
    return Inference(
        name=name,
        resize=Resize(
            policy,
            size,
            entry.get("side") if policy in FREE_POLICIES else None,
            entry.get("longest") if policy in FREE_POLICIES else None,
            entry.get("interpolation", "auto"),
        ),
        decode=_NOTHING_SUPPRESSED if landmarks else _decode(entry, model),
        landmarks=landmarks,
    )


# Landmark models answer for every face that they are given.
_NOTHING_SUPPRESSED = Decode(score_threshold=0.0, nms_iou=1.0, top_k=0, keep=0, extent=0)


def _decode(entry: dict[str, Any], model: Model) -> Decode:
    return Decode(
        score_threshold=entry.get("score_threshold", SCORE_THRESHOLD),
        nms_iou=entry.get("nms_iou", model.decode.nms_iou),
        top_k=entry.get("top_k", Decode.top_k),
        keep=entry.get("keep", Decode.keep),
        extent=entry.get("extent", model.decode.extent),
        epsilon=entry.get("epsilon", model.decode.epsilon),
    )
