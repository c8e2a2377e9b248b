"""facekiln.vision.heads: maps to canonical outputs and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.errors import KilnError
from facekiln.vision.heads import HeadMap, assemble, heads_from_json, heads_to_json, split

LOC = HeadMap("loc_s8", "loc", 0, 8, (2, 3), 2, 4, "anchor_major")
CONF = HeadMap("conf_s8", "conf", 0, 8, (2, 3), 2, 2, "value_major")


def test_each_value_stands_where_the_order_says() -> None:
    maps = {head.blob: np.zeros(head.shape, np.float32) for head in (LOC, CONF)}
    # Cell (row 1, column 2), anchor 1, value 3 of loc; the same cell and anchor, value 1 of conf.
    maps["loc_s8"][0, 1 * 4 + 3, 1, 2] = 7
    maps["conf_s8"][0, 1 * 2 + 1, 1, 2] = 9
    outputs = assemble(maps, [LOC, CONF])
    prior = (1 * 3 + 2) * 2 + 1
    assert outputs["loc"].shape == (1, 12, 4) and outputs["conf"].shape == (1, 12, 2)
    assert np.argwhere(outputs["loc"]).tolist() == [[0, prior, 3]]
    assert np.argwhere(outputs["conf"]).tolist() == [[0, prior, 1]]


def test_value_major_puts_the_face_scores_after_the_background_scores() -> None:
    # Layout of the public mnet.25: channels 0, 1 = background of anchor 0, 1; channels 2, 3 = face of each.
    head = HeadMap("cls", "conf", 0, 32, (1, 1), 2, 2, "value_major")
    blob = np.array([10, 11, 20, 21], np.float32).reshape(1, 4, 1, 1)
    assert assemble({"cls": blob}, [head])["conf"].tolist() == [[[10, 20], [11, 21]]]


def test_matches_the_tail_that_torch_networks_have() -> None:
    blob = np.random.default_rng(0).normal(size=(1, 8, 2, 3)).astype(np.float32)
    assert (assemble({"loc_s8": blob}, [LOC])["loc"] == blob.transpose(0, 2, 3, 1).reshape(1, -1, 4)).all()


def test_levels_come_in_order_whatever_the_list_says() -> None:
    coarse = HeadMap("loc_s16", "loc", 1, 16, (1, 1), 2, 4, "anchor_major")
    maps = {"loc_s8": np.zeros(LOC.shape), "loc_s16": np.ones(coarse.shape)}
    assert assemble(maps, [coarse, LOC])["loc"][0, :, 0].tolist() == [0.0] * 12 + [1.0] * 2


@pytest.mark.parametrize("shape", [(1, 196), (1, 196, 1, 1)])
def test_a_plain_vector_is_passed_on(shape: tuple[int, ...]) -> None:
    head = HeadMap("output", "landmarks", 0, 0, (1, 1), 1, 196, "plain")
    blob = np.arange(196, dtype=np.float32).reshape(shape)
    assert assemble({"output": blob}, [head])["landmarks"].tolist() == [blob.ravel().tolist()]


def test_a_plain_map_keeps_its_shape() -> None:
    head = HeadMap("heat", "heatmap", 0, 0, (4, 5), 1, 3, "plain")
    assert assemble({"heat": np.zeros((1, 3, 4, 5))}, [head])["heatmap"].shape == (1, 3, 4, 5)


@st.composite
def _heads(draw: st.DrawFn) -> list[HeadMap]:
    heads = []
    for output in range(draw(st.integers(1, 3))):
        values = draw(st.integers(1, 5))
        if draw(st.booleans()):
            cells = draw(st.sampled_from([(1, 1), (2, 3)]))
            heads.append(HeadMap(f"o{output}", f"out{output}", 0, 0, cells, 1, values, "plain"))
            continue
        order = draw(st.sampled_from(["anchor_major", "value_major"]))
        for level in range(draw(st.integers(1, 3))):
            cells = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
            anchors = draw(st.integers(1, 3))
            name = f"o{output}_l{level}"
            heads.append(HeadMap(name, f"out{output}", level, 8 << level, cells, anchors, values, order))
    return draw(st.permutations(heads))


@given(_heads(), st.integers(1, 2))
def test_split_and_assemble_are_inverse(heads: list[HeadMap], batch: int) -> None:
    rng = np.random.default_rng(1)
    blobs = {head.blob: rng.normal(size=(batch, *head.shape[1:])) for head in heads}
    outputs = assemble(blobs, heads)
    again = split(outputs, heads)
    assert set(again) == set(blobs)
    for name, blob in blobs.items():
        assert np.array_equal(again[name], blob)
    for name, value in assemble(again, heads).items():
        assert np.array_equal(value, outputs[name])


@given(_heads())
def test_json_round_trip(heads: list[HeadMap]) -> None:
    assert heads_from_json(json.loads(json.dumps(heads_to_json(heads)))) == heads


def test_a_missing_blob_is_named() -> None:
    with pytest.raises(KilnError, match="no blob 'conf_s8'"):
        assemble({"loc_s8": np.zeros(LOC.shape)}, [LOC, CONF])


def test_a_blob_of_another_size_is_named() -> None:
    with pytest.raises(KilnError, match=r"head 'loc_s8'.*\[1, 8, 3, 3\].*\[1, 8, 2, 3\]"):
        assemble({"loc_s8": np.zeros((1, 8, 3, 3))}, [LOC])


def test_split_refuses_another_number_of_priors_and_a_missing_output() -> None:
    with pytest.raises(KilnError, match="output 'loc'"):
        split({"loc": np.zeros((1, 11, 4))}, [LOC])
    with pytest.raises(KilnError, match="no output 'conf'"):
        split({"loc": np.zeros((1, 12, 4))}, [CONF])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": "anchor"}, "unknown order"),
        ({"cells": (0, 3)}, "below one"),
        ({"order": "plain"}, "no anchors"),
    ],
)
def test_a_head_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    fields = {**LOC.__dict__, **changes}
    with pytest.raises(KilnError, match=message):
        HeadMap(**fields)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (HeadMap("other", "loc", 0, 16, (1, 1), 2, 4, "anchor_major"), "same level"),
        (HeadMap("other", "loc", 1, 16, (1, 1), 2, 3, "anchor_major"), "different numbers"),
        (HeadMap("other", "loc", 1, 0, (1, 1), 1, 4, "plain"), "one blob"),
    ],
)
def test_maps_that_do_not_go_together_are_refused(second: HeadMap, message: str) -> None:
    with pytest.raises(KilnError, match=f"output 'loc'.*{message}"):
        heads_from_json(heads_to_json([LOC, second]))


CELLS = {"heads": [{**heads_to_json([LOC])["heads"][0], "cells": 4}]}


@pytest.mark.parametrize(
    "value", [None, {}, {"heads": []}, {"heads": [{"blob": "x"}]}, {"heads": ["x"]}, CELLS]
)
def test_a_foreign_file_is_refused(value: object) -> None:
    with pytest.raises(KilnError):
        heads_from_json(value)


def test_sizes_must_be_whole_numbers() -> None:
    value = heads_to_json([LOC])
    value["heads"][0]["anchors"] = True
    with pytest.raises(KilnError, match=r"heads\[0\].*whole number"):
        heads_from_json(value)
