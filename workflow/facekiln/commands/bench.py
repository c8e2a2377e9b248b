"""`facekiln bench`: measure artifacts on boards, show records, read a tool's log."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekiln.boards.rule_inputs import LOCAL
from facekiln.commands import add_config, add_verb, end_on_sigterm, seconds

if TYPE_CHECKING:
    from facekiln.boards.runner import Runner
    from facekiln.boards.tools import Request, Tool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    run = add_verb(
        verbs,
        "run",
        _run,
        "measure an artifact; exit status 3 where the board was too noisy",
        "facekiln bench run results/ncnn/retinaface_640.param --board local",
    )
    run.add_argument("artifact", type=Path)
    run.add_argument("--board", required=True, help=f"of config/boards.yaml; '{LOCAL}' is this machine")
    run.add_argument(
        "--wait", type=seconds, default=0.0, metavar="SECONDS", help="for another user of the board"
    )
    run.add_argument(
        "--virtual", action="store_true", help="mark it: a stand-in runs there instead of the chip"
    )
    run.add_argument(
        "--tool", help="default: the first that measures such a file (onnxruntime, ncnn, bmrt_test, ...)"
    )
    run.add_argument("--program", help="the tool's path, where it is not found by its name")
    run.add_argument("--model", help="default: by the artifact's name")
    run.add_argument("--size", help="a size label of the model; default: by the artifact's name")
    run.add_argument("--loops", type=int, default=50, help="counted runs per repeat (default: %(default)s)")
    run.add_argument(
        "--warm-up", type=int, default=10, metavar="N", help="uncounted runs (default: %(default)s)"
    )
    run.add_argument("--repeats", type=int, default=5, help="runs of the whole tool (default: %(default)s)")
    run.add_argument(
        "--retries", type=int, default=2, help="attempts more while noisy (default: %(default)s)"
    )
    run.add_argument("--threads", type=int, default=2, help="of a processor's runtime (default: %(default)s)")
    run.add_argument("--cool-down", type=seconds, default=0.5, metavar="SECONDS", help="before each repeat")
    run.add_argument("--timeout", type=seconds, default=600.0, metavar="SECONDS", help="of one repeat")
    run.add_argument("--keep-noisy", action="store_true", help="exit status 0 for a noisy measurement too")
    run.add_argument("--output", type=Path, metavar="JSON", help="default: results/bench/BOARD/ARTIFACT.json")
    add_config(run)

    show = add_verb(
        verbs,
        "show",
        _show,
        "print records as a table",
        "facekiln bench show results/bench/local/ncnn/*.json",
    )
    show.add_argument("records", type=Path, nargs="+")

    table = add_verb(
        verbs,
        "table",
        _table,
        "write records as a table, accuracy beside them; what is slower and not better is marked",
        "facekiln bench table results/bench/local/ncnn/*.json --evaluations results/eval/voc/ncnn/*/*/*.json"
        " --output results/tables/latency",
    )
    table.add_argument("records", type=Path, nargs="+")
    table.add_argument("--evaluations", type=Path, nargs="+", default=[], metavar="JSON")
    table.add_argument("--title", default="Latency")
    table.add_argument(
        "--output", type=Path, required=True, metavar="PREFIX", help="PREFIX.csv and PREFIX.md"
    )

    read = add_verb(
        verbs,
        "read",
        _read,
        "print the figures of a benchmark tool's log as JSON: of one run by hand, or all runs of `bench run`",
        "facekiln bench read board.log --tool bmrt_test --batch 4",
    )
    read.add_argument("file", type=Path, help="standard output or both streams; or a log of `bench run`")
    read.add_argument("--stderr", type=Path, metavar="FILE", help="standard error, of tm_benchmark")
    read.add_argument("--tool", required=True, metavar="NAME", help="bmrt_test, mm_run, tm_benchmark, ...")
    read.add_argument("--batch", type=int, help="images per run, where no log or record beside it tells")
    read.add_argument("--calculate-times", type=int, default=1, metavar="N", help="of bmrt_test")
    read.add_argument("--warm-up", type=int, default=0, metavar="N", help="loops of bmrt_test to leave out")


def _run(options: argparse.Namespace) -> int:
    from facekiln.artifact import check_writable
    from facekiln.boards.bench import Plan, bench_file, run_bench
    from facekiln.boards.tools import tool_for
    from facekiln.boards.verdict import NOISY
    from facekiln.errors import GateError
    from facekiln.provenance import read_record, write_record
    from facekiln.targets import RESULTS

    artifact: Path = options.artifact
    tool = tool_for(artifact, options.tool)
    output = options.output or bench_file(RESULTS, options.board, artifact)
    check_writable(output)
    made = read_record(artifact)
    end_on_sigterm()
    with _place(options, tool) as (runner, request):
        record = run_bench(
            runner,
            tool,
            request,
            board=options.board,
            artifact=artifact,
            output=output,
            plan=Plan(options.repeats, options.retries, options.cool_down, options.timeout),
            virtual=options.virtual or _is_virtual(options) or bool(made and made.emulated),
        )
    write_record(
        output,
        verb="bench run",
        inputs=[artifact],
        settings={**record["request"], **record["plan"]},
        tools={record["tool"]: record["tool_version"] or "unknown"},
        facts=record["result"],
        emulated=record["virtual"],
    )
    _print([record])
    if record["verdict"] == NOISY and not options.keep_noisy:
        raise GateError(
            f"noisy: rejected: {'; '.join(record['reasons'])}",
            file=output,
            hint="stop other work on the board, fix its clocks, and run it again; the record is kept",
        )
    return 0


def _is_virtual(options: argparse.Namespace) -> bool:
    from facekiln.boards.settings import load_board

    return options.board != LOCAL and load_board(options.board, options.config).virtual


@contextmanager
def _place(options: argparse.Namespace, tool: Tool) -> Iterator[tuple[Runner, Request]]:
    """Yield where to run, and the request for it."""
    from facekiln.boards.runner import LocalRunner
    from facekiln.boards.tools import Request, batch_and_cores_of, precision_of
    from facekiln.config import load_config
    from facekiln.targets import model_and_size_of

    config = load_config(options.config)
    model, size = options.model, options.size
    if model is None or size is None:
        found = model_and_size_of(options.artifact, config)
        model, size = model or found[0], size or found[1]
    height, width = config.model(model).size(size)
    batch, cores = batch_and_cores_of(options.artifact)
    request = Request(
        path=str(options.artifact.resolve()),
        shape=(batch, 3, height, width),
        loops=options.loops,
        warm_up=options.warm_up,
        threads=options.threads,
        cores=cores,
        dtype=precision_of(options.artifact),
        python=sys.executable,
        program=options.program,
    )
    if options.board == LOCAL:
        yield LocalRunner(), request
        return
    from facekiln.boards.bench_board import measuring_on
    from facekiln.boards.settings import load_board

    board = load_board(options.board, options.config)
    with measuring_on(
        board, tool, options.artifact, request, wait=options.wait, folder=options.config
    ) as place:
        yield place


def _show(options: argparse.Namespace) -> None:
    from facekiln.boards.bench import read_bench

    _print([read_bench(path) for path in options.records if not path.name.endswith(".kiln.json")])


def _table(options: argparse.Namespace) -> None:
    from facekiln.artifact import write_text
    from facekiln.boards.bench import read_bench
    from facekiln.boards.latency_table import rows_of, to_csv, to_markdown
    from facekiln.evaluation.stamp import read_evaluation
    from facekiln.evaluation.tables import one_protocol

    evaluations = [read_evaluation(path) for path in options.evaluations]
    if evaluations:
        one_protocol(evaluations)
    records = [path for path in options.records if not path.name.endswith(".kiln.json")]
    rows = rows_of([read_bench(path) for path in records], evaluations)
    text = to_markdown(rows, options.title)
    write_text(options.output.with_name(f"{options.output.name}.csv"), to_csv(rows))
    write_text(options.output.with_name(f"{options.output.name}.md"), text)
    sys.stdout.write(text)


def _print(records: list[dict[str, Any]]) -> None:
    head = ("artifact", "board", "batch", "ms/image", "95 %", "p99 ms", "images/s", "verdict")
    rows = [head]
    for record in records:
        result, interval = record["result"], record["result"]["interval_95_ms"]
        half = "-"
        if interval is not None:
            half = f"+-{(interval['high'] - interval['low']) / 2 / result['latency_ms']:.1%}"
        percentiles = result["over_all_runs_ms"].get("percentiles", {})
        p99 = f"{percentiles['99']:.2f}" if "99" in percentiles else "-"
        name = f"{record['board']} (VIRTUAL)" if record["virtual"] else record["board"]
        figures = (f"{result['per_image_ms']:.3f}", half, p99, f"{result['images_per_second']:.1f}")
        rows.append((Path(record["artifact"]).name, name, str(record["batch"]), *figures, record["verdict"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        sys.stdout.write(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
        sys.stdout.write("\n")
    for record in records:
        for note in (*record["reasons"], *record["notes"]):
            sys.stdout.write(f"{Path(record['artifact']).name}: {note}\n")


def _read(options: argparse.Namespace) -> None:
    import json

    from facekiln.boards.read_log import Asked, read_log

    asked = Asked(options.batch, options.calculate_times, options.warm_up)
    value = read_log(options.file, options.tool, asked, options.stderr)
    sys.stdout.write(json.dumps(value[0] if len(value) == 1 else value, indent=2, sort_keys=True) + "\n")
