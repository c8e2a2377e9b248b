"""`facekiln quant`: ranges of our own, int8 estimates and layer sensitivity."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekiln.commands import add_config, add_verb
from facekiln.quant.names import METHODS, SCHEMES

if TYPE_CHECKING:
    from facekiln.config import Config, Model
    from facekiln.quant.run import Pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    ranges = _verb(
        verbs,
        "ranges",
        _ranges,
        "measure the range of every activation over a calibration set, by four methods, and of every weight",
        "facekiln quant ranges results/onnx/retinaface_640.sim.onnx --calibration"
        " results/calibration/retinaface_640 --output results/calibration/retinaface_640/ranges.json",
    )
    ranges.add_argument("--calibration", type=Path, required=True, metavar="FOLDER", help="a calibration set")
    ranges.add_argument(
        "--percentile", type=float, help="percent of magnitudes kept (default: config.yaml's calibration)"
    )
    ranges.add_argument("--output", type=Path, required=True, metavar="FILE")

    qdq = _verb(
        verbs,
        "qdq",
        _qdq,
        "write an ONNX that rounds where int8 chips do, by our ranges (SIMULATED)",
        "facekiln quant qdq results/onnx/retinaface_640.sim.onnx --ranges"
        " results/calibration/retinaface_640/ranges.json --method kl --output retinaface_640.qdq.onnx",
    )
    _add_scheme(qdq)
    qdq.add_argument("--skip", nargs="*", default=[], metavar="NODE", help="nodes that stay in float")
    qdq.add_argument(
        "--correct-bias",
        type=Path,
        metavar="FOLDER",
        help="a calibration set: shift each bias by the mean error that int8 makes on its first pictures",
    )
    qdq.add_argument("--output", type=Path, required=True, metavar="FILE")

    methods = _verb(
        verbs,
        "methods",
        _methods,
        "compare int8 by every range method and scheme with float: outputs and faces (SIMULATED)",
        "facekiln quant methods results/onnx/retinaface_640.sim.onnx --ranges"
        " results/calibration/retinaface_640/ranges.json --images photos/ --count 32 --output methods.json",
    )
    methods.add_argument("--ranges", type=Path, required=True, metavar="FILE")
    _add_pictures(methods)
    methods.add_argument("--output", type=Path, required=True, metavar="FILE")

    sensitivity = _verb(
        verbs,
        "sensitivity",
        _sensitivity,
        "quantise each layer alone and tell what it costs, worst first: JSON, CSV and PNG (SIMULATED)",
        "facekiln quant sensitivity results/onnx/retinaface_640.sim.onnx --ranges"
        " results/calibration/retinaface_640/ranges.json"
        " --output results/quant/retinaface_640/sensitivity.json",
    )
    _add_scheme(sensitivity)
    _add_pictures(sensitivity)
    sensitivity.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="JSON; .csv and .png go beside it"
    )


def _verb(verbs: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    parser = add_verb(verbs, name, run, summary, example)
    parser.add_argument("onnx", type=Path, help="a simplified ONNX file")
    parser.add_argument("--model", help="default: from the file's name")
    parser.add_argument("--size", help="default: from the file's name")
    add_config(parser)
    return parser


def _add_scheme(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranges", type=Path, required=True, metavar="FILE")
    parser.add_argument("--method", choices=METHODS, default="kl")
    parser.add_argument(
        "--scheme", choices=SCHEMES, default="asymmetric", help="of activations; weights are symmetric"
    )


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", help="`procedural` or a folder, not calibrated on (default: config.yaml's parity.images)"
    )
    parser.add_argument("--count", type=int, default=8, help="how many pictures (default 8)")
    parser.add_argument("--seed", type=int, help="default: config.yaml's parity.seed")


def _subject(options: argparse.Namespace) -> tuple[Config, Model, str]:
    from facekiln.config import load_config
    from facekiln.targets import model_and_size_of

    config = load_config(options.config)
    model, size = options.model, options.size
    if model is None or size is None:
        named = model_and_size_of(options.onnx, config)
        model, size = model or named[0], size or named[1]
    config.model(model).size(size)
    return config, config.model(model), size


def _ranges_of(options: argparse.Namespace) -> Any:
    """Read the ranges, and refuse those of another file."""
    from facekiln.artifact import sha256_of
    from facekiln.errors import KilnError
    from facekiln.quant.ranges import read_ranges

    ranges = read_ranges(options.ranges)
    found = sha256_of(options.onnx)
    if ranges.artifact_sha256 and ranges.artifact_sha256 != found:
        raise KilnError(
            "are the ranges of another network",
            file=options.ranges,
            where="artifact_sha256",
            value=ranges.artifact_sha256[:16],
            limit=f"{found[:16]} ({options.onnx})",
            hint=f"measure them again: facekiln quant ranges {options.onnx} --help",
        )
    return ranges


def _pictures(
    options: argparse.Namespace, config: Config, model: Model, size: str
) -> tuple[Pictures, dict[str, Any]]:
    from facekiln.parity.pictures import choose_pictures
    from facekiln.quant.run import pictures_in_memory

    source = options.images or config.parity["images"]
    seed = config.parity["seed"] if options.seed is None else options.seed
    chosen = choose_pictures(source, options.count, seed, model.size(size), model.input.resize, model.crop)
    settings = {"source": source, "count": len(chosen), "seed": seed, "names": [name for name, _ in chosen]}
    return pictures_in_memory([picture for _, picture in chosen], model), settings


def _ranges(options: argparse.Namespace) -> None:
    from facekiln.artifact import sha256_of
    from facekiln.data.calibration import FACTS, read_calibration
    from facekiln.graph.export import load_onnx
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record
    from facekiln.quant.ranges import measure_ranges, write_ranges
    from facekiln.quant.run import pictures_of_set

    config, model, size = _subject(options)
    facts = read_calibration(options.calibration, ("model", "size"))
    _check_set(facts, options.calibration, model, size)
    percentile = config.calibration["percentile"] if options.percentile is None else options.percentile
    ranges = measure_ranges(
        load_onnx(options.onnx),
        pictures_of_set(options.calibration, model),
        percentile=percentile,
        artifact_sha256=sha256_of(options.onnx),
        set_sha256=facts["set_sha256"],
    )
    write_ranges(options.output, ranges)
    write_record(
        options.output,
        verb="quant ranges",
        inputs=[options.onnx, options.calibration / FACTS],
        settings=dict(ranges.settings),
        tools=tool_versions("numpy", "onnx", "onnxruntime", "opencv-python-headless"),
        facts={"pictures": ranges.pictures, "set_sha256": ranges.set_sha256, "tensors": len(ranges)},
    )
    clipped = {
        method: sum(one.thresholds[method] for one in ranges)
        / max(sum(one.thresholds["minmax"] for one in ranges), 1e-30)
        for method in METHODS[1:]
    }
    log.info(
        "%s: %d activations, %d weights, %d pictures; thresholds over extremes: %s",
        options.output,
        len(ranges),
        len(ranges.weights),
        ranges.pictures,
        ", ".join(f"{method} {share:.2f}" for method, share in clipped.items()),
    )


def _check_set(facts: dict[str, Any], folder: Path, model: Model, size: str) -> None:
    from facekiln.errors import KilnError

    expected = [model.name, list(model.size(size))]
    if [facts["model"], facts["size"]] != expected:
        raise KilnError(
            "is the calibration set of another model or size",
            file=folder,
            value=f"{facts['model']} {facts['size']}",
            limit=f"{expected[0]} {expected[1]}",
            hint="facekiln calibration make --help",
        )


def _qdq(options: argparse.Namespace) -> None:
    from facekiln.data.calibration import FACTS
    from facekiln.graph.export import load_onnx, save_onnx
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record
    from facekiln.quant.bias import PICTURES, correct_biases
    from facekiln.quant.qdq import MARK, build_qdq, with_biases
    from facekiln.quant.run import pictures_of_set

    _, model, _ = _subject(options)
    network, ranges = load_onnx(options.onnx), _ranges_of(options)
    quantised = build_qdq(network, ranges, options.method, options.scheme, skip=options.skip)
    inputs = [options.onnx, options.ranges]
    if options.correct_bias:
        pictures = pictures_of_set(options.correct_bias, model, PICTURES)
        quantised = with_biases(quantised, correct_biases(network, quantised, pictures))
        inputs.append(options.correct_bias / FACTS)
    save_onnx(quantised, options.output)
    write_record(
        options.output,
        verb="quant qdq",
        inputs=inputs,
        settings={
            "method": options.method,
            "scheme": options.scheme,
            "skip": options.skip,
            "bias_corrected": bool(options.correct_bias),
        },
        tools=tool_versions("numpy", "onnx", "onnxruntime"),
        emulated=True,
    )
    log.info("%s: %s %s; %s", options.output, options.method, options.scheme, MARK)


def _methods(options: argparse.Namespace) -> None:
    from facekiln.artifact import write_json
    from facekiln.graph.export import load_onnx
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record
    from facekiln.quant.estimate import compare_methods, methods_text

    config, model, size = _subject(options)
    ranges = _ranges_of(options)
    pictures, settings = _pictures(options, config, model, size)
    rows = compare_methods(load_onnx(options.onnx), ranges, pictures, model, size)
    report = {
        "model": model.name,
        "size": size,
        "artifact_sha256": ranges.artifact_sha256,
        "set_sha256": ranges.set_sha256,
        "pictures": settings,
        "simulated": True,
        "rows": rows,
    }
    write_json(options.output, report)
    write_record(
        options.output,
        verb="quant methods",
        inputs=[options.onnx, options.ranges],
        settings=settings,
        tools=tool_versions("numpy", "onnx", "onnxruntime"),
        emulated=True,
    )
    log.info("%s", methods_text(rows))


def _sensitivity(options: argparse.Namespace) -> None:
    from facekiln.artifact import write_json, write_text
    from facekiln.graph.export import load_onnx
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record
    from facekiln.quant.sensitivity import sensitivity
    from facekiln.quant.sensitivity_report import draw_sensitivity, sensitivity_csv, sensitivity_text

    config, model, size = _subject(options)
    ranges = _ranges_of(options)
    pictures, settings = _pictures(options, config, model, size)
    layers = sensitivity(
        load_onnx(options.onnx),
        ranges,
        pictures,
        model,
        size,
        method=options.method,
        scheme=options.scheme,
    )
    chosen = {"method": options.method, "scheme": options.scheme}
    report = {
        "model": model.name,
        "size": size,
        "artifact_sha256": ranges.artifact_sha256,
        "set_sha256": ranges.set_sha256,
        "pictures": settings,
        **chosen,
        "simulated": True,
        "layers": [layer.as_dict() for layer in layers],
    }
    table, picture = options.output.with_suffix(".csv"), options.output.with_suffix(".png")
    write_json(options.output, report)
    write_text(table, sensitivity_csv(layers))
    title = f"{model.name}_{size}: each layer alone in SIMULATED int8 ({options.method}, {options.scheme})"
    draw_sensitivity(layers, picture, title)
    write_record(
        [options.output, table, picture],
        verb="quant sensitivity",
        inputs=[options.onnx, options.ranges],
        settings={**chosen, **settings},
        tools=tool_versions("numpy", "onnx", "onnxruntime", "matplotlib"),
        emulated=True,
    )
    log.info("%s\n%s", options.output, sensitivity_text(layers))
