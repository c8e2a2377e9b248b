"""Where a network breaks the NNIE's limits: one small check per limit of `limits`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.shapes import infer_shapes
from facekiln.chips.nnie.legalise.limits import ACTIVATIONS, NO_LAYER_HINTS, SUPPORTED, Finding
from facekiln.chips.nnie.wk.container import short_name

Shapes = Mapping[str, list[int]]

_EXPONENTS = (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0)
_MAX_NODES, _MAX_CHANNELS, _MAX_GROUP = 16, 4096, 2048
_SIDE = range(8, 4097)


def _first(value: object, default: int) -> int:
    if isinstance(value, list):
        return int(value[0]) if value else default
    return default if value is None else int(str(value))


def check_layer_types(net: Net) -> Iterator[Finding]:
    """Yield layers of types that the chip has not; shapes cannot be inferred before these are gone."""
    for layer in net.layers:
        if layer.type == "Crop":
            yield Finding(
                "NNIE-CROP", layer.name, "Crop is not an NNIE layer", "run `facekiln nnie legalise`"
            )
        elif layer.type not in SUPPORTED:
            hint = NO_LAYER_HINTS.get(
                layer.type, "replace it, or cut the network before it and go on on the host"
            )
            yield Finding("NNIE-LAYER-TYPE", layer.name, f"{layer.type} is not an NNIE layer", hint)


def _check_inputs(net: Net, images: Collection[str]) -> Iterator[Finding]:
    if not 1 <= len(net.inputs) <= _MAX_NODES:
        yield Finding("NNIE-INPUT-COUNT", net.name, f"{len(net.inputs)} inputs", "split the network")
    for name, shape in net.inputs.items():
        if shape[0] != 1:
            hint = "write 1 into the prototxt; the .cfg's batch_num is another thing"
            yield Finding("NNIE-INPUT-N", name, f"N is {shape[0]}", hint)
        if name not in images:
            continue
        if len(shape) != 4 or shape[1] not in (1, 3):
            hint = "use image_type 0 for feature maps"
            yield Finding("NNIE-INPUT-CHANNELS", name, f"shape {shape} of a picture", hint)
        elif shape[2] not in _SIDE or shape[3] not in _SIDE:
            what = f"{shape[2]}x{shape[3]} (HxW)"
            yield Finding("NNIE-INPUT-SIZE", name, what, "choose another input size")


def _pictures(net: Net) -> set[str]:
    """Return the inputs that can only be pictures, where no .cfg says which are."""
    return {name for name, shape in net.inputs.items() if len(shape) == 4 and shape[1] in (1, 3)}


def _check_outputs(net: Net, _: Shapes) -> Iterator[Finding]:
    if len(net.outputs) > _MAX_NODES:
        yield Finding(
            "NNIE-OUTPUT-COUNT", net.name, f"{len(net.outputs)} outputs", "concatenate some, or split"
        )


def _check_order(net: Net, _: Shapes) -> Iterator[Finding]:
    written, read = set(net.inputs), set()
    for layer in net.layers:
        for bottom in layer.bottoms:
            if bottom not in written:
                hint = "run `facekiln nnie legalise`, which sorts layers"
                yield Finding("NNIE-ORDER", layer.name, f"reads '{bottom}' before it is written", hint)
        if layer.in_place and layer.tops[0] in read:
            hint = "give this layer a top of its own"
            yield Finding(
                "NNIE-ORDER", layer.name, f"writes over '{layer.tops[0]}', which was read before", hint
            )
        if not layer.in_place:
            read.update(layer.bottoms)
        written.update(layer.tops)


def _check_activation_order(net: Net, _: Shapes) -> Iterator[Finding]:
    for before, layer in zip(net.layers, net.layers[1:], strict=False):
        if layer.in_place and layer.type in ACTIVATIONS and layer.bottoms[0] not in before.tops:
            hint = "run `facekiln nnie legalise`, which puts it there"
            yield Finding(
                "NNIE-ACTIVATION-ORDER", layer.name, f"stands behind '{before.name}', not its producer", hint
            )


def _check_names(net: Net, _: Shapes) -> Iterator[Finding]:
    blobs = dict.fromkeys([*net.inputs, *(top for layer in net.layers for top in layer.tops)])
    layers = [layer.name for layer in net.layers]
    for kind, names in (("layer", layers), ("blob", [name for name in blobs if name not in layers])):
        taken: dict[str, str] = {}
        for name in names:
            cut = short_name(name)
            if cut in taken:
                what = f"{kind} name '{name}' cannot be told from '{taken[cut]}': both become '{cut}'"
                yield Finding("NNIE-NAME", name, what, "run `facekiln nnie legalise`, which renames")
            taken.setdefault(cut, name)


_NUMBERS = {
    "kernel": ("kernel_size", "kernel_h", "kernel_w"),
    "stride": ("stride", "stride_h", "stride_w"),
    "dilation": ("dilation",),
    "pad": ("pad", "pad_h", "pad_w"),
}


def _check_kernels(net: Net, _: Shapes) -> Iterator[Finding]:
    for layer in net.layers:
        for what, keys in _NUMBERS.items():
            for key in keys:
                given = layer.params.get(key)
                for number in given if isinstance(given, list) else [given] if given is not None else []:
                    # BVLC Caffe writes 0 for "not given" in the _h and _w fields and in global pooling's
                    # kernel.
                    low = 0 if what == "pad" or layer.type == "Pooling" else 1
                    if not low <= int(number) <= 255:
                        hint = "split the layer into smaller ones"
                        yield Finding("NNIE-KERNEL", layer.name, f"{key} is {number}", hint)


def _check_channels(net: Net, shapes: Shapes) -> Iterator[Finding]:
    for layer in net.layers:
        group = _first(layer.params.get("group"), 1)
        if layer.type == "Convolution" and group > _MAX_GROUP:
            yield Finding("NNIE-GROUP", layer.name, f"group is {group}", "split the layer along its channels")
        for top in layer.tops:
            shape = shapes.get(top, [])
            if (
                len(shape) == 4
                and shape[1] > _MAX_CHANNELS
                and layer.type not in ("Reshape", "Permute", "Flatten")
            ):
                yield Finding("NNIE-CHANNELS", layer.name, f"{shape[1]} channels", "split the layer")


def _check_pooling(net: Net, _: Shapes) -> Iterator[Finding]:
    for layer in net.layers:
        for key in ("round_mode", "ceil_mode"):
            if layer.type == "Pooling" and key in layer.params:
                what = f"{key} is given ({layer.params[key]})"
                hint = "remove the field and choose kernel, stride and pad so that rounding does not matter"
                yield Finding("NNIE-POOLING-CEIL", layer.name, what, hint)


def reshape_dims(layer: Layer) -> list[int]:
    """Return the dims of a Reshape's shape."""
    shape = layer.params.get("shape") or {}
    return [int(dim) for dim in shape.get("dim", [])]


