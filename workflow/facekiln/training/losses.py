"""The loss of a detector: boxes, scores with hard negatives, landmarks where faces have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from facekiln.training.matching import BACKGROUND, FACE

# A picture without faces still teaches this many negatives.
_LEAST_NEGATIVES = 16


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of the loss; hard negatives per positive, sought in each picture or the batch."""

    boxes: float
    scores: float
    landmarks: float
    negatives: int
    mining: str = "picture"


def hard_negatives(losses: Tensor, labels: Tensor, per_positive: int) -> Tensor:
    """Return a mask [B,N] of the background priors with the largest losses of each row.

    Args:
        losses: [B,N] cross entropy.
        labels: [B,N] 1 face, 0 background, -1 ignored.
        per_positive: how many per face prior of the same row.
    """
    masked = losses.detach().masked_fill(labels != BACKGROUND, -1.0)
    wanted = ((labels == FACE).sum(dim=1, keepdim=True) * per_positive).clamp(min=_LEAST_NEGATIVES)
    most = min(int(wanted.max()), losses.shape[1])
    # A stable sort: which of equal losses are taken must not depend on the number of threads.
    hardest = masked.sort(dim=1, descending=True, stable=True).indices[:, :most]
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    within = torch.arange(most, device=labels.device)[None] < wanted
    chosen.scatter_(1, hardest, within)
    return chosen & (labels == BACKGROUND)


def _mined(losses: Tensor, labels: Tensor, weights: LossWeights) -> Tensor:
    """SSD seeks picture by picture; over the batch, pictures without a face teach where they are hard."""
    if weights.mining == "picture":
        return hard_negatives(losses, labels, weights.negatives)
    rows = hard_negatives(losses.reshape(1, -1), labels.reshape(1, -1), weights.negatives)
    return rows.view_as(labels)


def multi_box_loss(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: LossWeights
) -> dict[str, Tensor]:
    """Return the parts of the loss by name: smooth L1 on boxes and landmarks, cross entropy on scores.

    Boxes and scores are divided by the number of face priors of the batch (source: SSD, arXiv:1512.02325,
    equation 1), landmarks by those that have landmarks (Pytorch_Retinaface: multibox_loss.py).

    Args:
        outputs: boxes [B,N,4], scores [B,N,2] as logits and, where the network has them, landmarks [B,N,10].
        targets: labels [B,N], loc [B,N,4], landms [B,N,10], pointed [B,N].
        weights: of the parts, and how negatives are chosen.
    """
    scores, labels = outputs["scores"], targets["labels"]
    positive = labels == FACE
    count = positive.sum().clamp(min=1)
    # The entropy of two classes by hand: log(1 + exp(wrong - right)).
    margin = scores[..., 0] - scores[..., 1]
    entropy = F.softplus(torch.where(positive, margin, -margin))
    chosen = positive | _mined(entropy, labels, weights)
    boxes = F.smooth_l1_loss(outputs["boxes"], targets["loc"], reduction="none") * positive[..., None]
    parts = {
        "boxes": weights.boxes * boxes.sum() / count,
        "scores": weights.scores * (entropy * chosen).sum() / count,
    }
    if "landmarks" in outputs and weights.landmarks:
        pointed = targets["pointed"]
        points = F.smooth_l1_loss(outputs["landmarks"], targets["landms"], reduction="none")
        parts["landmarks"] = (
            weights.landmarks * (points * pointed[..., None]).sum() / pointed.sum().clamp(min=1)
        )
    return parts
