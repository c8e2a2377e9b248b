"""What is changed in pnnx's graph: names, the order of outputs, and ReLUs that stand behind a Concat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from facekiln.chips.ncnn.param import Graph, Layer
from facekiln.errors import KilnError
from facekiln.provenance import Edit

# pnnx's names of inputs and outputs, by their place in the ONNX graph.
_INPUT, _OUTPUT = "in{}", "out{}"
_SEPARATOR = "_kiln"


def declare_blobs(
    graph: Graph, inputs: Sequence[str], outputs: Sequence[str], order: Sequence[str] | None = None
) -> tuple[Graph, list[Edit]]:
    """Give inputs and outputs their declared names, and the outputs their declared order.

    ncnn numbers blobs in the order in which layers make them, and `Net::output_indexes` follows it; so the
    layers that make outputs are moved to the end, in the declared order.

    Args:
        graph: as pnnx wrote it.
        inputs: names, in the order of the ONNX graph's inputs.
        outputs: names, in the order of the ONNX graph's outputs.
        order: the same names in the order that is wanted; as in the ONNX where None.

    Raises:
        KilnError: pnnx's graph has other inputs or outputs, or a name of ours is taken.
    """
    names = {_INPUT.format(place): name for place, name in enumerate(inputs)}
    names |= {_OUTPUT.format(place): name for place, name in enumerate(outputs)}
    if sorted(graph.inputs() + graph.outputs()) != sorted(names):
        raise KilnError(
            "pnnx's graph has other inputs or outputs than the ONNX",
            value=[*graph.inputs(), *graph.outputs()],
            limit=list(names),
        )
    for blob in graph.blobs():
        if blob not in names and blob in names.values():
            names[blob] = f"{blob}{_SEPARATOR}"
    renamed = _renamed(graph, names)
    edits = [
        Edit("NCNN-BLOB-NAME", new, f"blob '{old}' -> '{new}'", "pnnx numbers what the model names")
        for old, new in names.items()
        if old != new
    ]
    makers = {layer.tops[0]: layer for layer in renamed if set(layer.tops) & set(outputs)}
    order = list(outputs if order is None else order)
    if renamed.outputs() != order:
        last = [makers[name] for name in order]
        moved = [layer for layer in renamed if layer not in last]
        edits.append(
            Edit(
                "NCNN-OUTPUT-ORDER",
                ", ".join(order),
                f"outputs by index {', '.join(renamed.outputs())} -> {', '.join(order)}",
                "board code that goes by indices reads them in the model's order",
                "Net::output_indexes() follows the order of layers",
            )
        )
        renamed = Graph((*moved, *last))
    return renamed, edits


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    def mapped(blobs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(blob, blob) for blob in blobs)

    return Graph(
        tuple(
            replace(
                layer,
                name=names.get(layer.name, layer.name) if layer.type == "Input" else layer.name,
                bottoms=mapped(layer.bottoms),
                tops=mapped(layer.tops),
            )
            for layer in graph
        )
    )


def fuse_relu_behind_concat(graph: Graph) -> tuple[Graph, list[Edit]]:
    """Move a ReLU behind a Concat into the convolutions that the Concat joins.

    The values are the same, and one pass over the joined map is saved; pnnx leaves it, as ncnnoptimize does.
    Only where every joined blob comes straight from a convolution without an activation.
    """
    makers = {blob: layer for layer in graph for blob in layer.tops}
    changed: dict[str, Layer] = {}
    dropped: dict[str, str] = {}
    edits: list[Edit] = []
    for layer in graph:
        if layer.type != "ReLU" or makers[layer.bottoms[0]].type != "Concat":
            continue
        concat = makers[layer.bottoms[0]]
        joined = [makers[blob] for blob in concat.bottoms]
        if not all(
            one.type in ("Convolution", "ConvolutionDepthWise") and 9 not in one.params for one in joined
        ):
            continue
        slope = layer.params.get(0, "0")
        for one in joined:
            leaky = float(slope) != 0
            params = {**one.params, 9: "2" if leaky else "1", **({10: slope} if leaky else {})}
            changed[one.name] = replace(one, params=params, arrays=one.arrays | ({10} if leaky else set()))
        changed[concat.name] = replace(concat, tops=layer.tops)
        dropped[layer.name] = concat.name
        edits.append(
            Edit(
                "NCNN-RELU-CONCAT",
                layer.name,
                f"moved before '{concat.name}', into {', '.join(one.name for one in joined)}",
                "the same values with one pass less over the map",
            )
        )
    kept = tuple(changed.get(layer.name, layer) for layer in graph if layer.name not in dropped)
    return Graph(kept), edits
