"""`bmrt_test` of libsophon: its command line, and its log in three generations.

What the figures mean (libsophon, tpu-runtime/app/bmrt_test.cpp, and the vendor's tpu-perf):

- `--loopnum N` prints N blocks for each net and stage, one launch each.
- `--calculate_times N` prints one block whose calculate time is the *total* of N launches, while the launch
  note beside it ("launch total time is ... us") is already divided by N. The two are held against each
  other here, so that a wrong N is noticed.
- Each launch handles one batch.
- `npu` and `cpu` (older: `normal`) of the launch note add up to its total.
"""

from __future__ import annotations

from collections.abc import Sequence

from facekiln.boards.log_lines import fail
from facekiln.boards.timing import Stats, Timing, quantile, stats_of
from facekiln.chips.sophon.bmrt_log import PARTS, TOOL, Block, BmrtLog, Stage, groups, parse
from facekiln.errors import KilnError

__all__ = ["BmrtLog", "command", "parse", "timing"]

# The calculate time encloses the launches that the note times, in real logs by 2 to 10 us (shares and us).
_BELOW, _ABOVE = (0.01, 5.0), (0.03, 50.0)
# What one launch may take longer that the system interrupted between the two clocks.
_OUTLIER = (0.5, 1000.0)


def command(
    bmodel: str,
    *,
    loops: int = 1,
    calculate_times: int = 1,
    device: int = 0,
    cores: Sequence[int] = (),
    net: int | None = None,
    stage: int | None = None,
    shapes: Sequence[Sequence[int]] = (),
    program: str = "bmrt_test",
) -> list[str]:
    """Return the arguments, each unquoted: quote them for the shell that they go through (`shlex.join`).

    Args:
        bmodel: path on the board.
        loops: `--loopnum`: as many blocks.
        calculate_times: launches per block.
        device: of a card; 0 on a board.
        cores: that share the work of a model compiled for several.
        net, stage: to run only one.
        shapes: of the inputs, for a dynamic model.
        program: name or path.

    Raises:
        KilnError: a count is below 1, or a core is named twice.
    """
    for name, value in (("loops", loops), ("calculate_times", calculate_times)):
        if value < 1:
            raise KilnError("must be at least 1", where=f"{TOOL}: {name}", value=value)
    if len(set(cores)) != len(cores):
        raise KilnError("names a core twice", where=f"{TOOL}: cores", value=list(cores))
    arguments = [program, "--bmodel", bmodel, "--devid", str(device), "--loopnum", str(loops)]
    if calculate_times > 1:
        arguments += ["--calculate_times", str(calculate_times)]
    if cores:
        arguments += ["--core_list", ",".join(str(core) for core in cores)]
    if net is not None:
        arguments += ["--net_idx", str(net)]
    if stage is not None:
        arguments += ["--stage_idx", str(stage)]
    if shapes:
        arguments += ["--shapes", ",".join("[" + ",".join(map(str, shape)) + "]" for shape in shapes)]
    return arguments


