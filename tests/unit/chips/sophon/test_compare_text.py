"""The tool's comparisons are found whatever stands between them, and none is taken for passed."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.sophon.compare_text import Comparison, check_passed, parse_comparisons
from facekiln.errors import KilnError

# model_deploy of tpu_mlir 1.26, bm1684x int8: progress bars by \r around the comparison in the simulator.
LOG = (
    "[Running]: npz_tool.py compare a.npz top.npz --tolerance 0.7,0.2 --except - -vv\n"
    "  0%|          | 0/2 [00:00<?, ?it/s]\rcompare scores_Softmax:   0%|          | 0/2 [00:00<?, ?it/s]\r"
    "compare boxes_Concat:  50%|#####     | 1/2 [00:00<00:00, 458.90it/s]\n"
    "[scores_Softmax_f32              ]      SIMILAR [PASSED]\n"
    "    (1, 4420, 2) float32 \n"
    "    cosine_similarity      = 1.000000\n"
    "    euclidean_similarity   = 0.999718\n"
    "    sqnr_similarity        = 67.397852\n"
    "[boxes_Concat_f32                ]        EQUAL [PASSED]\n"
    "    (1, 4420, 4) float32 \n"
    "2 compared\n2 passed\n  1 equal, 0 close, 1 similar\n0 failed\n  0 not equal, 0 not similar\n"
    "min_similiarity = (0.9999999403953552, 0.9997181858749443, 67.39785194396973)\n"
    "Target    rfb320_bm1684x_int8_sym_model_outputs.npz\n"
    "Reference rfb320_bm1684x_int8_sym_tpu_outputs.npz\n"
    "npz compare PASSED.\n"
    "compare boxes_Concat: 100%|##########| 2/2 [00:00<00:00, 23.15it/s] \n"
    "[Success]: npz_tool.py compare a.npz top.npz\n"
)
CLOSE = (
    "[scores_Softmax                  ]        CLOSE [PASSED]\n    (1, 4420, 2) float32 \n"
    "    close order            = 5\n1 compared\n1 passed\n  0 equal, 1 close, 0 similar\n0 failed\n"
    "  0 not equal, 0 not similar\nmin_similiarity = (1.0, 1.0, inf)\nTarget    a.npz\nReference b.npz\n"
    "npz compare PASSED.\n"
)
FAILED = (
    "[boxes_Concat                    ]  NOT_SIMLIAR [FAILED]\n    (1, 4420, 4) float32 \n"
    "    cosine_similarity      = 0.731000\n    euclidean_similarity   = -0.250000\n"
    "    sqnr_similarity        = nan\n"
    "[conf_Softmax                    ]    NOT_MATCH [FAILED]\n    (1, 4420, 2) float32 \n"
    "2 compared\n0 passed\n  0 equal, 0 close, 0 similar\n2 failed\n  0 not equal, 1 not similar\n"
    "min_similarity = (0.731, -0.25, nan)\nTarget    a b.npz\nReference c.npz\nnpz compare FAILED.\n"
)


def test_a_real_log() -> None:
    (found,) = parse_comparisons(LOG)
    assert found.passed is True
    assert found.target == "rfb320_bm1684x_int8_sym_model_outputs.npz"
    assert found.reference == "rfb320_bm1684x_int8_sym_tpu_outputs.npz"
    assert found.counts == {"compared": 2, "passed": 2, "failed": 0}
    assert found.least == (0.9999999403953552, 0.9997181858749443, 67.39785194396973)
    scores, boxes = found.tensors
    assert (scores.name, scores.verdict, scores.shape) == ("scores_Softmax_f32", "SIMILAR", (1, 4420, 2))
    assert (scores.cosine, scores.euclidean, scores.sqnr) == (1.0, 0.999718, 67.397852)
    assert (boxes.verdict, boxes.shape, boxes.dtype, boxes.cosine) == ("EQUAL", (1, 4420, 4), "float32", None)


def test_close_has_its_order_and_an_infinite_sqnr_has_a_form_in_json() -> None:
    (found,) = parse_comparisons(CLOSE)
    assert found.tensors[0].close_order == 5
    assert found.least is not None
    assert math.isinf(found.least[2])
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["least"]["sqnr"] == "inf"


def test_a_failed_one_with_the_tools_own_spelling() -> None:
    (found,) = parse_comparisons(FAILED)
    assert found.passed is False
    assert [tensor.verdict for tensor in found.tensors] == ["NOT_SIMILAR", "NOT_MATCH"]
    assert found.target == "a b.npz"
    assert found.tensors[0].euclidean == -0.25
    json.dumps(found.as_json(), allow_nan=False)
    with pytest.raises(KilnError, match=r"2 of 2 tensors"):
        check_passed([found], "x.bmodel")


def test_several_in_one_log_keep_their_order() -> None:
    found = parse_comparisons(CLOSE + "anything\n" + LOG + "\x1b[31m" + FAILED)
    assert [one.passed for one in found] == [True, True, False]
    assert [len(one.tensors) for one in found] == [1, 2, 2]


def test_nothing_printed_is_no_pass() -> None:
    assert parse_comparisons("[Success]: tpuc-opt\n100%|###| 2/2\n") == []
    with pytest.raises(KilnError, match="nothing was proved"):
        check_passed([], "x.bmodel")


@given(cut=st.integers(0, len(LOG) - 1))
def test_one_that_is_cut_short_is_not_passed(cut: int) -> None:
    whole = cut > LOG.index("npz compare PASSED") + len("npz compare PASSED") - 1
    found = parse_comparisons(LOG[:cut])
    assert all(one.passed is (True if whole else None) for one in found)
    if not whole:
        with pytest.raises(KilnError):
            check_passed(found, "x.bmodel")


_TENSORS = st.lists(
    st.tuples(
        st.text("abcXYZ/._0129 ", min_size=1, max_size=50).map(str.strip).filter(bool),
        st.sampled_from(["EQUAL", "CLOSE", "SIMILAR", "NOT_SIMLIAR"]),
        st.lists(st.integers(1, 99999), min_size=1, max_size=5).map(tuple),
        st.floats(-1, 1),
        st.floats(-200, 200),
    ),
    min_size=1,
    max_size=6,
)


def printed(tensors: list[tuple[str, str, tuple[int, ...], float, float]]) -> str:
    """As TensorCompare.print_result of tpu_mlir 1.26 writes it."""
    lines = []
    for name, verdict, shape, cosine, sqnr in tensors:
        passed = "FAILED" if verdict.startswith("NOT") else "PASSED"
        lines += [f"[{name:<32}] {verdict:>12} [{passed:>6}]", f"    {shape} float32 "]
        if verdict == "CLOSE":
            lines.append("    close order            = 3")
        if "SIM" in verdict:
            lines += [
                f"    cosine_similarity      = {cosine:.6f}",
                f"    euclidean_similarity   = {cosine:.6f}",
                f"    sqnr_similarity        = {sqnr:.6f}",
            ]
    end = "FAILED" if any(one[1].startswith("NOT") for one in tensors) else "PASSED"
    return "\n".join([*lines, f"{len(tensors)} compared", f"npz compare {end}.", ""])


@given(tensors=_TENSORS, ending=st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_the_tool_prints_is_read_back(
    tensors: list[tuple[str, str, tuple[int, ...], float, float]], ending: str
) -> None:
    (found,) = parse_comparisons(printed(tensors).replace("\n", ending))
    assert isinstance(found, Comparison)
    assert [one.name for one in found.tensors] == [one[0] for one in tensors]
    assert [one.shape for one in found.tensors] == [one[2] for one in tensors]
    for read, (_, verdict, _, cosine, sqnr) in zip(found.tensors, tensors, strict=True):
        assert read.passed is not verdict.startswith("NOT")
        if "SIM" in verdict:
            assert read.cosine == float(f"{cosine:.6f}")
            assert read.sqnr == float(f"{sqnr:.6f}")
        else:
            assert read.cosine is None
    assert found.passed is all(one.passed for one in found.tensors)


@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error(text: str) -> None:
    for one in parse_comparisons(text):
        json.dumps(one.as_json(), allow_nan=False)
