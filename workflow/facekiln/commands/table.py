"""`facekiln table`: tables of figures, one protocol per table."""

from __future__ import annotations

import argparse
from pathlib import Path

from facekiln.commands import add_config, add_verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    accuracy = add_verb(
        verbs,
        "accuracy",
        _accuracy,
        "put evaluations of one protocol into a table, beside their float parents and published figures",
        "facekiln table accuracy results/eval/port/*/*/*/wider_val.json --output results/tables/wider",
    )
    accuracy.add_argument(
        "evaluations", type=Path, nargs="+", help="files of results/eval/, in order of rows"
    )
    accuracy.add_argument(
        "--output", type=Path, metavar="PREFIX", help="writes PREFIX.csv, .md and .html (default: print)"
    )
    accuracy.add_argument("--title", default="Accuracy")
    accuracy.add_argument("--split", action="store_true", help="mixed protocols: one table for each")
    accuracy.add_argument("--results", type=Path, default=Path("results"), help="where artifacts lie")
    add_config(accuracy)


def _accuracy(options: argparse.Namespace) -> None:
    import sys

    from facekiln.evaluation.published import load_published, published_files
    from facekiln.evaluation.stamp import read_evaluation
    from facekiln.evaluation.tables import by_protocol, make_table
    from facekiln.evaluation.tables_text import to_markdown, write_tables
    from facekiln.progress import log
    from facekiln.provenance import write_record

    evaluations = [read_evaluation(path) for path in options.evaluations]
    published = load_published(options.config)
    groups = by_protocol(evaluations) if options.split else [evaluations]
    tables = [make_table(group, published, options.results) for group in groups]
    if options.output is None:
        sys.stdout.write(to_markdown(tables, options.title))
        return
    written = write_tables(options.output, tables, options.title)
    write_record(
        written,
        verb="table accuracy",
        inputs=[*options.evaluations, *published_files(options.config)],
        settings={"title": options.title, "split": options.split},
        facts={"protocols": [table.stamp.id() for table in tables]},
        emulated=any(row.evaluation.subject["emulated"] for table in tables for row in table.rows),
    )
    log.info("%s: %d rows", ", ".join(map(str, written)), len(evaluations))
