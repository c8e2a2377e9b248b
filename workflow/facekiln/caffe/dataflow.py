"""Who wrote what a layer reads: blob names do not say, as in-place layers write one name many times."""

from __future__ import annotations

from facekiln.caffe.net import Net
from facekiln.errors import KilnError

# Producer index of a net's own input.
INPUT = -1


def producers(net: Net) -> list[list[int]]:
    """Return, per layer, the index of the layer that wrote each of its bottoms (`INPUT` for a net input).

    Raises:
        KilnError: a layer reads a blob that nothing before it writes, or writes one that exists.
    """
    writer = dict.fromkeys(net.inputs, INPUT)
    result = []
    for index, layer in enumerate(net.layers):
        for bottom in layer.bottoms:
            if bottom not in writer:
                raise KilnError(
                    f"reads blob '{bottom}', which no layer before it writes",
                    where=f"layer '{layer.name}'",
                    hint="order the layers so that every blob is written before it is read",
                )
        for top in layer.tops:
            if top in writer and top not in layer.bottoms:
                raise KilnError(
                    f"writes blob '{top}', which another layer wrote already",
                    where=f"layer '{layer.name}'",
                    limit="one writer per blob, in-place layers apart",
                )
        result.append([writer[bottom] for bottom in layer.bottoms])
        writer.update(dict.fromkeys(layer.tops, index))
    return result


def readers(net: Net) -> list[list[int]]:
    """Return, per layer, the indices of the layers that read what it wrote, in order, each once."""
    result: list[list[int]] = [[] for _ in net.layers]
    for index, sources in enumerate(producers(net)):
        for source in dict.fromkeys(sources):
            if source != INPUT:
                result[source].append(index)
    return result


def single_assignment(net: Net) -> tuple[Net, dict[str, str]]:
    """Return the same network with nothing in place, and where each blob's final value is.

    Returns:
        A copy in which every layer writes blobs of its own: the second value of blob `b` is `b@2`, and so on.
        And blob -> the copy's blob that holds its final value.
    """
    net = net.copy()
    current = {name: name for name in net.inputs}
    versions = dict.fromkeys(net.inputs, 1)
    for layer in net.layers:
        layer.bottoms = [current[bottom] for bottom in layer.bottoms]
        for place, top in enumerate(layer.tops):
            versions[top] = versions.get(top, 0) + 1
            current[top] = top if versions[top] == 1 else f"{top}@{versions[top]}"
            layer.tops[place] = current[top]
    return net, current
