"""Legalising one layer at a time: each rule changes a network in place and tells what it did.

A rule that cannot help leaves the layer as it is; `restrictions` refuses it afterwards, by name. Only Crop
is refused here, because the sizes that explain the refusal are known here.
"""

from __future__ import annotations

import numpy as np

from facekiln.caffe.dataflow import INPUT, producers
from facekiln.caffe.net import Layer, Net
from facekiln.caffe.shapes import geometry, infer_shapes, pool_cells
from facekiln.chips.nnie.legalise.limits import ACTIVATIONS, LIMITS
from facekiln.chips.nnie.legalise.restrictions import reshape_dims
from facekiln.errors import KilnError
from facekiln.provenance import Edit


def edit(rule: str, target: str, change: str, reason: str) -> Edit:
    """Return an edit that cites its limit with the source."""
    limit = LIMITS[rule]
    return Edit(rule, target, change, reason, f"{limit.text} ({limit.source})")


def largest_stride(net: Net, shapes: dict[str, list[int]]) -> int:
    """Return the power of two by which the smallest map is smaller than the input."""
    height = max(shape[2] for shape in net.inputs.values() if len(shape) == 4)
    smallest = min(shape[2] for shape in shapes.values() if len(shape) == 4 and shape[2] > 1)
    return 1 << max(0, round(float(np.log2(height / smallest))))


def _sides(shape: list[int]) -> str:
    return "x".join(map(str, shape[2:]))


def remove_crop(net: Net) -> list[Edit]:
    """Remove Crop layers that crop nothing at this input size.

    Raises:
        KilnError: one does crop; the message has both sizes and the stride that sides must be a multiple of.
    """
    edits = []
    for layer in [layer for layer in net.layers if layer.type == "Crop"]:
        shapes = infer_shapes(net)
        data, like = layer.bottoms
        (top,) = layer.tops
        if shapes[data] != shapes[top]:
            sides = _sides(next(iter(net.inputs.values())))
            raise KilnError(
                f"Crop cuts {_sides(shapes[data])} to {_sides(shapes[top])} (HxW) at input {sides}, "
                "so it cannot be removed, and the NNIE has no Crop",
                where=f"layer '{layer.name}'",
                value=sides,
                limit=f"input sides that are a multiple of {largest_stride(net, shapes)}",
                hint="choose such a size and pad pictures to it",
            )
        if top in net.outputs:
            raise KilnError("the network ends in a Crop that crops nothing", where=f"layer '{layer.name}'")
        start = net.layers.index(layer)
        _read_instead(net, start + 1, top, data)
        del net.layers[start]
        edits.append(
            edit(
                "NNIE-CROP",
                layer.name,
                f"removed; '{data}' is read instead of '{top}'",
                f"at this input size '{data}' and '{like}' are both {_sides(shapes[data])}",
            )
        )
    return edits


def _read_instead(net: Net, start: int, old: str, new: str) -> None:
    """Let layers from `start` on read `new` where they read `old`, up to the next layer that writes `old`."""
    for layer in net.layers[start:]:
        layer.bottoms = [new if bottom == old else bottom for bottom in layer.bottoms]
        if old in layer.tops:
            return


def reshape_batch(net: Net) -> list[Edit]:
    """Write 0 (copy) for N in 4-D Reshapes that leave N alone."""
    edits = []
    shapes = infer_shapes(net)
    for layer in net.layers:
        dims = reshape_dims(layer) if layer.type == "Reshape" else []
        partial = "axis" in layer.params or "num_axes" in layer.params
        result = shapes[layer.tops[0]]
        if layer.type != "Reshape" or len(result) != 4 or result[0] != shapes[layer.bottoms[0]][0]:
            continue
        if (dims[0] == 0 and not partial) or (len(dims) != 4 and not partial):
            continue
        wanted = [0, *(result[1:] if partial or dims[0] == -1 else dims[1:])]
        layer.params = {"shape": {"dim": wanted}}
        reason = "the mapper reshapes C, H and W only; N is the board's"
        edits.append(edit("NNIE-RESHAPE", layer.name, f"dims {dims} -> {wanted}", reason))
    return edits


def pooling_text(net: Net) -> list[Edit]:
    """Drop rounding fields from Pooling where rounding up is meant, or makes no difference at this size."""
    edits = []
    shapes = infer_shapes(net)
    for layer in net.layers:
        given = [key for key in ("round_mode", "ceil_mode") if key in layer.params]
        if layer.type != "Pooling" or not given:
            continue
        floors = layer.params.get("round_mode") == "FLOOR" or layer.params.get("ceil_mode") is False
        bottom = shapes[layer.bottoms[0]]
        window = geometry(layer, bottom)
        windows = zip(bottom[2:], window.kernel, window.stride, window.pad, strict=True)
        up = [pool_cells(size, k, s, p) for size, k, s, p in windows]
        if floors and up != shapes[layer.tops[0]][2:]:
            continue
        for key in given:
            del layer.params[key]
        reason = (
            "at this size rounding makes no difference" if floors else "rounding up is what the chip does"
        )
        edits.append(edit("NNIE-POOLING-CEIL", layer.name, f"removed {' and '.join(given)}", reason))
    return edits


