"""What models exist, as a table and one by one in words, for `facekiln models`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from facekiln.config import WEIGHTS_SECTION, Config, Model
from facekiln.vision.priors import centre_note, make_priors


@dataclass(frozen=True)
class Figures:
    """Counts of a model.

    Attributes:
        keys: entries of the network's state dict; None for a model born as ONNX.
        parameters: learned ones; what an ONNX file stores for a model born as one.
        macs: size label -> multiply-accumulates of convolutions and fully connected layers.
    """

    keys: int | None
    parameters: int
    macs: dict[str, int]


def figures(model: Model, config: Config) -> Figures | None:
    """Count a model; None where it is born as ONNX and its file is not in the mirror.

    Raises:
        KilnError: see `build_network` and `parse_born_onnx`.
    """
    if model.born == "onnx":
        return _onnx_figures(model, config)
    import torch

    from facekiln.models.macs import network_macs
    from facekiln.models.registry import build_network, count

    with torch.device("meta"):  # shapes only: no weights are drawn, and nothing is computed
        network = build_network(model)
        keys, parameters = count(network)
        macs = {label: network_macs(network, size) for label, size in model.sizes.items()}
    return Figures(keys, parameters, macs)


def _onnx_figures(model: Model, config: Config) -> Figures | None:
    from facekiln.models.born_onnx import parse_born_onnx
    from facekiln.models.fetch import find_in_mirror
    from facekiln.models.macs import onnx_macs, onnx_parameters

    there = config.mirror and Path(config.mirror).is_dir()
    found = (
        find_in_mirror(model.published, config.mirror)
        if there and config.mirror and model.published
        else None
    )
    if found is None:
        return None
    parsed = parse_born_onnx(found[1], found[0], model)
    return Figures(None, onnx_parameters(parsed), dict.fromkeys(model.sizes, onnx_macs(parsed)))


def table(config: Config, *, count: bool) -> Iterator[list[str]]:
    """Yield the rows, the heading first.

    Args:
        config: whose models are told.
        count: also build each network, on torch's meta device, and count.

    Raises:
        KilnError: see `figures`.
    """
    counted = ["keys", "parameters", "MMACs by size"] if count else []
    yield [
        *["model", "network", *counted, "sizes (HxW)", "weights (*: chosen)"],
        *["file bytes", "licence", "source"],
    ]
    for model in config.models.values():
        published = model.published
        yield [
            model.name,
            model.network,
            *(_counts(figures(model, config)) if count else []),
            " ".join(_size(label, size) for label, size in model.sizes.items()),
            " ".join(_weights(model, config)) or "none",
            f"{published.bytes:,}" if published else "-",
            model.licence,
            published.source if published else "-",
        ]


def _counts(counted: Figures | None) -> list[str]:
    if counted is None:
        return ["-", "-", "-"]
    macs = " ".join(f"{macs / 1e6:.1f}" for macs in counted.macs.values())
    return [str(counted.keys or "-"), f"{counted.parameters:,}", macs]


def _size(label: str, size: tuple[int, int]) -> str:
    height, width = size
    return label if (int(label), int(label)) == size else f"{label}={height}x{width}"


def _weights(model: Model, config: Config) -> list[str]:
    """Return the kinds of weights that a model can have, a star behind the one that is chosen."""
    chosen = model.weights or config.weights
    kinds = [kind for kind, section in WEIGHTS_SECTION.items() if getattr(model, section)]
    return [kind + "*" * (kind == chosen) for kind in kinds]


def tell(model: Model, config: Config) -> Iterator[str]:
    """Yield the lines that say all about one model.

    Raises:
        KilnError: see `figures`.
    """
    yield f"{model.name}: {model.title}"
    counted = figures(model, config)
    yield _line("network", f"{model.network}{_network_counts(counted)}")
    for label, (height, width) in model.sizes.items():
        told = [f"{height}x{width} (HxW)"]
        if model.priors:
            told.append(f"{len(make_priors(model.priors, (height, width)))} priors")
        if counted:
            told.append(f"{counted.macs[label] / 1e6:.1f} M multiply-accumulates")
        yield _line(f"size {label}", ", ".join(told))
    declared = model.input
    yield _line(
        "input",
        f"'{declared.name}': {declared.colour}, (x - {list(declared.mean)}) * {list(declared.scale)}, "
        + ("cut from a face's box" if model.crop else declared.resize),
    )
    yield _line("outputs", ", ".join(model.outputs))
    yield from _told_priors(model)
    if model.crop:
        yield _line(
            "crop",
            f"square of {model.crop.side} x the box's longer side, {model.crop.above} of it above the centre",
        )
    if model.priors:
        decode = model.decode
        yield _line(
            "decode",
            f"score > {decode.score_threshold}, best {decode.top_k}, NMS at IoU {decode.nms_iou} "
            f"(sides + {decode.extent} px), keep {decode.keep}",
        )
    yield from _told_weights(model, config)


def _line(what: str, told: str) -> str:
    return f"  {what:<10}{told}"


def _network_counts(counted: Figures | None) -> str:
    if counted is None:
        return ", born as ONNX: its file is not in the mirror, so nothing is counted"
    if counted.keys is None:
        return f", born as ONNX: {counted.parameters:,} stored parameters"
    return f": {counted.keys} keys, {counted.parameters:,} parameters"


def _told_priors(model: Model) -> Iterator[str]:
    priors = model.priors
    if priors is None:
        return
    levels = "; ".join(
        f"step {step}: {', '.join(f'{side:g}' for side in sides)}"
        for step, sides in zip(priors.steps, priors.min_sizes, strict=True)
    )
    clipped = ", clipped to the picture" if priors.clip else ""
    yield _line("priors", f"{levels}; variances {priors.variances[0]}, {priors.variances[1]}{clipped}")
    for label, size in model.sizes.items():
        note = centre_note(priors, size)
        if note:
            yield _line("", f"at size {label}: {note}")


def _told_weights(model: Model, config: Config) -> Iterator[str]:
    yield _line("weights", " ".join(_weights(model, config)) or "none: give it yours, `weights: local`")
    published = model.published
    if published:
        yield _line("", f"{published.url}")
        yield _line("", f"{published.bytes} bytes, sha256 {published.sha256}")
        yield _line("source", published.source)
    yield _line("licence", model.licence)
