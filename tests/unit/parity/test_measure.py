"""The one comparison: cosine, error relative to scale, SQNR."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facekiln.parity.measure import measure, worst


def test_equal_arrays_are_equal() -> None:
    x = np.linspace(-3, 3, 50, dtype=np.float32)
    m = measure(x, x)
    assert (m.cosine, m.max_abs, m.max_rel) == (pytest.approx(1.0), 0.0, 0.0)


def test_error_is_relative_to_the_parents_scale() -> None:
    m = measure(np.array([0.0, 10.0]), np.array([0.1, 10.0]))
    assert m.max_abs == pytest.approx(0.1)
    assert m.max_rel == pytest.approx(0.01)
    assert m.sqnr_db == pytest.approx(40.0)


def test_an_output_of_zeros_never_passes_for_the_parent() -> None:
    m = measure(np.ones(4), np.zeros(4))
    assert m.cosine == 0.0
    assert measure(np.zeros(4), np.zeros(4)).cosine == 1.0


def test_an_error_on_an_output_of_zeros_is_beyond_any_limit() -> None:
    m = measure(np.zeros(4), np.full(4, 1e-9))
    assert m.cosine == 0.0 and m.max_rel > 1e9 and m.sqnr_db == -200
    assert measure(np.zeros(4), np.zeros(4)).max_rel == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_fails_every_gate(bad: float) -> None:
    m = measure(np.ones(3), np.array([1.0, bad, 1.0]))
    assert m.cosine == 0.0
    assert m.max_rel > 1e9


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        measure(np.ones(3), np.ones(4))


def test_worst_takes_each_figure_at_its_worst() -> None:
    a = measure(np.array([1.0, 0.0]), np.array([1.0, 0.1]))
    b = measure(np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    assert worst([a, b]) == worst([b, a]) == a


@given(arrays(np.float32, 8, elements=st.floats(-1e3, 1e3, width=32)), st.floats(0.1, 10))
def test_cosine_ignores_scale_but_max_rel_does_not(x: np.ndarray, factor: float) -> None:
    if np.linalg.norm(x) < 1e-3:
        return
    m = measure(x, x.astype(np.float64) * factor)
    assert m.cosine == pytest.approx(1.0)
    assert m.max_rel == pytest.approx(abs(factor - 1), rel=1e-3, abs=1e-6)
