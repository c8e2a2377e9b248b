"""What vendors' benchmark tools print, in their own form, for times that a stand-in measured.

Forms: libsophon's bmrt_test (third generation), MagicMind's mm_run (sample README of 2022), Tengine Lite's
tm_benchmark (format strings of its source), the NNIE driver's /proc/umap/nnie. Each begins with a line that
tells what it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MARK = "facekiln VIRTUAL board: a stand-in executed the artifact on this machine; not the chip's time"


def _named(shape: Sequence[int]) -> str:
    return "[ " + " ".join(map(str, shape)) + " ]"


def bmrt_head(
    net: str,
    inputs: Sequence[tuple[str, Sequence[int]]],
    outputs: Sequence[tuple[str, Sequence[int]]],
    version: str,
    loops: int,
) -> str:
    """Return what bmrt_test prints before the first launch."""
    lines = [
        MARK,
        f"[BMRT][deal_with_options:1446] INFO:Loop num: {loops}",
        f"[BMRT][load_bmodel:1704] INFO:Bmodel loaded, version {version}",
        "[BMRT][load_bmodel:1706] INFO:pre net num: 0, load net num: 1",
        f"[BMRT][show_net_info:1522] INFO: NetName: {net}, Index=0",
        "[BMRT][show_net_info:1524] INFO: ---- stage 0 ----",
    ]
    for end, listed, line in (("Input", inputs, 1532), ("Output", outputs, 1541)):
        lines += [
            f"[BMRT][show_net_info:{line}] INFO:   {end} {place}) '{name}' shape={_named(shape)}"
            " dtype=FLOAT32"
            for place, (name, shape) in enumerate(listed)
        ]
    return "\n".join(lines) + "\n"


def bmrt_loop(net: str, number: int, microseconds: int) -> str:
    """Return one launch's block, microseconds for a batch."""
    note = f"launch total time is {microseconds} us (npu {microseconds} us, cpu 0 us)"
    seconds = microseconds / 1e6
    lines = [
        f"[BMRT][bmrt_test:1164] INFO:==> running network #0, name: {net}, loop: {number}",
        f"[BMRT][bmrt_test:1250] INFO:net[{net}] stage[0], {note}",
        "[BMRT][bmrt_test:1362] INFO:load input time(s): 0.000000",
        "[BMRT][bmrt_test:1363] INFO:pre alloc  time(s): 0.000000",
        f"[BMRT][bmrt_test:1364] INFO:calculate  time(s): {seconds:.6f}",
        "[BMRT][bmrt_test:1365] INFO:get output time(s): 0.000000",
        "[BMRT][bmrt_test:1366] INFO:compare    time(s): 0.000000",
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    """Return mm_run's columns: five significant digits, padded."""
    ranked = np.asarray(values, np.float64)
    named = [
        ("min:", ranked.min()),
        ("max:", ranked.max()),
        ("mean:", ranked.mean()),
        ("median:", np.median(ranked)),
        *((f"({level}%)", np.percentile(ranked, level)) for level in (90, 95, 99)),
    ]
    columns = [f"{name} {float(value):<10.5g}" for name, value in named]
    return " ".join([*columns[:4], "percentile:", *columns[4:]]).rstrip()


def mm_run_report(
    model: str, dims: Sequence[int], milliseconds: Sequence[float], wall: float, batch: int, threads: int
) -> str:
    """Return mm_run's log of some iterations, milliseconds each, in `wall` seconds."""
    count = len(milliseconds)
    images, total = count * batch, sum(milliseconds) / 1e3
    per_second = count / wall
    lines = [
        MARK,
        "==================== Parameter Information",
        f"--magicmind_model<Str>        : {model}",
        f"--batch_size<Vec<Int>>        : {batch}",
        "--devices<Vec<Int>>           : 0",
        f"--threads<Int>                : {threads}",
        f"--iterations<Int>             : {count}",
        "--trace_time<Str>             : host",
        "MagicMind: virtual",
        "=================== Model Information",
        "Input num: 1",
        "=================== Device Information",
        "Device ID:                    0",
        "=================== Performance Summary",
        f"Total iterations:             {count}",
        f"Host wall time(s):            {wall:.6g}",
        f"Total MLU compute time(host clock, s): {total:.6g}",
        f"Throughput (qps):             {per_second * batch:.6g} with total batch sizes: {images} and"
        f" {per_second:.6g} iterations/second",
        f"Input shape group 0: [input: [{', '.join(map(str, dims))}]]",
        # Nothing is copied to a card.
        "  H2D Summary:",
        f"  Latency(host clock, ms):    {_spread([0.0])}",
        f"  Interface Duration(ms):     {_spread([0.0])}",
        "  MLU Compute (Launch jobs) Summary:",
        f"  Latency(host clock, ms):    {_spread(milliseconds)}",
        f"  Interface Duration(ms):     {_spread(milliseconds)}",
        "  D2H Summary:",
        f"  Latency(host clock, ms):    {_spread([0.0])}",
        "  Total Latency Summary(H2D + Compute + D2H):",
        f"  Latency(host clock, ms):    {_spread(milliseconds)}",
        f"Trace average MLU Compute perf over {count} runs ({count} per thread):",
        f"  Latency(host clock, ms): {sum(milliseconds) / count:.6g}    Interface Duration(ms): 0",
    ]
    return "\n".join(lines) + "\n"


def tm_head(loops: int, threads: int) -> str:
    """Return what tm_benchmark prints on standard output before its runs."""
    return (
        f"{MARK}\nTengine benchmark:\n  loops:    {loops}\n  threads:  {threads}\n  cluster:  0\n"
        "  affinity: 0xFFFFFFFF\n  device:   CPU\nTengine-lite library version: virtual\n"
    )


def tm_result(name: str, milliseconds: Sequence[float]) -> str:
    """Return what tm_benchmark prints on standard error for a model, in milliseconds."""
    low, high, mean = min(milliseconds), max(milliseconds), sum(milliseconds) / len(milliseconds)
    columns = f"min = {low:7.2f} ms   max = {high:7.2f} ms   avg = {mean:7.2f} ms"
    return f"{name:>20}  {columns}\nALL TEST DONE.\n"


def nnie_snapshot(microseconds: int, longest: int, forwards: int) -> str:
    """Return /proc/umap/nnie after a task that took so long."""
    return (
        "[NNIE] Version: [facekiln VIRTUAL], Build Time[]\n\n"
        "-------------------------NNIE RUN-TIME INFO-----------------------------------\n"
        "  LastInst     CostTm    MCostTm  CostTmPerSec  MCostTmPerSec  TotalIntCostTm     RunTm\n"
        f"         0 {microseconds:10d} {longest:10d}             0              0               0"
        "         0\n"
        "-------------------------NNIE INVOKE INFO-------------------------------------\n"
        "   Forward  ForwardWithBbox  CfgErrCnt  STCnt\n"
        f"{forwards:10d}                0          0      0\n"
    )
