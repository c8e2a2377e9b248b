"""Each documented limit refuses what breaks it, by name, and leaves alone what does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.reader import read_prototxt
from facekiln.chips.nnie.legalise.limits import LIMITS, Finding
from facekiln.chips.nnie.legalise.restrictions import check_hp_names, check_net
from facekiln.chips.nnie.settings import load_settings

LEVELS = dict(load_settings("nowhere").restrictions)


def layer(kind: str, bottoms: str, top: str, name: str | None = None, **params: Any) -> Layer:
    return Layer(name or top, kind, bottoms.split(), [top], params)


def conv(bottom: str, top: str, outputs: int = 4, **params: Any) -> Layer:
    return layer("Convolution", bottom, top, num_output=outputs, **{"kernel_size": [1], **params})


def net(*layers: Layer, shape: tuple[int, ...] = (1, 3, 16, 16)) -> Net:
    return Net("n", {"data": list(shape)}, list(layers))


def reshape(bottom: str, top: str, *dims: int) -> Layer:
    return layer("Reshape", bottom, top, shape={"dim": list(dims)})


BROKEN = {
    "NNIE-INPUT-COUNT": Net("n", {f"d{i}": [1, 3, 8, 8] for i in range(17)}, [conv("d0", "a")]),
    "NNIE-INPUT-N": net(conv("data", "a"), shape=(2, 3, 16, 16)),
    "NNIE-INPUT-SIZE": net(conv("data", "a"), shape=(1, 3, 16, 4097)),
    "NNIE-OUTPUT-COUNT": net(*(conv("data", f"o{i}") for i in range(17))),
    "NNIE-LAYER-TYPE": net(layer("Interp", "data", "a")),
    "NNIE-CROP": net(conv("data", "a"), layer("Crop", "a data", "b")),
    "NNIE-ORDER": net(conv("data", "a"), conv("a", "b"), Layer("r", "ReLU", ["a"], ["a"]), conv("a", "c")),
    "NNIE-ACTIVATION-ORDER": net(conv("data", "a"), conv("data", "b"), Layer("r", "ReLU", ["a"], ["a"])),
    "NNIE-NAME": net(conv("data", "x" * 31 + "1"), conv("data", "x" * 31 + "2")),
    "NNIE-KERNEL": net(conv("data", "a", kernel_size=[256], pad=[128])),
    "NNIE-CHANNELS": net(conv("data", "a", 4097)),
    "NNIE-GROUP": net(conv("data", "a", 2049), conv("a", "b", 2049, group=2049)),
    "NNIE-POOLING-CEIL": net(layer("Pooling", "data", "a", kernel_size=2, stride=2, ceil_mode=False)),
    "NNIE-RESHAPE": net(reshape("data", "a", 1, 3, -1, 16)),
    "NNIE-PERMUTE": net(layer("Permute", "data", "a", order=[0, 3, 1, 2])),
    "NNIE-SOFTMAX-AXIS": net(layer("Softmax", "data", "a", axis=0)),
    "NNIE-CONCAT-AXIS": net(layer("Concat", "data data", "a", axis=0)),
    "NNIE-POWER": net(layer("Power", "data", "a", power=4.0)),
    "NNIE-UPSAMPLE": net(layer("Upsample", "data", "a", scale=4)),
    "NNIE-INNERPRODUCT-TAIL": net(
        layer("InnerProduct", "data", "a", num_output=2), layer("InnerProduct", "a", "b", num_output=2)
    ),
}
ELSEWHERE = {"NNIE-HP", "NNIE-RELU-SLOPE", "NNIE-INPUT-CHANNELS"}


def test_every_limit_has_a_case() -> None:
    assert set(BROKEN) | ELSEWHERE == set(LIMITS)


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_what_breaks_a_limit_is_found(rule: str) -> None:
    found = [finding for finding in check_net(BROKEN[rule], {}) if finding.rule == rule]
    assert found and found[0].level == "refuse" and found[0].hint
    assert LIMITS[rule].source in found[0].sentence() and found[0].layer in found[0].sentence()


@pytest.mark.parametrize("rule", sorted(LEVELS))
def test_doubtful_limits_can_be_switched(rule: str) -> None:
    def levels(level: str) -> list[str]:
        return [f.level for f in check_net(BROKEN[rule], {rule: level}) if f.rule == rule]

    assert set(levels("warn")) == {"warn"} and set(levels("refuse")) == {"refuse"} and not levels("ignore")


def only(*layers: Layer, **options: Any) -> list[Finding]:
    return check_net(net(*layers, **options), LEVELS)


def test_what_is_fine_is_left_alone() -> None:
    relu = Layer("r", "ReLU", ["a"], ["a"], {"negative_slope": 0.1})
    assert not only(conv("data", "a", kernel_size=[255], pad=[127]), relu)
    assert not only(layer("Pooling", "data", "a", global_pooling=True, pool="AVE"))
    assert not only(reshape("data", "a", 0, 3, -1, 8), layer("Permute", "a", "b", order=[0, 2, 3, 1]))
    assert not only(layer("InnerProduct", "data", "a", num_output=2), layer("Softmax", "a", "b"))
    assert not only(layer("Concat", "data data", "a", axis=-3), layer("Softmax", "a", "b", axis=-1))
    assert not only(conv("data", "a"), shape=(1, 1, 8, 4096))


def test_a_3d_reshape_says_what_to_do() -> None:
    # The tail of ULFD's exported network.
    (shape, softmax) = only(reshape("data", "a", 1, -1, 2), layer("Softmax", "a", "b", axis=2))
    assert shape.what == "3-D shape [1, -1, 2]" and "let the host put outputs together" in shape.hint
    assert softmax.what == "axis 2 of a 3-D blob"


def test_the_published_prototxt_only_warns(mirror) -> None:
    # nniefacelib's mnet.prototxt is what a published .wk was made of, so nothing in it may refuse.
    found = check_net(read_prototxt(mirror("mnet25_nnie.prototxt")), LEVELS)
    assert {f.rule for f in found} == {"NNIE-ACTIVATION-ORDER", "NNIE-NAME"}
    assert all(f.level == "warn" for f in found)
    assert len([f for f in found if f.rule == "NNIE-ACTIVATION-ORDER"]) == 7


def test_reading_before_writing_is_found_before_shapes_are_inferred() -> None:
    (finding,) = only(conv("a", "b"), conv("data", "a"))
    assert finding.rule == "NNIE-ORDER" and "before it is written" in finding.what


def test_pictures_have_one_or_three_channels_and_feature_maps_any() -> None:
    four = net(conv("data", "a"), shape=(1, 4, 16, 16))
    assert not check_net(four, LEVELS) and not check_net(four, LEVELS, images=())
    (finding,) = check_net(four, LEVELS, images={"data"})
    assert finding.rule == "NNIE-INPUT-CHANNELS" and "image_type 0" in finding.hint


def test_hp_names_need_the_user_specified_mode() -> None:
    network = net(conv("data", "a"), conv("a", "b_hp"))
    assert (
        [f.layer for f in check_hp_names(network, 0)]
        == ["b_hp"]
        == [f.layer for f in check_hp_names(network, 1)]
    )
    assert not check_hp_names(network, 2)


def test_weights_are_not_looked_at() -> None:
    bare = conv("data", "a")
    bare.blobs = [np.zeros((1,), np.float32)]
    assert not only(bare)
