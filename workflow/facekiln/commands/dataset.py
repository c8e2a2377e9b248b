"""`facekiln dataset`: the declared datasets: where they are, what is wrong with them, how even they are."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekiln.commands import add_config, add_verb

if TYPE_CHECKING:
    from facekiln.data.declared import Declared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    every = add_verb(
        verbs, "list", _list, "list the declared datasets and which are here", "facekiln dataset list"
    )
    add_config(every)

    check = _of_one(
        verbs,
        "check",
        _check,
        "compare a dataset with its declaration, look at every picture, box and landmark, and report",
        "facekiln dataset check wider_val",
    )
    check.add_argument(
        "--quick", action="store_true", help="annotations only: no picture is read, nothing is written"
    )
    check.add_argument("--jobs", type=_positive, default=2, help="pictures read at once (default 2)")

    sizes = _of_one(
        verbs,
        "histogram",
        _histogram,
        "count faces by size before and after small ones are left out",
        "facekiln dataset histogram wider_val --least 10 --measure original",
    )
    sizes.add_argument(
        "--least", type=float, help="pixels that both sides must have (default: as declared, or 10)"
    )
    sizes.add_argument(
        "--measure", choices=("original", "input"), help="where (default: as declared, or original)"
    )
    sizes.add_argument(
        "--input",
        type=_height_width,
        metavar="HxW",
        help="the network's size for `--measure input` (240x320)",
    )

    declare = add_verb(
        verbs,
        "declare",
        _declare,
        "count and hash a dataset that is here, and print its entry for config/datasets.yaml",
        "facekiln dataset declare wider_train --kind wider_label --folder /data/wider/train "
        "--annotation label.txt --licence 'research only'",
    )
    declare.add_argument("dataset", help="the name that it shall have")
    declare.add_argument("--kind", required=True, help="its layout, see docs/datasets.md")
    declare.add_argument("--folder", type=Path, required=True)
    declare.add_argument("--images", default="images", help="below --folder (default images)")
    declare.add_argument(
        "--annotation", action="append", required=True, metavar="PATH", help="below --folder; may be repeated"
    )
    declare.add_argument("--licence", required=True, help="what may be done with it, in a line")


def _of_one(verbs: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    parser = add_verb(verbs, name, run, summary, example)
    parser.add_argument("dataset", help="a name of config/datasets.yaml")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: results/datasets/DATASET")
    add_config(parser)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _height_width(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found or "0" in found.groups():
        raise argparse.ArgumentTypeError(f"'{text}' is not like 240x320")
    return int(found[1]), int(found[2])


def _declared(options: argparse.Namespace) -> Declared:
    from facekiln.data.declared import declared_set

    return declared_set(options.dataset, options.config)


def _declare(options: argparse.Namespace) -> None:
    from facekiln.data.declare import as_yaml, declare

    entry = declare(
        options.dataset, options.kind, options.folder, options.images, options.annotation, options.licence
    )
    sys.stdout.write(as_yaml(options.dataset, entry))


def _list(options: argparse.Namespace) -> None:
    from facekiln.data.declared import load_datasets

    rows = [["dataset", "kind", "pictures", "faces", "annotations here", "licence"]]
    for name, declared in load_datasets(options.config).items():
        expected = declared.expected
        faces = "drawn" if expected.faces is None else f"{expected.faces:,}"
        missing = declared.missing()
        here = f"no: {missing[0]}" if missing else "yes"
        rows.append([name, declared.kind, f"{expected.images:,}", faces, here, declared.licence])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")


def _check(options: argparse.Namespace) -> None:
    from facekiln.data.audit import audit, refuse_faults
    from facekiln.data.declared import open_dataset
    from facekiln.data.report import REPORT, audit_text, write_audit

    declared = _declared(options)
    result = audit(declared, open_dataset(declared), pictures=not options.quick, jobs=options.jobs)
    if options.quick:
        sys.stdout.write(audit_text(result))
        refuse_faults(result, options.config / "datasets.yaml")
        return
    folder = options.output or Path("results/datasets") / declared.name
    files, text = write_audit(result, folder)
    _record(files, "dataset check", declared, {"kept": result.record()["kept"]})
    sys.stdout.write(text)
    refuse_faults(result, folder / REPORT)


def _histogram(options: argparse.Namespace) -> None:
    from facekiln.data.audit import audit
    from facekiln.data.declared import SmallFaces, open_dataset
    from facekiln.data.report import sizes_of, write_sizes

    declared = _declared(options)
    given = {key: getattr(options, key) for key in ("least", "measure", "input")}
    small = replace(
        declared.small_faces or SmallFaces(),
        **{key: value for key, value in given.items() if value is not None},
    )
    result = audit(declared, open_dataset(declared), pictures=small.measure == "input")
    histogram = sizes_of(result, small)
    files = write_sizes(histogram, options.output or Path("results/datasets") / declared.name)
    faces = {"before": int(histogram.before.sum()), "after": int(histogram.after.sum())}
    _record(files, "dataset histogram", declared, faces, small_faces=asdict(small))
    sys.stdout.write(histogram.text())


def _record(files: list[Path], verb: str, declared: Declared, facts: dict[str, Any], **settings: Any) -> None:
    from facekiln.provenance import tool_versions, write_record

    read = [path for path in declared.files() if path.is_file()]
    write_record(
        files,
        verb=verb,
        inputs=read,
        settings={"dataset": declared.name, "declaration": declared.digest(), **settings},
        tools=tool_versions("numpy", "opencv-python-headless"),
        facts=facts,
    )
