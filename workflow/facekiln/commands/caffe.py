"""`facekiln caffe`: convert ONNX to Caffe, and look into Caffe pairs."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.commands import add_config, add_verb

if TYPE_CHECKING:
    from facekiln.caffe.convert import Conversion
    from facekiln.config import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    convert = add_verb(
        verbs,
        "convert",
        _convert,
        "convert a simplified ONNX file to a Caffe pair, exactly or not at all",
        "facekiln caffe convert r.sim.onnx --model retinaface --size 640"
        " --prototxt r.prototxt --caffemodel r.caffemodel --heads r.heads.json",
    )
    convert.add_argument("onnx", type=Path)
    convert.add_argument("--model", required=True)
    convert.add_argument("--size", required=True, help="a size label of the model")
    convert.add_argument("--prototxt", type=Path, required=True)
    convert.add_argument("--caffemodel", type=Path, required=True)
    convert.add_argument(
        "--heads",
        type=Path,
        required=True,
        help="JSON that says how the output blobs form the model's outputs",
    )
    convert.set_defaults(writes=("prototxt", "caffemodel", "heads"))
    add_config(convert)
    inspect = add_verb(
        verbs,
        "inspect",
        _inspect,
        "print inputs, outputs, layers, parameters and work of a Caffe network, ours or another's",
        "facekiln caffe inspect r.prototxt r.caffemodel",
    )
    inspect.add_argument("prototxt", type=Path)
    inspect.add_argument(
        "caffemodel", type=Path, nargs="?", help="also check that the weights fit the structure"
    )


def _convert(options: argparse.Namespace) -> None:
    from facekiln.caffe.census import take_census
    from facekiln.caffe.convert import convert, save
    from facekiln.config import load_config
    from facekiln.errors import KilnError
    from facekiln.graph.export import load_onnx
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record

    model = load_config(options.config).model(options.model)
    steps = model.priors.steps if model.priors else None
    simplified = load_onnx(options.onnx)
    try:
        done = convert(simplified, name=f"{model.name}_{options.size}", steps=steps)
    except KilnError as error:
        raise KilnError(str(error), file=options.onnx) from error
    _check_interface(options, model, done)
    save(done, options.prototxt, options.caffemodel, options.heads)
    census = take_census(done.net)
    write_record(
        [options.prototxt, options.caffemodel, options.heads],
        verb="caffe convert",
        inputs=[options.onnx],
        settings={"model": model.name, "size": list(model.size(options.size)), "steps": list(steps or [])},
        tools=tool_versions("numpy", "onnx", "protobuf"),
        edits=done.edits,
        facts={
            "layers": census.layers,
            "parameters": census.parameters,
            "macs": census.macs,
            "tensor_of_blob": done.tensor_of_blob,
        },
    )
    rules = Counter(edit.rule for edit in done.edits)
    log.info("%s", options.prototxt)
    for line in census.lines():
        log.info("  %s", line)
    log.info(
        "  rewrites: %s", ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items())) or "none"
    )


def _check_interface(options: argparse.Namespace, model: Model, done: Conversion) -> None:
    """Compare the ONNX file's input and outputs with the model's declaration."""
    from facekiln.errors import KilnError

    declared = {model.input.name: [1, 3, *model.size(options.size)]}
    if done.net.inputs != declared:
        raise KilnError(
            f"its input is not that of {model.name}_{options.size}",
            file=options.onnx,
            value=done.net.inputs,
            limit=declared,
            hint="was it exported for another size?",
        )
    found = {head.output for head in done.heads}
    if found != set(model.outputs):
        raise KilnError(
            f"its outputs are not those of '{model.name}'",
            file=options.onnx,
            value=sorted(found),
            limit=sorted(model.outputs),
        )


def _inspect(options: argparse.Namespace) -> None:
    from facekiln.caffe.census import take_census
    from facekiln.caffe.reader import read_net, read_prototxt
    from facekiln.errors import KilnError

    net = (
        read_net(options.prototxt, options.caffemodel)
        if options.caffemodel
        else read_prototxt(options.prototxt)
    )
    try:
        lines = take_census(net).lines()
    except KilnError as error:
        raise KilnError(str(error), file=options.prototxt) from error
    weights = f"weights of {options.caffemodel} fit" if options.caffemodel else "weights not read"
    sys.stdout.write("\n".join([f"{options.prototxt}: {net.name or 'no name'}; {weights}", *lines]) + "\n")
