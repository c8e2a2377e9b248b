"""`facekiln onnx`: export, simplify and look into ONNX graphs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.commands import add_config, add_verb

if TYPE_CHECKING:
    from facekiln.config import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    export = add_verb(
        verbs,
        "export",
        _export,
        "export a checkpoint at one fixed input size, with named outputs",
        "facekiln onnx export results/checkpoints/retinaface.pth --model retinaface --size 640"
        " --output r.onnx",
    )
    export.add_argument("checkpoint", type=Path)
    export.add_argument("--model", required=True)
    export.add_argument("--size", required=True, help="a size label of the model")
    export.add_argument(
        "--opset", type=int, help="default: the highest that every chip in config/chips reads"
    )
    export.add_argument("--output", type=Path, required=True)
    add_config(export)
    fetch = add_verb(
        verbs,
        "fetch",
        _fetch,
        "put the file of a model that is born as ONNX in place once it is proved to be that model's",
        "facekiln onnx fetch --model ghostone --mirror ~/weights --output ghostone_112.onnx",
    )
    fetch.add_argument("--model", required=True)
    fetch.add_argument("--output", type=Path, required=True)
    fetch.add_argument(
        "--mirror", type=Path, metavar="FOLDER", help="default: the config's, $FACEKILN_MIRROR"
    )
    add_config(fetch)
    simplify = add_verb(
        verbs,
        "simplify",
        _simplify,
        "fold constants and shape arithmetic, and print what differs",
        "facekiln onnx simplify r.onnx --output r.sim.onnx",
    )
    simplify.add_argument("onnx", type=Path)
    simplify.add_argument("--output", type=Path, required=True)
    inspect = add_verb(
        verbs, "inspect", _inspect, "print opset, interface and op census", "facekiln onnx inspect r.sim.onnx"
    )
    inspect.add_argument("onnx", type=Path, nargs="+")


def _export(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.graph.export import census, export_onnx, save_onnx, shapes
    from facekiln.models.checkpoint import load_network
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record

    config = load_config(options.config)
    model = config.model(options.model)
    opset = options.opset or config.opset()
    network = load_network(options.checkpoint, model, config)
    exported = export_onnx(network, model, options.size, opset)
    save_onnx(exported, options.output)
    write_record(
        options.output,
        verb="onnx export",
        inputs=[options.checkpoint],
        settings={"model": model.name, "size": list(model.size(options.size)), "opset": opset},
        tools=tool_versions("torch", "onnx"),
        facts={
            "shapes": shapes(exported),
            "nodes": len(exported.graph.node),
            **_prior_facts(model, options.size),
        },
    )
    log.info("%s: opset %d, %s", options.output, opset, shapes(exported))
    log.info("ops: %s", ", ".join(f"{op} {count}" for op, count in census(exported).items()))


def _prior_facts(model: Model, label: str) -> dict[str, str]:
    """Return what `facekiln explain` must tell whoever decodes the outputs elsewhere."""
    from facekiln.vision.priors import centre_note

    note = centre_note(model.priors, model.size(label)) if model.priors else None
    return {"priors": note} if note else {}


def _fetch(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.errors import KilnError
    from facekiln.graph.export import load_onnx, shapes
    from facekiln.models.born_onnx import parse_born_onnx
    from facekiln.models.fetch import fetch
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record

    config = load_config(options.config)
    model = config.model(options.model)
    if model.born != "onnx" or model.published is None:
        raise KilnError(
            "is not born as a published ONNX file",
            file=options.config / "models" / f"{model.name}.yaml",
            hint="export its checkpoint: facekiln onnx export",
        )
    fetch(
        model.published,
        options.output,
        options.mirror or config.mirror,
        accept=lambda data, name: parse_born_onnx(data, name, model),
    )
    fetched = load_onnx(options.output)
    opset = max(item.version for item in fetched.opset_import)
    write_record(
        options.output,
        verb="onnx fetch",
        inputs=[],
        settings={"model": model.name, "declaration": model.declaration()},
        tools=tool_versions("onnx"),
        facts={
            "source": model.published.source,
            "url": model.published.url,
            "licence": model.licence,
            "opset": opset,
            "shapes": shapes(fetched),
            "nodes": len(fetched.graph.node),
        },
    )
    log.info("%s: opset %d, %s", options.output, opset, shapes(fetched))


def _simplify(options: argparse.Namespace) -> None:
    from facekiln.graph.export import load_onnx, save_onnx
    from facekiln.graph.simplify import difference, simplify
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record

    before = load_onnx(options.onnx)
    after = simplify(before)
    save_onnx(after, options.output)
    changed = difference(before, after)
    write_record(
        options.output,
        verb="onnx simplify",
        inputs=[options.onnx],
        tools=tool_versions("onnx", "onnxsim"),
        facts={"nodes": list(changed.nodes), "ops": {op: list(pair) for op, pair in changed.ops.items()}},
    )
    log.info("%s: %s", options.output, "\n".join(changed.lines()))


def _inspect(options: argparse.Namespace) -> None:
    from facekiln.graph.export import census, load_onnx, shapes

    for path in options.onnx:
        model = load_onnx(path)
        opsets = ", ".join(f"{item.domain or 'ai.onnx'} {item.version}" for item in model.opset_import)
        sys.stdout.write(f"{path}: opset {opsets}, IR {model.ir_version}, producer {model.producer_name}\n")
        for name, dims in shapes(model).items():
            kind = "input" if any(value.name == name for value in model.graph.input) else "output"
            sys.stdout.write(f"  {kind} {name} {dims}\n")
        sys.stdout.write("  " + ", ".join(f"{op} {count}" for op, count in census(model).items()) + "\n")
