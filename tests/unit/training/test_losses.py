"""The loss: its parts by hand, and which negatives it takes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from facekiln.training.losses import LossWeights, hard_negatives, multi_box_loss

WEIGHTS = LossWeights(boxes=2, scores=1, landmarks=0.5, negatives=7)


def case(labels: list[list[int]], pointed: bool = True) -> dict[str, Tensor]:
    tensor = torch.tensor(labels, dtype=torch.int8)
    b, n = tensor.shape
    return {
        "labels": tensor,
        "loc": torch.zeros(b, n, 4),
        "landms": torch.zeros(b, n, 10),
        "pointed": (tensor == 1) & pointed,
    }


def outputs(b: int, n: int) -> dict[str, Tensor]:
    return {
        "boxes": torch.zeros(b, n, 4),
        "scores": torch.zeros(b, n, 2),
        "landmarks": torch.zeros(b, n, 10),
    }


def total(predicted: dict[str, Tensor], targets: dict[str, Tensor], weights: LossWeights = WEIGHTS) -> Tensor:
    return torch.stack(list(multi_box_loss(predicted, targets, weights).values())).sum()


def test_the_parts_are_divided_by_the_matched_priors() -> None:
    """Two faces: a box 0.5 and 2 off in one value (smooth L1 0.125 and 1.5), a landmark 1 off (0.5)."""
    predicted = outputs(1, 3)
    predicted["boxes"][0, 0, 0], predicted["boxes"][0, 1, 3] = 0.5, 2.0
    predicted["landmarks"][0, 1, 7] = 1.0
    predicted["boxes"][0, 2, 0] = 99.0  # background: its box does not count
    parts = multi_box_loss(predicted, case([[1, 1, 0]]), WEIGHTS)
    assert parts["boxes"].item() == pytest.approx(2 * (0.125 + 1.5) / 2)
    assert parts["scores"].item() == pytest.approx(3 * math.log(2) / 2)
    assert parts["landmarks"].item() == pytest.approx(0.5 * 0.5 / 2)


def test_landmarks_count_only_where_a_face_has_them() -> None:
    predicted = outputs(1, 2)
    predicted["landmarks"][0, :, 0] = 1.0
    targets = case([[1, 1]])
    targets["pointed"][0, 1] = False
    assert multi_box_loss(predicted, targets, WEIGHTS)["landmarks"].item() == pytest.approx(0.5 * 0.5)
    nobody = multi_box_loss(predicted, case([[1, 1]], pointed=False), WEIGHTS)
    assert nobody["landmarks"].item() == 0


def test_a_detector_without_landmarks_has_no_such_part() -> None:
    predicted = outputs(1, 3)
    del predicted["landmarks"]
    assert set(multi_box_loss(predicted, case([[1, 0, 0]]), WEIGHTS)) == {"boxes", "scores"}


def test_the_entropy_is_that_of_a_softmax() -> None:
    torch.manual_seed(0)
    targets = case([[1, 0, 1, 0]])
    predicted = outputs(1, 4) | {"scores": torch.randn(1, 4, 2) * 3}
    value = total(predicted, targets, LossWeights(boxes=0, scores=1, landmarks=0, negatives=7))
    labels = targets["labels"][0].long()
    expected = torch.nn.functional.cross_entropy(predicted["scores"][0], labels, reduction="sum") / 2
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_ignored_priors_do_not_count() -> None:
    predicted = outputs(1, 3)
    predicted["scores"][0, 2] = torch.tensor([-50.0, 50.0])
    predicted["boxes"][0, 2] = 9.0
    assert total(predicted, case([[1, 0, -1]])).item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("per_positive", [3, 7])
def test_the_hardest_negatives_are_taken_so_many_per_face(per_positive: int) -> None:
    """Seven in Pytorch_Retinaface, three in the Ultra-Light detector."""
    losses = torch.arange(60.0).repeat(2, 1)
    labels = torch.zeros(2, 60, dtype=torch.int8)
    labels[0, :6] = 1
    labels[0, 59] = -1
    chosen = hard_negatives(losses, labels, per_positive)
    assert chosen[0].nonzero().flatten().tolist() == list(range(59 - 6 * per_positive, 59))
    assert chosen[1].sum() == 16  # a picture without faces teaches too
    assert chosen[1, -16:].all()


def test_over_the_batch_the_hardest_are_sought_in_all_pictures() -> None:
    predicted = outputs(2, 60)
    predicted["scores"][1, :, 1] = 5.0  # the second picture has no face and is sure that it has
    targets = case([[1] * 4 + [0] * 56, [0] * 60])
    weights = LossWeights(0, 1, 0, 7, mining="batch")
    hard, easy = math.log1p(math.exp(5.0)), math.log(2)
    assert total(predicted, targets, weights).item() == pytest.approx((4 * easy + 28 * hard) / 4, rel=1e-5)
    by_picture = total(predicted, targets, dataclasses.replace(weights, mining="picture")).item()
    assert by_picture == pytest.approx((4 * easy + 28 * easy + 16 * hard) / 4, rel=1e-5)


def test_no_more_negatives_than_there_are() -> None:
    labels = torch.tensor([[1, 1, 1, 0, 0]])
    assert hard_negatives(torch.rand(1, 5), labels, 7).tolist() == [[False, False, False, True, True]]


def test_equal_losses_are_taken_in_order() -> None:
    labels = torch.zeros(1, 40, dtype=torch.long)
    assert hard_negatives(torch.ones(1, 40), labels, 7)[0].nonzero().flatten().tolist() == list(range(16))


@pytest.mark.parametrize("mining", ["picture", "batch"])
def test_a_batch_without_faces_has_a_finite_loss_and_gradient(mining: str) -> None:
    predicted = outputs(1, 20)
    predicted["scores"].requires_grad_()
    value = total(predicted, case([[0] * 20]), dataclasses.replace(WEIGHTS, mining=mining))
    value.backward()
    gradient = predicted["scores"].grad
    assert torch.isfinite(value) and gradient is not None and torch.isfinite(gradient).all()


def test_descending_it_teaches_faces() -> None:
    targets, predicted = case([[1, 0, 0, 0]]), outputs(1, 4)
    for _ in range(20):
        predicted["scores"].requires_grad_()
        (gradient,) = torch.autograd.grad(total(predicted, targets), predicted["scores"])
        predicted["scores"] = (predicted["scores"] - gradient).detach()
    assert (predicted["scores"].argmax(-1) == targets["labels"]).all()
