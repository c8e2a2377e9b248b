"""`facekiln magicmind table`: throughput by card and accuracy by mode, published figures beside."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facekiln.commands import add_config, add_verb


def add_table_verb(verbs: Any) -> None:
    """Add the verb that makes the two tables of the vendor's sample to the noun's subparsers."""
    table = add_verb(
        verbs,
        "table",
        _table,
        "put measurements and evaluations of MagicMind files into the two tables of Cambricon's sample",
        "facekiln magicmind table --evaluations"
        " results/eval/voc/onnxruntime/onnx/retinaface_640.sim.onnx/procedural.json"
        " results/eval/voc/magicmind-emulator/*/*_1b.mm/*.json --records results/bench/*/magicmind/*.json",
    )
    table.add_argument("--records", type=Path, nargs="+", default=[], help="of `facekiln bench run`")
    table.add_argument(
        "--evaluations", type=Path, nargs="+", default=[], help="of .mm files, and of the ONNX behind them"
    )
    table.add_argument(
        "--output",
        type=Path,
        metavar="PREFIX",
        help="writes PREFIX.csv, _ap.csv, .md, .html (default: print)",
    )
    table.add_argument("--results", type=Path, default=Path("results"), help="where artifacts lie")
    add_config(table)


def _table(options: argparse.Namespace) -> None:
    import sys

    from facekiln.boards.bench import read_bench
    from facekiln.boards.settings import load_boards
    from facekiln.chips.magicmind.published import load_throughput
    from facekiln.chips.magicmind.settings import load_settings
    from facekiln.chips.magicmind.table import make_tables
    from facekiln.chips.magicmind.table_text import to_markdown, write_tables
    from facekiln.config import load_config
    from facekiln.evaluation.published import load_published, published_files
    from facekiln.evaluation.stamp import read_evaluation
    from facekiln.progress import log
    from facekiln.provenance import write_record

    records = [path for path in options.records if not path.name.endswith(".kiln.json")]
    evaluations = [path for path in options.evaluations if not path.name.endswith(".kiln.json")]
    tables = make_tables(
        load_settings(options.config),
        load_config(options.config),
        [read_bench(path) for path in records],
        {name: board.chip for name, board in load_boards(options.config).items()},
        [read_evaluation(path) for path in evaluations],
        load_throughput(options.config),
        load_published(options.config),
        options.results,
    )
    if options.output is None:
        sys.stdout.write(to_markdown(tables))
        return
    written = write_tables(options.output, tables)
    write_record(
        written,
        verb="magicmind table",
        inputs=[*records, *evaluations, *published_files(options.config)],
        facts={"protocols": {name: stamp.id() for name, stamp in tables.precision.protocols.items()}},
        emulated=any(row.evaluations for row in tables.precision.rows),
    )
    log.info(
        "%s: %d rows of throughput, %d of accuracy",
        ", ".join(map(str, written)),
        len(tables.speed.rows),
        len(tables.precision.rows),
    )
