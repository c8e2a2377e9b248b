"""`facekiln sophon table`: one model's files on every chip, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facekiln.commands import add_config, add_verb


def add_table_verb(verbs: Any) -> None:
    """Add the verb that makes the table of the vendor's sample to the noun's subparsers."""
    table = add_verb(
        verbs,
        "table",
        _table,
        "put bmodels of one model into a table: size, similarity, accuracy, memory, the compiler's estimate",
        "facekiln sophon table results/sophon/*/retinaface_640_*.bmodel --output results/tables/sophon",
    )
    table.add_argument("bmodel", type=Path, nargs="+", help="named as the workflow does, in order of rows")
    table.add_argument(
        "--output", type=Path, metavar="PREFIX", help="writes PREFIX.csv, .md and .html (default: print)"
    )
    table.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="where evaluations and parity reports lie; cells of those that do not are empty",
    )
    table.add_argument(
        "--parity", action="store_true", help="figures of parity reports too, whatever the config says"
    )
    add_config(table)


def _table(options: argparse.Namespace) -> None:
    import sys
    from dataclasses import replace

    from facekiln.chips.sophon.demo_figures import load_demo
    from facekiln.chips.sophon.demo_table import make_demo_table, sources_of, table_settings
    from facekiln.chips.sophon.demo_table_text import to_markdown, write_demo_table
    from facekiln.chips.sophon.settings import load_settings
    from facekiln.config import load_config
    from facekiln.errors import KilnError
    from facekiln.evaluation.published import published_files
    from facekiln.progress import log
    from facekiln.provenance import write_record

    config, settings = load_config(options.config), load_settings(options.config)
    declared = table_settings(config, settings)
    if declared is None:
        raise KilnError("no table is declared", file=options.config / "chips" / "sophon.yaml", where="table")
    declared = replace(declared, parity=declared.parity or options.parity)
    table = make_demo_table(
        options.bmodel, declared, config, settings, load_demo(options.config), options.results
    )
    if options.output is None:
        sys.stdout.write(to_markdown(table))
        return
    written = write_demo_table(options.output, table)
    write_record(
        written,
        verb="sophon table",
        inputs=[*options.bmodel, *sources_of(table, options.results), *published_files(options.config)],
        settings={"model": declared.model, "size": declared.size},
        facts={"protocols": {name: stamp.id() for name, stamp in table.protocols.items()}},
    )
    log.info("%s: %d rows", ", ".join(map(str, written)), len(table.rows))
