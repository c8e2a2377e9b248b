"""The loss: its parts by hand, and which negatives it takes."""

from __future__ import annotations

import math

import pytest
import torch

from facekiln.training.losses import MultiBoxLoss, hard_negatives
from facekiln.training.recipe import LossWeights

WEIGHTS = LossWeights(boxes=2, scores=1, landmarks=0.5, negatives=7)


def case(labels: list[list[int]]) -> tuple[torch.Tensor, ...]:
    tensor = torch.tensor(labels)
    b, n = tensor.shape
    return tensor, torch.zeros(b, n, 4), torch.zeros(b, n, 10)


def outputs(b: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.zeros(b, n, 4), torch.zeros(b, n, 2), torch.zeros(b, n, 10)


def test_the_parts_add_up_over_the_matched_priors() -> None:
    """Two faces: a box 0.5 and 2 off in one value (smooth L1 0.125 and 1.5), a landmark 1 off (0.5)."""
    labels, loc, landms = case([[1, 1, 0]])
    predicted, scores, points = outputs(1, 3)
    predicted[0, 0, 0], predicted[0, 1, 3], points[0, 1, 7] = 0.5, 2.0, 1.0
    predicted[0, 2, 0] = 99.0  # background: its box does not count
    value = MultiBoxLoss(WEIGHTS)((predicted, scores, points), (labels, loc, landms))
    entropy = 3 * math.log(2)
    assert value.item() == pytest.approx((2 * (0.125 + 1.5) + entropy + 0.5 * 0.5) / 2)


def test_the_entropy_is_that_of_a_softmax() -> None:
    torch.manual_seed(0)
    labels, loc, landms = case([[1, 0, 1, 0]])
    scores = torch.randn(1, 4, 2) * 3
    weights = LossWeights(boxes=0, scores=1, landmarks=0, negatives=7)
    value = MultiBoxLoss(weights)((loc, scores, landms), (labels, loc, landms))
    expected = torch.nn.functional.cross_entropy(scores[0], labels[0], reduction="sum") / 2
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_ignored_priors_do_not_count() -> None:
    labels, loc, landms = case([[1, 0, -1]])
    predicted, scores, points = outputs(1, 3)
    scores[0, 2] = torch.tensor([-50.0, 50.0])
    predicted[0, 2] = 9.0
    assert MultiBoxLoss(WEIGHTS)((predicted, scores, points), (labels, loc, landms)).item() == pytest.approx(
        2 * math.log(2)
    )


def test_the_hardest_negatives_are_taken_seven_per_face() -> None:
    losses = torch.arange(60.0).repeat(2, 1)
    labels = torch.zeros(2, 60, dtype=torch.long)
    labels[0, :4] = 1
    labels[0, 59] = -1
    chosen = hard_negatives(losses, labels, 7)
    assert chosen[0].nonzero().flatten().tolist() == list(range(31, 59))
    assert chosen[1].sum() == 16  # a picture without faces teaches too
    assert chosen[1, -16:].all()


def test_no_more_negatives_than_there_are() -> None:
    labels = torch.tensor([[1, 1, 1, 0, 0]])
    assert hard_negatives(torch.rand(1, 5), labels, 7).tolist() == [[False, False, False, True, True]]


def test_equal_losses_are_taken_in_order() -> None:
    labels = torch.zeros(1, 40, dtype=torch.long)
    assert hard_negatives(torch.ones(1, 40), labels, 7)[0].nonzero().flatten().tolist() == list(range(16))


def test_a_batch_without_faces_has_a_finite_loss_and_gradient() -> None:
    labels, loc, landms = case([[0] * 20])
    scores = torch.zeros(1, 20, 2, requires_grad=True)
    value = MultiBoxLoss(WEIGHTS)((loc, scores, landms), (labels, loc, landms))
    value.backward()
    assert torch.isfinite(value) and scores.grad is not None and torch.isfinite(scores.grad).all()


def test_descending_it_teaches_faces() -> None:
    labels, loc, landms = case([[1, 0, 0, 0]])
    scores = torch.zeros(1, 4, 2, requires_grad=True)
    loss_of = MultiBoxLoss(WEIGHTS)
    for _ in range(20):
        loss = loss_of((loc, scores, landms), (labels, loc, landms))
        (gradient,) = torch.autograd.grad(loss, scores)
        scores = (scores - gradient).detach().requires_grad_()
    assert (scores.argmax(-1) == labels).all()
