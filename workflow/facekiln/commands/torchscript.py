"""`facekiln torchscript`: trace a network at one fixed input size."""

from __future__ import annotations

import argparse
from pathlib import Path

from facekiln.commands import add_config, add_verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    trace = add_verb(
        verbs,
        "trace",
        _trace,
        "trace a checkpoint's network at one fixed input size",
        "facekiln torchscript trace results/checkpoints/retinaface.pth --model retinaface --size 640"
        " --output r.pt",
    )
    trace.add_argument("checkpoint", type=Path)
    trace.add_argument("--model", required=True)
    trace.add_argument("--size", required=True, help="a size label of the model")
    trace.add_argument("--output", type=Path, required=True)
    add_config(trace)


def _trace(options: argparse.Namespace) -> None:
    from facekiln.artifact import write_bytes
    from facekiln.config import load_config
    from facekiln.graph.export import trace_torchscript
    from facekiln.models.checkpoint import load_network
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record

    config = load_config(options.config)
    model = config.model(options.model)
    network = load_network(options.checkpoint, model, config)
    write_bytes(options.output, trace_torchscript(network, model, options.size))
    write_record(
        options.output,
        verb="torchscript trace",
        inputs=[options.checkpoint],
        settings={"model": model.name, "size": list(model.size(options.size))},
        tools=tool_versions("torch"),
    )
    log.info("%s: traced at %s", options.output, model.size(options.size))