def _check_reshape(net: Net, _: Shapes) -> Iterator[Finding]:
    for layer in net.layers:
        if layer.type != "Reshape":
            continue
        dims = reshape_dims(layer)
        if len(dims) != 4:
            hint = "cut the network before it and let the host put outputs together, as `caffe convert` does"
            yield Finding("NNIE-RESHAPE", layer.name, f"{len(dims)}-D shape {dims}", hint)
        elif dims[0] != 0:
            hint = "run `facekiln nnie legalise`, which writes 0"
            yield Finding("NNIE-RESHAPE", layer.name, f"the first dim of {dims} is not 0", hint)


def _check_permute(net: Net, _: Shapes) -> Iterator[Finding]:
    for layer in net.layers:
        order = [int(axis) for axis in layer.params.get("order", [])]
        if layer.type == "Permute" and order != [0, 2, 3, 1]:
            yield Finding("NNIE-PERMUTE", layer.name, f"order is {order}", "permute on the host instead")


def _axis(layer: Layer, rank: int) -> int:
    axis = _first(layer.params.get("axis"), 1)
    return axis + rank if axis < 0 else axis


def _check_axes(net: Net, shapes: Shapes) -> Iterator[Finding]:
    for layer in net.layers:
        if layer.type not in ("Softmax", "Concat"):
            continue
        rank = len(shapes.get(layer.bottoms[0], [1, 1, 1, 1]))
        axis = _axis(layer, rank)
        # Vectors (InnerProduct, Flatten) have rank 2, and every classifier's softmax stands on one.
        if layer.type == "Softmax" and (rank not in (2, 4) or axis not in range(1, rank)):
            hint = "reshape to N, classes, -1, W before it and use axis 1, or take softmax on the host"
            yield Finding("NNIE-SOFTMAX-AXIS", layer.name, f"axis {axis} of a {rank}-D blob", hint)
        if layer.type == "Concat" and axis not in (1, 2, 3):
            yield Finding("NNIE-CONCAT-AXIS", layer.name, f"axis {axis}", "concatenate along C, H or W")


