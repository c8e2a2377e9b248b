"""The first layer at which two stages part, on stages that are nothing but their tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from facekiln.parity.divergence import Divergence, first_divergence

PICTURE = np.zeros((2, 2, 3), np.uint8)
RAMP = np.arange(1.0, 7.0, dtype=np.float32)


class Traced:
    """A stage of known tensors; those of a child stand in capitals."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.tensors = tensors

    def trace(self, _picture: np.ndarray) -> Mapping[str, np.ndarray]:
        return self.tensors

    def name_in_parent(self, name: str) -> str | None:
        return name.lower() if name.isupper() else None


def parting(
    parent: Mapping[str, np.ndarray], child: Mapping[str, np.ndarray], **limits: float
) -> Divergence | None:
    return first_divergence(Traced(parent), Traced(child), PICTURE, limits)  # type: ignore[arg-type]


PARENT = {"a": RAMP, "b": RAMP, "c": RAMP, "d": RAMP}


def test_the_first_in_the_childs_order_is_named_with_the_one_before_it() -> None:
    found = parting(PARENT, {"A": RAMP, "C": RAMP, "B": -RAMP, "D": -RAMP}, cosine=0.99)
    assert found is not None
    assert (found.tensor, found.parent_tensor, found.compared, found.previous) == ("B", "b", 3, "C")
    assert found.figures.cosine == -1
    assert "first differ at 'B' (parent: 'b'), right after C: cosine -1.000000" in str(found)


def test_at_the_very_first_nothing_is_before_it() -> None:
    found = parting(PARENT, {"A": -RAMP}, cosine=0.99)
    assert found is not None and found.previous is None
    assert "right after" not in str(found)


def test_what_has_no_counterpart_of_its_size_is_passed_over() -> None:
    child = {"own": -RAMP, "NOWHERE": -RAMP, "A": np.ones(9, np.float32), "B": RAMP, "C": -RAMP}
    found = parting(PARENT, child, cosine=0.99)
    assert found is not None
    assert (found.tensor, found.compared, found.previous) == ("C", 2, "B")


def test_other_shapes_of_the_same_values_are_the_same() -> None:
    assert parting(PARENT, {"A": RAMP.reshape(2, 3), "B": RAMP[None]}, cosine=1.0, max_rel=0.0) is None


def test_each_limit_alone_is_enough() -> None:
    scaled = {"A": RAMP * 2}
    assert parting(PARENT, scaled, cosine=0.99) is None
    assert parting(PARENT, scaled, max_rel=1.0) is None
    assert parting(PARENT, scaled, max_rel=0.9) is not None
    assert parting(PARENT, {"A": -RAMP}, warn_cosine=0.5) is not None
    assert parting(PARENT, {"A": -RAMP}, warn_cosine=0.5, cosine=-1) is None
    assert parting(PARENT, {"A": np.full(6, np.nan, np.float32)}, cosine=0.5) is not None
