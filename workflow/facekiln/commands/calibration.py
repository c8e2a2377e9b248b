"""`facekiln calibration`: the pictures that quantisation is calibrated on."""

from __future__ import annotations

import argparse
from pathlib import Path

from facekiln.commands import add_verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    make = add_verb(
        verbs,
        "make",
        _make,
        "choose pictures by rule and write them at the network's size, with their list and hashes",
        "facekiln calibration make --model retinaface --size 640 --source procedural --count 32"
        " --output results/calibration/retinaface_640",
    )
    make.add_argument("--model", required=True)
    make.add_argument("--size", required=True, help="a size label of the model")
    make.add_argument("--source", default="procedural", help="`procedural`, or a folder of pictures")
    make.add_argument("--count", type=int, default=32, help="how many pictures (vendors advise 20 to 50)")
    make.add_argument("--seed", type=int, default=20)
    make.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    make.add_argument("--config", type=Path, default=Path("config"), metavar="FOLDER")


def _make(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.data.calibration import FACTS, make_calibration
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record

    model = load_config(options.config).model(options.model)
    facts = make_calibration(
        options.output, model, options.size, source=options.source, count=options.count, seed=options.seed
    )
    write_record(
        options.output / FACTS,
        verb="calibration make",
        inputs=[],
        settings={
            "source": options.source,
            "count": options.count,
            "seed": options.seed,
            "size": options.size,
        },
        tools=tool_versions("numpy", "opencv-python-headless"),
        facts={"count": facts["count"], "set_sha256": facts["set_sha256"]},
    )
    log.info("%s: %s pictures, set %s", options.output, facts["count"], str(facts["set_sha256"])[:12])