def _check_power(net: Net, _: Shapes) -> Iterator[Finding]:
    for layer in net.layers:
        power = float(layer.params.get("power", 1.0))
        if layer.type == "Power" and power not in _EXPONENTS:
            yield Finding("NNIE-POWER", layer.name, f"power is {power}", "compute it on the host")


def _check_upsample(net: Net, _: Shapes) -> Iterator[Finding]:
    for layer in net.layers:
        scale = _first(layer.params.get("scale"), 2)
        if layer.type == "Upsample" and scale != 2:
            yield Finding(
                "NNIE-UPSAMPLE", layer.name, f"scale is {scale}", "repeat x2, or use a Deconvolution"
            )


def _check_inner_product_tail(net: Net, _: Shapes) -> Iterator[Finding]:
    vectors: set[str] = set()
    for layer in net.layers:
        follows = vectors.intersection(layer.bottoms)
        if follows and layer.type not in ACTIVATIONS | {"Softmax"}:
            hint = "write all but the last InnerProduct as 1x1 Convolutions"
            yield Finding("NNIE-INNERPRODUCT-TAIL", layer.name, f"{layer.type} follows an InnerProduct", hint)
        if layer.type == "InnerProduct" or follows:
            vectors.update(layer.tops)


_CHECKS: tuple[Callable[[Net, Shapes], Iterator[Finding]], ...] = (
    _check_outputs,
    _check_order,
    _check_activation_order,
    _check_names,
    _check_kernels,
    _check_channels,
    _check_pooling,
    _check_reshape,
    _check_permute,
    _check_axes,
    _check_power,
    _check_upsample,
    _check_inner_product_tail,
)


def _leveled(findings: Iterator[Finding], levels: Mapping[str, str]) -> list[Finding]:
    kept = []
    for finding in findings:
        level = levels.get(finding.rule, "refuse")
        if level != "ignore":
            kept.append(replace(finding, level=level))
    return kept


def check_net(net: Net, levels: Mapping[str, str], images: Collection[str] | None = None) -> list[Finding]:
    """Return everything in a network that the NNIE would not take, in layer order of each rule.

    Args:
        net: the network; weights are not looked at.
        levels: what the doubtful rules mean, `NnieSettings.restrictions`.
        images: the inputs that are pictures; None: those with 1 or 3 channels.

    Raises:
        KilnError: the network is no valid Caffe network: shapes do not fit.
    """
    foreign = _leveled(check_layer_types(net), levels)
    if any(finding.level == "refuse" for finding in foreign):
        return foreign
    misplaced = _leveled(_check_order(net, {}), levels)
    if any(finding.level == "refuse" for finding in misplaced):
        return foreign + misplaced
    shapes = infer_shapes(net)
    inputs = _check_inputs(net, _pictures(net) if images is None else images)
    return (
        foreign
        + _leveled(inputs, levels)
        + [f for check in _CHECKS for f in _leveled(check(net, shapes), levels)]
    )


def check_hp_names(net: Net, compile_mode: int) -> list[Finding]:
    """Return the layers whose names end in `_hp` although the compile mode has no use for it."""
    if compile_mode == 2:
        return []
    hint = "set [compile_mode] 2, or rename the layer"
    return [
        Finding("NNIE-HP", layer.name, f"`_hp` with compile_mode {compile_mode}", hint)
        for layer in net.layers
        if layer.name.endswith("_hp")
    ]