def relu_slope(net: Net, how: str) -> list[Edit]:
    """Treat ReLU with a negative slope as `legalise.relu_negative_slope` says: accept, expand or refuse.

    Raises:
        KilnError: `refuse`, and there is one.
    """
    edits: list[Edit] = []
    leaky = [layer for layer in net.layers if layer.type == "ReLU" and layer.params.get("negative_slope", 0)]
    if how == "accept" or not leaky:
        return edits
    shapes = infer_shapes(net)
    for layer in leaky:
        slope = float(layer.params["negative_slope"])
        if how == "refuse":
            raise KilnError(
                f"ReLU with negative_slope {slope:g}",
                where=f"layer '{layer.name}'",
                limit=LIMITS["NNIE-RELU-SLOPE"].text,
                hint="set legalise.relu_negative_slope to `expand` or `accept` in config/chips/nnie.yaml",
            )
        channels = shapes[layer.bottoms[0]][1]
        layer.type, layer.params = "PReLU", {"channel_shared": False}
        layer.blobs = [np.full(channels, slope, np.float32)]
        change = f"ReLU with negative_slope {slope:g} -> PReLU with {channels} equal slopes"
        edits.append(
            edit("NNIE-RELU-SLOPE", layer.name, change, "PReLU is a listed layer, computing the same")
        )
    return edits


def upsample_to_deconvolution(net: Net) -> list[Edit]:
    """Write nearest x2 Upsample as a grouped 2x2 Deconvolution of ones, as published prototxts have it."""
    edits = []
    shapes = infer_shapes(net)
    for layer in net.layers:
        if layer.type != "Upsample" or len(layer.bottoms) != 1 or layer.params.get("scale", 2) != 2:
            continue
        channels = shapes[layer.bottoms[0]][1]
        layer.type = "Deconvolution"
        layer.params = {
            "num_output": channels,
            "group": channels,
            "kernel_size": [2],
            "stride": [2],
            "bias_term": False,
        }
        layer.blobs = [np.ones((channels, 1, 2, 2), np.float32)]
        change = f"Upsample x2 -> Deconvolution, {channels} groups, 2x2 of ones, stride 2"
        edits.append(
            edit("NNIE-UPSAMPLE", layer.name, change, "the same values, in a layer that every mapper has")
        )
    return edits


def depthwise_type(net: Net) -> list[Edit]:
    """Rename depthwise Convolutions to DepthwiseConv."""
    edits = []
    for layer in net.layers:
        group = int(layer.params.get("group", 1))
        if layer.type == "Convolution" and group > 1 and group == int(layer.params["num_output"]):
            layer.type = "DepthwiseConv"
            reason = f"the mapper would split it into {group} operations"
            edits.append(edit("NNIE-LAYER-TYPE", layer.name, "Convolution -> DepthwiseConv", reason))
    return edits


def activations_in_place(net: Net) -> tuple[dict[str, str], list[Edit]]:
    """Let an activation write over its input where nothing else reads that.

    Returns:
        old -> new name of the blobs that an activation wrote before, and one edit for each.
    """
    merged: dict[str, str] = {}
    edits = []
    for index, layer in enumerate(net.layers):
        if layer.type not in ACTIVATIONS or layer.in_place or len(layer.bottoms) != 1:
            continue
        (bottom,), (top,) = layer.bottoms, layer.tops
        before, after = net.layers[:index], net.layers[index + 1 :]
        produced = any(bottom in other.tops for other in before)
        shared = any(bottom in other.bottoms and not other.in_place for other in [*before, *after])
        rewritten = any(bottom in other.tops for other in after) or any(top in other.tops for other in before)
        if not produced or shared or rewritten:
            continue
        layer.tops = [bottom]
        _rename(after, top, bottom)
        merged[top] = bottom
        reason = "an activation that stands alone is an operation of its own, with a 32-bit blob between"
        change = f"writes over '{bottom}' instead of '{top}'"
        edits.append(edit("NNIE-ACTIVATION-ORDER", layer.name, change, reason))
    return merged, edits


def separate_overwritten(net: Net) -> list[Edit]:
    """Give a blob of its own to the value that an in-place layer writes over although others read it.

    The last value keeps the blob's name, as that is the one that outputs and comparisons mean.
    """
    edits: list[Edit] = []
    index = 0
    while index < len(net.layers):
        layer = net.layers[index]
        if layer.in_place and (writer := _shared_writer(net, index)) is not None:
            (blob,) = layer.tops
            fresh = _fresh_name(net, f"{blob}_before_{layer.name}")
            if writer == INPUT:
                _rename(net.layers[index + 1 :], blob, fresh)
                layer.tops = [fresh]
                change = f"writes '{fresh}' instead of over the input"
            else:
                _rename(net.layers[:index], blob, fresh)
                layer.bottoms = [fresh]
                change = f"reads '{fresh}', the former value of '{blob}', and no longer writes over it"
            edits.append(edit("NNIE-ORDER", layer.name, change, "another layer reads the former value too"))
        index += 1
    return edits


def _shared_writer(net: Net, index: int) -> int | None:
    """Return who wrote what layer `index` writes over, if others read that too; else None."""
    sources = producers(net)
    (writer,) = sources[index]
    (blob,) = net.layers[index].bottoms
    shared = [
        other
        for other, found in enumerate(sources)
        if other != index
        and any(s == writer and b == blob for s, b in zip(found, net.layers[other].bottoms, strict=True))
    ]
    return writer if shared or writer == INPUT else None


def _fresh_name(net: Net, name: str) -> str:
    taken = {top for layer in net.layers for top in layer.tops} | set(net.inputs)
    while name in taken:
        name += "_"
    return name


def _rename(layers: list[Layer], old: str, new: str) -> None:
    for layer in layers:
        layer.bottoms = [new if name == old else name for name in layer.bottoms]
        layer.tops = [new if name == old else name for name in layer.tops]
