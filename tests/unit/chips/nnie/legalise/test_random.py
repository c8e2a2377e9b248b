"""Random networks stay the same function through the legaliser, whatever they write over or share."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from facekiln.caffe.net import Layer, Net
from facekiln.chips.nnie.engine.engine import Engine
from facekiln.chips.nnie.legalise.legalise import legalise
from facekiln.chips.nnie.legalise.limits import ACTIVATIONS
from facekiln.chips.nnie.legalise.restrictions import check_net
from facekiln.chips.nnie.settings import load_settings

SETTINGS = load_settings("nowhere")
CHANNELS = 3


def _layer(kind: str, name: str, bottoms: list[str], top: str, rng: np.random.Generator) -> Layer:
    def some(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    if kind == "conv":
        weights = [some(CHANNELS, CHANNELS, 1, 1), some(CHANNELS)]
        return Layer(
            name, "Convolution", bottoms[:1], [top], {"num_output": CHANNELS, "kernel_size": [1]}, weights
        )
    if kind == "bn":
        statistics = [some(CHANNELS), np.abs(some(CHANNELS)) + 0.5, np.ones(1, np.float32)]
        return Layer(name, "BatchNorm", bottoms[:1], [top], {"use_global_stats": True}, statistics)
    if kind == "scale":
        return Layer(name, "Scale", bottoms[:1], [top], {"bias_term": True}, [some(CHANNELS), some(CHANNELS)])
    if kind == "sum":
        return Layer(name, "Eltwise", bottoms, [top])
    if kind == "concat":
        return Layer(name, "Concat", bottoms, [top], {"axis": 2})
    return Layer(name, kind, bottoms[:1], [top])


@st.composite
def networks(draw: st.DrawFn) -> Net:
    """Draw small networks whose layers may write over their input, even if others read it."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    net = Net("random", {"data": [1, CHANNELS, 8, 8]}, [])
    shapes = {"data": 8}
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["conv", "bn", "scale", "sum", "concat", "ReLU", "ReLU", "Sigmoid"]))
        first = draw(st.sampled_from(sorted(shapes)))
        same = [name for name in sorted(shapes) if shapes[name] == shapes[first]]
        second = draw(st.sampled_from(same))
        in_place = kind not in ("conv", "sum", "concat") and first != "data" and draw(st.booleans())
        long = draw(st.booleans())
        top = first if in_place else f"blob/{'x' * 30 if long else ''}{number}"
        net.layers.append(_layer(kind, f"layer{number}", [first, second], top, rng))
        shapes[top] = shapes[first] * (2 if kind == "concat" else 1)
    return net


def _run(net: Net, value: Any) -> dict[str, Any]:
    (name,) = net.inputs
    return Engine(net, bits=32, threads=1).run({name: value})


@settings(max_examples=150, deadline=None)
@given(networks())
def test_the_function_stays_the_same(net: Net) -> None:
    value = np.random.default_rng(1).normal(size=(1, CHANNELS, 8, 8)).astype(np.float32)
    expected = _run(net, value)
    if not expected:
        return
    result = legalise(net, SETTINGS)
    assert not check_net(result.net, {})
    got = _run(result.net, value)
    originals = {result.original_names.get(name, name): array for name, array in got.items()}
    assert list(originals) == net.outputs
    for name in net.outputs:
        scale = float(np.abs(expected[name]).max()) + 1e-3
        assert float(np.abs(originals[name] - expected[name]).max()) <= 1e-4 * scale, name
    names = [name for layer in result.net.layers for name in (layer.name, *layer.tops)]
    assert all(len(name) <= 31 and "/" not in name for name in names)
    # Nothing writes over what another layer reads, and activations stand behind what they write over.
    for before, layer in zip(result.net.layers, result.net.layers[1:], strict=False):
        if layer.in_place and layer.type in ACTIVATIONS:
            assert layer.bottoms[0] in before.tops
