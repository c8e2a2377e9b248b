"""MaxPool, AveragePool, GlobalAveragePool: Caffe rounds the number of windows up, ONNX (mostly) down."""

from __future__ import annotations

from facekiln.caffe.emit import Emitter, refuse
from facekiln.caffe.geometry import pool_cells
from facekiln.caffe.ops.convolution import pair, symmetric_pads, window
from facekiln.graph.onnx_graph import Node, ints, pads_of

_CEIL = "Caffe and NNIE: pooling rounds up, and there is no other mode"


def _params(
    method: str, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]
) -> dict[str, object]:
    params: dict[str, object] = {"pool": method, **window("kernel_size", "kernel", kernel, repeated=False)}
    params.update(window("stride", "stride", stride, repeated=False))
    if pad != (0, 0):
        params.update(window("pad", "pad", pad, repeated=False))
    return params


def _settings(
    emitter: Emitter, node: Node
) -> tuple[list[int], list[int], tuple[int, int], tuple[int, int], list[int]]:
    before, after = emitter.shape(node.inputs[0]), emitter.shape(node.outputs[0])
    if len(before) != 4:
        raise refuse(node, "only images are pooled, not 1-D or 3-D data", value=before, limit="[1, C, H, W]")
    if any(node.outputs[1:]):
        raise refuse(
            node,
            "gives the places of the maxima too",
            hint="MaxUnpool has no Caffe layer: upsample otherwise",
        )
    if pair(node, "dilations") != (1, 1):
        raise refuse(
            node, "is dilated", value=pair(node, "dilations"), limit="Caffe's pooling has no dilation"
        )
    kernel, stride = pair(node, "kernel_shape"), pair(node, "strides")
    pads = pads_of(node, before[2:], kernel, stride)
    for size, cells, step, pad in zip(before[2:], after[2:], stride, pads, strict=False):
        if (cells - 1) * step - pad >= size:
            raise refuse(
                node,
                "has a window wholly outside the image, which runtimes fill differently",
                value=f"input {tuple(before[2:])}, kernel {kernel}, stride {stride}, ceil_mode",
                hint="set ceil_mode=False",
            )
    return before[2:], after[2:], kernel, stride, pads


def _first_kernel(size: int, cells: int, kernel: int, stride: int, pad: int) -> int | None:
    """Return the kernel of a stride-1 pooling to put first so that Caffe's second has `cells` windows.

    A maximum over k is a maximum over k2 of maxima over k1, k1 + k2 - 1 = k. The second pooling sees k1 - 1
    cells less, and so may round to the number of windows that ONNX has. 1 means that no first pooling is
    needed, None that no kernel will do.
    """
    for first in range(1, kernel + 1):
        second = kernel - first + 1
        length = size - first + 1
        if pad < second <= length + 2 * pad and pool_cells(length, second, stride, pad) == cells:
            return first
    return None


def max_pool(emitter: Emitter, node: Node) -> None:
    """MaxPool -> Pooling MAX, or two of them where one would have a window too many."""
    sizes, cells, kernel, stride, pads = _settings(emitter, node)
    # The end pads only decide how many windows there are, which the output's shape says.
    pad = (pads[0], pads[1])
    found = [
        _first_kernel(size, count, k, s, p)
        for size, count, k, s, p in zip(sizes, cells, kernel, stride, pad, strict=True)
    ]
    if found[0] is None or found[1] is None:
        raise _rounding(node, sizes, cells, kernel, stride, pad)
    first = (found[0], found[1])
    if first == (1, 1):
        emitter.emit(node, "Pooling", _params("MAX", kernel, stride, pad))
        return
    inner = emitter.emit_inner(
        node, "first", "Pooling", _params("MAX", first, (1, 1), (0, 0)), emitter.bottoms(node)
    )
    second = (kernel[0] - first[0] + 1, kernel[1] - first[1] + 1)
    emitter.emit(node, "Pooling", _params("MAX", second, stride, pad), bottoms=[inner])
    emitter.edit(
        "CAFFE-POOL-CEIL",
        node,
        f"MAX {kernel} stride {stride} -> MAX {first} stride 1, then MAX {second} stride {stride} pad {pad}",
        f"one pooling would give {_caffe_cells(sizes, kernel, stride, pad)} cells, not {tuple(cells)}; "
        "two give the same maxima",
        _CEIL,
    )


def average_pool(emitter: Emitter, node: Node) -> None:
    """AveragePool -> Pooling AVE, where windows and divisors are the same."""
    sizes, cells, kernel, stride, pads = _settings(emitter, node)
    pad = symmetric_pads(node, pads)
    if _caffe_cells(sizes, kernel, stride, pad) != tuple(cells):
        raise _rounding(node, sizes, cells, kernel, stride, pad)
    counted = bool(node.attrs.get("count_include_pad", 0))
    if pad != (0, 0) and not counted:
        raise refuse(
            node,
            "divides border windows by the cells inside the image",
            value="count_include_pad 0",
            limit="Caffe counts the padding",
            hint="use AvgPool2d(count_include_pad=True), or no padding",
        )
    over = any(
        (count - 1) * s - p + k > size + p
        for size, count, k, s, p in zip(sizes, cells, kernel, stride, pad, strict=True)
    )
    if over and counted:
        raise refuse(
            node,
            "has windows beyond the padded image, whose divisor runtimes do not agree on",
            value=f"input {tuple(sizes)}, kernel {kernel}, stride {stride}",
            hint="set ceil_mode=False, or a size that the windows divide",
        )
    emitter.emit(node, "Pooling", _params("AVE", kernel, stride, pad))


def global_average_pool(emitter: Emitter, node: Node) -> None:
    """GlobalAveragePool, or ReduceMean over height and width -> Pooling AVE over the whole map."""
    shape = emitter.shape(node.inputs[0])
    if len(shape) != 4:
        raise refuse(node, "only images are pooled", value=shape, limit="[1, C, H, W]")
    emitter.emit(node, "Pooling", {"pool": "AVE", "global_pooling": True})


def reduce_mean(emitter: Emitter, node: Node) -> None:
    """ReduceMean over axes 2 and 3 -> Pooling AVE over the whole map; other axes are refused."""
    shape = emitter.shape(node.inputs[0])
    axes = emitter.graph.operand(node, "axes", 1)
    wanted = sorted(axis % len(shape) for axis in ints(axes)) if axes is not None else list(range(len(shape)))
    if len(shape) != 4 or wanted != [2, 3]:
        raise refuse(node, "takes the mean over other axes than height and width", value=wanted, limit=[2, 3])
    if node.attrs.get("keepdims", 1):
        global_average_pool(emitter, node)
        return
    params = {"pool": "AVE", "global_pooling": True}
    pooled = emitter.emit_inner(node, "pool", "Pooling", params, emitter.bottoms(node))
    emitter.emit(node, "Flatten", bottoms=[pooled])


def _caffe_cells(
    sizes: list[int], kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]
) -> tuple[int, ...]:
    return tuple(pool_cells(*axis) for axis in zip(sizes, kernel, stride, pad, strict=True))


def _rounding(
    node: Node,
    sizes: list[int],
    cells: list[int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
) -> Exception:
    ours = _caffe_cells(sizes, kernel, stride, pad)
    return refuse(
        node,
        f"pools {tuple(sizes)} to {tuple(cells)} cells, but Caffe would give {ours}, and no rewrite is exact",
        value=f"kernel {kernel}, stride {stride}, pad {pad}",
        limit=_CEIL,
        hint="choose an input size for which (size + 2 pad - kernel) is a multiple of the stride",
    )
