"""The multi-task loss of RetinaFace: boxes, scores with hard negatives, landmarks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from facekiln.training.matching import BACKGROUND, FACE
from facekiln.training.recipe import LossWeights

Triple = tuple[Tensor, Tensor, Tensor]

# A picture without faces still teaches this many negatives.
_LEAST_NEGATIVES = 16


def hard_negatives(losses: Tensor, labels: Tensor, per_positive: int) -> Tensor:
    """Return a mask [B,N] of the background priors with the largest losses.

    Args:
        losses: [B,N] cross entropy.
        labels: [B,N] 1 face, 0 background, -1 ignored.
        per_positive: how many per face prior of the same picture.
    """
    masked = losses.detach().masked_fill(labels != BACKGROUND, -1.0)
    order = masked.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    wanted = ((labels == FACE).sum(dim=1, keepdim=True) * per_positive).clamp(min=_LEAST_NEGATIVES)
    return (rank < wanted) & (labels == BACKGROUND)


class MultiBoxLoss(torch.nn.Module):
    """Smooth L1 on boxes and landmarks of matched priors, cross entropy on them and their hard negatives.

    Each part is divided by the number of matched priors of the batch (source: SSD, arXiv:1512.02325,
    equation 1; seven negatives per positive and twice the box loss as in Pytorch_Retinaface).
    """

    def __init__(self, weights: LossWeights) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, outputs: Triple, targets: Triple) -> Tensor:
        """Return the loss, a scalar.

        Args:
            outputs: loc [B,N,4], score logits [B,N,2], landms [B,N,10].
            targets: labels int64 [B,N], loc [B,N,4], landms [B,N,10].
        """
        loc, scores, landms = outputs
        labels, true_loc, true_landms = targets
        positive = labels == FACE
        count = positive.sum().clamp(min=1)
        # The entropy of two classes by hand: log(1 + exp(wrong - right)).
        margin = scores[..., 0] - scores[..., 1]
        entropy = F.softplus(torch.where(positive, margin, -margin))
        chosen = positive | hard_negatives(entropy, labels, self.weights.negatives)
        mask = positive[..., None]
        box_loss = (F.smooth_l1_loss(loc, true_loc, reduction="none") * mask).sum()
        point_loss = (F.smooth_l1_loss(landms, true_landms, reduction="none") * mask).sum()
        score_loss = (entropy * chosen).sum()
        w = self.weights
        return (w.boxes * box_loss + w.scores * score_loss + w.landmarks * point_loss) / count