def timing(
    log: BmrtLog,
    *,
    batch: int | None = None,
    calculate_times: int = 1,
    warm_up: int = 0,
    sessions: int = 1,
    net: str | None = None,
    stage: int | None = None,
) -> Timing:
    """Return the figures of one net and stage.

    Args:
        log: what `parse` read.
        batch: images per launch; where the log shows the input's shape it must agree, else it must be given.
        calculate_times: what the option was.
        warm_up: blocks to leave out at the start; one at least must stay.
        sessions: parallel sessions of the same model, of `--core_list 0:1`.
        net, stage: needed where the log holds several.

    Raises:
        KilnError: net or stage is not clear, the batch is unknown or another, or the calculate time is not
            `calculate_times` launches.
    """
    chosen = {
        key: blocks
        for key, blocks in groups(log.blocks).items()
        if net in (None, key[0]) and stage in (None, key[1])
    }
    if len(chosen) != 1:
        names = ", ".join(f"{known}/{its_stage}" for known, its_stage in groups(log.blocks))
        raise fail(
            TOOL, "say which net and stage is meant", value=f"net={net} stage={stage}", hint=f"of: {names}"
        )
    ((name, number), blocks) = next(iter(chosen.items()))
    shown = log.stages.get((name, number)) if name is not None and number is not None else None
    batch = _batch(shown, batch)
    _check_totals(blocks, calculate_times)
    for block in blocks:
        if block.sessions != sessions:
            raise fail(TOOL, "the note shows other sessions than were asked for", block.line, block.sessions)
    kept = blocks[warm_up:]
    if not kept:
        raise fail(
            TOOL, "no block is left after the warm-up", value=f"{len(blocks)} blocks, {warm_up} of warm-up"
        )

    seconds = {part: [block.seconds.get(part) for block in kept] for part in PARTS}
    latency = _in_ms(seconds["calculate"], 1000 / calculate_times, calculate_times)
    if latency is None:
        raise fail(TOOL, "there is no calculate time")
    parts = {
        "load_input": _in_ms(seconds["load input"], 1000),
        "get_output": _in_ms(seconds["get output"], 1000),
        "npu": _in_ms([block.npu_us for block in kept], 0.001, calculate_times),
        "host": _in_ms([block.host_us for block in kept], 0.001, calculate_times),
    }
    return Timing(
        tool=TOOL,
        tool_version=log.versions.get("runtime"),
        label="" if name is None else f"{name}/{number}",
        measures="launch to synchronisation on the device, host clock, without copies",
        latency=latency,
        batch=batch * sessions,
        runs=len(kept) * calculate_times,
        parts={key: stats for key, stats in parts.items() if stats is not None},
        facts=dict(log.versions),
        notes=()
        if warm_up or calculate_times > 1
        else ("the first launch is counted: there was no warm-up",),
    )


def _in_ms(values: Sequence[float | None], factor: float, runs_per_sample: int = 1) -> Stats | None:
    known = [value * factor for value in values if value is not None]
    return stats_of(known, runs_per_sample) if len(known) == len(values) else None


def _batch(shown: Stage | None, given: int | None) -> int:
    if shown is None or not shown.inputs:
        if given is None:
            raise fail(TOOL, "the log does not show the batch", hint="give the batch of the bmodel")
        return given
    leading = shown.inputs[0].shape[0]
    if given is not None and given != leading:
        raise fail(
            TOOL, f"the log is of a bmodel of batch {leading}", value=given, hint="was it the right file?"
        )
    return leading


def _allowed(launch: float, share_and_us: tuple[float, float]) -> float:
    return max(share_and_us[0] * launch, share_and_us[1])


def _check_totals(blocks: Sequence[Block], calculate_times: int) -> None:
    """Hold calculate times against launch notes: each roughly, the median closely.

    Two sessions in parallel are only held roughly: their note adds the cores' times up.
    """
    excesses = []
    for block in blocks:
        if block.launch_us is None:
            continue
        launch = float(block.launch_us)
        excess = block.seconds["calculate"] * 1e6 / calculate_times - launch
        excesses.append(excess / _allowed(launch, _ABOVE))
        low = -_allowed(launch, _BELOW if block.sessions == 1 else _OUTLIER)
        if not low <= excess <= _allowed(launch, _OUTLIER):
            raise _not_total(block, calculate_times)
    closely = excesses and blocks[0].sessions == 1
    if closely and quantile(sorted(excesses), 0.5) > 1:
        raise _not_total(blocks[0], calculate_times)


def _not_total(block: Block, calculate_times: int) -> KilnError:
    return fail(
        TOOL,
        f"the calculate time is not {calculate_times} times the launch time of {block.launch_us} us",
        block.line,
        f"{block.seconds['calculate']:.6f} s",
        hint="give --calculate_times as it was run; else the log is damaged",
    )
