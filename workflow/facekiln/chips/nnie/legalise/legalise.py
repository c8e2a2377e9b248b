"""Turn a Caffe network into one that the NNIE mapper takes, and tell every change and its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from facekiln.caffe.fold import fold_batch_norm
from facekiln.caffe.net import Net
from facekiln.caffe.writer import prototxt_text
from facekiln.chips.nnie.legalise.graph import (
    activations_in_place,
    depthwise_type,
    pooling_text,
    relu_slope,
    remove_crop,
    reshape_batch,
    separate_overwritten,
    upsample_to_deconvolution,
)
from facekiln.chips.nnie.legalise.limits import Finding
from facekiln.chips.nnie.legalise.names import shorten_names
from facekiln.chips.nnie.legalise.order import sort_layers
from facekiln.chips.nnie.legalise.restrictions import check_layer_types, check_net
from facekiln.chips.nnie.settings import LegaliseSettings, NnieSettings
from facekiln.errors import KilnError
from facekiln.provenance import Edit
from facekiln.vision.heads import HeadMap

_REPAIRED = ("NNIE-CROP",)
_SHOWN = 8


@dataclass(frozen=True)
class Legalised:
    """A legal network.

    Attributes:
        net: the network.
        heads: the heads with their blobs' new names, in the order of the outputs; empty if none given.
        edits: every change.
        original_names: blob's name -> name of the blob of the given network that held its value, where they
            differ. warnings: what a doubtful limit would forbid.
    """

    net: Net
    heads: list[HeadMap]
    edits: list[Edit]
    original_names: dict[str, str]
    warnings: list[Finding]


def kind_of(head: HeadMap) -> str:
    """Return bbox (4 values per prior), landmark (10 and more) or cls; `plain` for outputs without priors."""
    if head.order == "plain":
        return "plain"
    if head.values == 4:
        return "bbox"
    return "landmark" if head.values >= 10 else "cls"


def order_heads(heads: Sequence[HeadMap], settings: LegaliseSettings) -> list[HeadMap]:
    """Return the heads in the order of the outputs: by kind, then by stride; plain ones last, by name."""
    kinds, plain = [*settings.output_kinds, "plain"], settings.plain_outputs
    sign = -1 if settings.output_levels == "large_first" else 1

    def place(head: HeadMap) -> tuple[int, int]:
        kind = kind_of(head)
        if kind == "plain":
            return kinds.index(kind), plain.index(head.output) if head.output in plain else len(plain)
        return kinds.index(kind), sign * head.stride

    return sorted(heads, key=place)


def refuse(findings: Sequence[Finding], what: str) -> None:
    """Raise if any finding is one that refuses.

    Raises:
        KilnError: names each place, its limit and the source of the limit, and the first next step.
    """
    fatal = [finding for finding in findings if finding.level == "refuse"]
    if fatal:
        shown = "\n  ".join(finding.sentence() for finding in fatal[:_SHOWN])
        more = f"\n  and {len(fatal) - _SHOWN} more" if len(fatal) > _SHOWN else ""
        hints = "; ".join(dict.fromkeys(finding.hint for finding in fatal))
        raise KilnError(f"{what}:\n  {shown}{more}", hint=hints)


def legalise(net: Net, settings: NnieSettings, heads: Sequence[HeadMap] = ()) -> Legalised:
    """Return a network that computes the same and that the mapper takes.

    Args:
        net: any Caffe network with weights, ours or other people's; it is not changed.
        settings: which form to choose, and what the doubtful limits mean.
        heads: what the outputs are; without them outputs keep their order.

    Raises:
        KilnError: the network cannot be made legal; the message names layers, limits, sources and what to do.
    """
    chosen = settings.legalise
    net = net.copy()
    # Taken before any edit, as a blob that only an in-place layer keeps from view may come to light later.
    outputs = _ordered_outputs(net, heads, chosen)
    foreign = [finding for finding in check_layer_types(net) if finding.rule not in _REPAIRED]
    refuse(foreign, "the NNIE has no such layers")
    edits = remove_crop(net)
    edits += reshape_batch(net)
    edits += pooling_text(net)
    if chosen.upsample == "deconvolution":
        edits += upsample_to_deconvolution(net)
    if chosen.fold_batchnorm:
        net, folded = fold_batch_norm(net)
        edits += folded
    edits += relu_slope(net, chosen.relu_negative_slope)
    merged, written_over = activations_in_place(net)
    edits += written_over
    edits += separate_overwritten(net)
    if chosen.depthwise == "depthwise_conv":
        edits += depthwise_type(net)
    edits += sort_layers(net, [merged.get(blob, blob) for blob in outputs])
    renamed, named = shorten_names(net)
    current = {blob: renamed.get(merged.get(blob, blob), merged.get(blob, blob)) for blob in outputs}
    edits += named
    findings = check_net(net, settings.restrictions)
    refuse(findings, "the network cannot be made legal for the NNIE")
    return Legalised(
        net=net,
        heads=[replace(head, blob=current[head.blob]) for head in order_heads(heads, chosen)],
        edits=edits,
        original_names=_original_names(net, merged, renamed),
        warnings=[finding for finding in findings if finding.level == "warn"],
    )


def _ordered_outputs(net: Net, heads: Sequence[HeadMap], settings: LegaliseSettings) -> list[str]:
    """Return the network's outputs in the order wanted.

    Raises:
        KilnError: the heads are of another network.
    """
    if not heads:
        return net.outputs
    ordered = [head.blob for head in order_heads(heads, settings)]
    if sorted(ordered) != sorted(net.outputs):
        raise KilnError(
            "the heads do not name the network's outputs",
            where="heads",
            value=", ".join(ordered),
            limit=", ".join(net.outputs),
            hint="use the .heads.json that was written with this prototxt",
        )
    return ordered


def _original_names(net: Net, merged: dict[str, str], renamed: dict[str, str]) -> dict[str, str]:
    held = {new: old for old, new in merged.items()}
    former = {new: old for old, new in renamed.items()}
    blobs = dict.fromkeys([*net.inputs, *(top for layer in net.layers for top in layer.tops)])
    names = {blob: held.get(former.get(blob, blob), former.get(blob, blob)) for blob in blobs}
    return {new: old for new, old in names.items() if new != old}


def legal_text(net: Net, header: str) -> str:
    """Return the prototxt with a `legacy` (`input:`, `input_shape {}`) or `layer` (`Input` layers) header."""
    text = prototxt_text(net)
    if header == "legacy":
        return text
    start = text.index("layer {") if net.layers else len(text)
    name = text.split("\n", 1)[0]
    layers = []
    for blob, shape in net.inputs.items():
        dims = "".join(f"      dim: {dim}\n" for dim in shape)
        quoted = prototxt_text(Net("", {blob: shape}, [])).split("input: ", 1)[1].split("\n", 1)[0]
        layers.append(
            f'layer {{\n  name: {quoted}\n  type: "Input"\n  top: {quoted}\n'
            f"  input_param {{\n    shape {{\n{dims}    }}\n  }}\n}}\n"
        )
    return f"{name}\n{''.join(layers)}{text[start:]}"
