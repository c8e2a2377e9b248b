"""The log of bmrt_test, on forms that were printed by real boards or stand in the vendor's guides."""

# ruff: noqa: E501 (lines as they were printed)

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.sophon.bmrt_test import BmrtLog, command, parse, timing
from facekiln.errors import KilnError

# TPU-MLIR quick start, "Check the performance of BModel"; the launch note is filled in.
MLIR_GUIDE = """\
[BMRT][load_bmodel:983] INFO:pre net num: 0, load net num: 1
[BMRT][show_net_info:1358] INFO: ########################
[BMRT][show_net_info:1359] INFO: NetName: yolov5s, Index=0
[BMRT][show_net_info:1361] INFO: ---- stage 0 ----
[BMRT][show_net_info:1369] INFO:   Input 0) 'images' shape=[ 1 3 640 640 ] dtype=FLOAT32
[BMRT][show_net_info:1378] INFO:   Output 0) '350_Transpose_f32' shape=[ 1 3 80 80 85 ] ...
[BMRT][show_net_info:1378] INFO:   Output 1) '498_Transpose_f32' shape=[ 1 3 40 40 85 ] ...
[BMRT][show_net_info:1378] INFO:   Output 2) '646_Transpose_f32' shape=[ 1 3 20 20 85 ] ...
[BMRT][show_net_info:1381] INFO: ########################
[BMRT][bmrt_test:770] INFO:==> running network #0, name: yolov5s, loop: 0
[BMRT][bmrt_test:834] INFO:reading input #0, bytesize=4915200
[BMRT][print_array:702] INFO:  --> input_data: < 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 ...
[BMRT][bmrt_test:982] INFO:reading output #0, bytesize=6528000
[BMRT][bmrt_test:1014] INFO:net[yolov5s] stage[0], launch total time is 4122 us{shares}
[BMRT][bmrt_test:1017] INFO:+++ The network[yolov5s] stage[0] output_data +++
[BMRT][print_array:702] INFO:output data #0 shape: [1 3 80 80 85 ] < 0.301003    ...
[BMRT][bmrt_test:1058] INFO:load input time(s): 0.008914
[BMRT][bmrt_test:1059] INFO:calculate  time(s): 0.004132
[BMRT][bmrt_test:1060] INFO:get output time(s): 0.012603
[BMRT][bmrt_test:1061] INFO:compare    time(s): 0.006514
"""
# The four forms of its translations and releases.
SHARES = ("", " (npu 4009 us, cpu 113 us)", " (npu 4009 us, normal 113 us)", " (npu 4009 normal 113 us)")

# libsophon guide, newer release.
LIBSOPHON = """\
[BMRT][bmrt_test:1250] INFO:net[resnet50-v2] stage[0], launch total time is 6996 us (npu 6801 us, cpu 195 us), (launch func time 164 us, sync 6834 us)
[BMRT][bmrt_test:1257] INFO:+++ The network[resnet50-v2] stage[0] output_data +++
[BMRT][print_array:766] INFO:output data #0 shape: [1 1000 ] < -0.437744 2.16406 ... > len=1000
[BMRT][bmrt_test:1271] INFO:==>comparing output in mem #0 ...
[BMRT][bmrt_test:1304] INFO:+++ The network[resnet50-v2] stage[0] cmp success +++
[BMRT][bmrt_test:1319] INFO:load input time(s): 0.008669
[BMRT][bmrt_test:1320] INFO:pre alloc  time(s): 0.000974
[BMRT][bmrt_test:1321] INFO:calculate  time(s): 0.006998
[BMRT][bmrt_test:1322] INFO:get output time(s): 0.000076
[BMRT][bmrt_test:1323] INFO:compare    time(s): 0.000845
"""

# A user's BM1684X board, yolov5s int8, only the end of the log, with what `time` adds.
USER = """\
[BMRT][bmrt_test:1362] INFO:load input time(s): 0.008165
[BMRT][bmrt_test:1363] INFO:pre alloc  time(s): 0.000031
[BMRT][bmrt_test:1364] INFO:calculate  time(s): 0.003735
[BMRT][bmrt_test:1365] INFO:get output time(s): 0.006268
[BMRT][bmrt_test:1366] INFO:compare    time(s): 0.005704

real    0m0.107s
"""


def _loops(values: list[int], declared: int | None = None) -> str:
    """Return a log of one net with these launch times in microseconds (format strings of libsophon)."""
    lines = [f"[BMRT][deal_with_options:1378] INFO:Loop num: {declared or len(values)}"]
    lines += ["[BMRT][show_net_info:1359] INFO: NetName: slim, Index=0"]
    lines += ["[BMRT][show_net_info:1361] INFO: ---- stage 0 ----"]
    lines += [
        "[BMRT][show_net_info:1369] INFO:   Input 0) 'input' shape=[ 4 3 240 320 ] dtype=INT8 scale=0.5"
    ]
    for loop, value in enumerate(values):
        lines += [
            f"[BMRT][bmrt_test:770] INFO:==> running network #0, name: slim, loop: {loop}",
            f"[BMRT][bmrt_test:1014] INFO:net[slim] stage[0], launch total time is {value} us (npu {value - 9} us, cpu 9 us)",
            "[BMRT][bmrt_test:1058] INFO:load input time(s): 0.001000",
            f"[BMRT][bmrt_test:1059] INFO:calculate  time(s): {value / 1e6:.6f}",
            "[BMRT][bmrt_test:1060] INFO:get output time(s): 0.000300",
            "[BMRT][bmrt_test:1061] INFO:compare    time(s): 0.000100",
        ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("shares", SHARES)
def test_the_first_generation_in_its_four_forms(shares: str) -> None:
    result = timing(parse(MLIR_GUIDE.format(shares=shares)))
    assert result.latency.mean == pytest.approx(4.132)
    assert result.batch == 1
    assert result.label == "yolov5s/0"
    assert ("npu" in result.parts) == bool(shares)
    if shares:
        assert result.parts["npu"].mean == pytest.approx(4.009)
        assert result.parts["host"].mean == pytest.approx(0.113)
    assert "no warm-up" in result.notes[0]


def test_names_and_shapes_of_the_net_are_read() -> None:
    stage = parse(MLIR_GUIDE.format(shares="")).stages["yolov5s", 0]
    assert stage.inputs[0].name == "images"
    assert stage.inputs[0].shape == (1, 3, 640, 640)
    assert [port.shape for port in stage.outputs] == [
        (1, 3, 80, 80, 85),
        (1, 3, 40, 40, 85),
        (1, 3, 20, 20, 85),
    ]


def test_the_second_generation_has_one_part_more_and_may_compare() -> None:
    log = parse(LIBSOPHON)
    assert log.compared == ["resnet50-v2"]
    result = timing(log, batch=1)
    assert result.latency.mean == pytest.approx(6.998)
    assert result.parts["get_output"].mean == pytest.approx(0.076)


def test_the_third_generation_without_a_head_needs_the_batch() -> None:
    log = parse(USER)
    with pytest.raises(KilnError, match="does not show the batch"):
        timing(log)
    result = timing(log, batch=1)
    assert result.latency.mean == pytest.approx(3.735)
    assert result.parts["load_input"].mean == pytest.approx(8.165)


def test_versions_are_kept() -> None:
    head = (
        "[BMRT][load_bmodel:1704] INFO:Bmodel loaded, version 2.2+v1.7.beta.152-g10f3dc5e5-20240508\n"
        "[BMRT][load_bmodel:1705] INFO:BM Runtime: 0.5.1\n"
    )
    result = timing(parse(head + USER), batch=1)
    assert result.facts["bmodel_version"] == "2.2+v1.7.beta.152-g10f3dc5e5-20240508"
    assert result.tool_version == "0.5.1"


def test_loops_are_samples_and_a_batch_is_divided() -> None:
    result = timing(parse(_loops([9000, 2000, 2200, 2100]), loops=4), batch=4, warm_up=1)
    assert result.latency.samples == pytest.approx((2.0, 2.2, 2.1))
    assert result.latency.median == pytest.approx(2.1)
    assert result.per_image_ms == pytest.approx(2.1 / 4)
    assert result.images_per_second == pytest.approx(4000 / 2.1)
    assert result.runs == 3


def test_calculate_times_is_a_total() -> None:
    # tpu-perf divides: the note says 4122 us for one of a thousand launches.
    text = MLIR_GUIDE.format(shares=SHARES[1]).replace("0.004132", "4.131900")
    result = timing(parse(text), calculate_times=1000)
    assert result.latency.mean == pytest.approx(4.1319)
    assert result.latency.runs_per_sample == 1000
    assert result.latency.percentiles == {}
    assert result.runs == 1000


def test_a_wrong_number_of_calculate_times_is_noticed() -> None:
    text = MLIR_GUIDE.format(shares=SHARES[1])
    with pytest.raises(KilnError, match="not 1000 times the launch time"):
        timing(parse(text), calculate_times=1000)
    with pytest.raises(KilnError, match="not 1 times the launch time"):
        timing(parse(text.replace("0.004132", "4.131900")))


def test_one_interrupted_launch_is_an_outlier_and_not_an_error() -> None:
    text = _loops([2000, 2210, 2105]).replace("0.002210", "0.002900")
    assert timing(parse(text)).latency.samples == pytest.approx((2.0, 2.9, 2.105))
    with pytest.raises(KilnError, match="launch time of 2210 us"):
        timing(parse(text.replace("0.002900", "0.002100")))  # it cannot be shorter than its launch
    with pytest.raises(KilnError, match="not 1 times"):
        timing(parse(text.replace("0.002000", "0.002300")))  # and most must agree


def test_two_sessions_of_the_cores() -> None:
    # libsophon prints both cores' time where `--core_list 0:1` runs two sessions.
    text = LIBSOPHON.replace("(npu 6801 us, cpu", "(npu 6801 us [6801 us, 6790 us], cpu")
    log = parse(text)
    assert log.blocks[0].sessions == 2
    with pytest.raises(KilnError, match="other sessions"):
        timing(log, batch=1)
    assert timing(log, batch=1, sessions=2).batch == 2


def test_several_nets_are_never_averaged_together() -> None:
    log = parse(LIBSOPHON + LIBSOPHON.replace("resnet50-v2", "other"))
    with pytest.raises(KilnError, match="which net") as caught:
        timing(log, batch=1)
    assert "other/0" in str(caught.value)
    assert timing(log, batch=1, net="other").label == "other/0"


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        # A user's board log.
        (
            "[BMRT][must_alloc_device_mem:2682] FATAL:device mem alloc failed: size=4759552[0x48a000] type_len=1 status=5 desc=io_mem",
            "free device memory",
        ),
        ("[BMRT][bmrt_test:1306] FATAL:+++ The network[slim] stage[0] cmp failed +++", "parity"),
        (
            "[BMRT][load_bmodel:1000] WRONG:Error: runtime arch[BM1688] is not the same with bmodel arch[BM1684X]",
            "chip of this board",
        ),
        ("[BMRT][deal_with_options:1400] FATAL:Unknown option 63", "--help"),
    ],
)
def test_a_failure_of_the_tool_is_told_with_a_remedy(line: str, remedy: str) -> None:
    with pytest.raises(KilnError, match="the tool failed") as caught:
        parse(line + "\n" + USER)
    assert remedy in str(caught.value)
    assert "line 1" in str(caught.value)


def test_a_log_of_fewer_loops_than_asked_is_refused() -> None:
    with pytest.raises(KilnError, match="loops"):
        parse(_loops([2000, 2000]), loops=3)
    with pytest.raises(KilnError, match="missing or doubled"):
        parse(_loops([2000, 2000], declared=3))
    with pytest.raises(KilnError, match="missing or doubled"):
        parse(_loops([2000] * 3).replace("loop: 1", "loop: 7"))


def test_another_batch_than_the_log_shows_is_refused() -> None:
    with pytest.raises(KilnError, match="batch 4"):
        timing(parse(_loops([2000])), batch=1)


def test_no_times_at_all() -> None:
    with pytest.raises(KilnError, match="no block of times"):
        parse("sh: bmrt_test: not found\n")


def test_the_shares_must_add_up() -> None:
    with pytest.raises(KilnError, match="do not add up"):
        parse(MLIR_GUIDE.format(shares=" (npu 4009 us, cpu 313 us)"))


def test_colours_line_ends_and_a_stream_inside_a_line() -> None:
    text = LIBSOPHON.replace("[BMRT]", "\x1b[32m[BMRT]\x1b[0m").replace("\n", "\r\n")
    assert timing(parse(text), batch=1).latency.mean == pytest.approx(6.998)
    joined = LIBSOPHON.replace("0.000974\n", "0.000974").replace("==>comparing", "load 10%\r==>comparing")
    assert timing(parse("bmcpu init: skip" + joined), batch=1).latency.mean == pytest.approx(6.998)


def _figures(log: BmrtLog) -> list[tuple[float, ...]]:
    return [tuple(block.seconds.values()) for block in log.blocks]


WHOLE = _loops([2000, 2210, 2105])


@given(st.integers(0, len(WHOLE) - 1))
def test_a_log_cut_anywhere_is_refused(end: int) -> None:
    cut = WHOLE[:end]
    if end == len(WHOLE) - 1:
        return  # only the last line end is missing
    with pytest.raises(KilnError):
        parse(cut)


@given(st.integers(0, WHOLE.count("\n") - 1))
def test_a_lost_line_never_changes_a_figure(index: int) -> None:
    lines = WHOLE.splitlines()
    del lines[index]
    try:
        log = parse("\n".join(lines))
        figures = timing(log, batch=4).latency
    except KilnError:
        return
    assert figures.samples == pytest.approx((2.0, 2.21, 2.105))


@given(st.integers(0, len(WHOLE) - 1), st.sampled_from("0123456789,.x -e"))
def test_a_changed_character_never_changes_a_latency_by_much(place: int, character: str) -> None:
    # The launch note stands guard: what passes changes a latency by no more than the timers may differ.
    mutated = WHOLE[:place] + character + WHOLE[place + 1 :]
    try:
        samples = timing(parse(mutated)).latency.samples
    except KilnError:
        return
    assert sum(abs(one - other) > 0.06 for one, other in zip(samples, (2.0, 2.21, 2.105), strict=True)) <= 1
    assert sorted(samples)[1] == pytest.approx(2.105, abs=0.11)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(KilnError):
        parse(text)


def test_a_decimal_comma_is_refused() -> None:
    with pytest.raises(KilnError, match="six decimals"):
        parse(USER.replace("0.003735", "0,003735"))


def test_the_command_is_a_list_that_a_shell_can_quote() -> None:
    arguments = command(
        "/data/my models/a.bmodel", loops=5, calculate_times=20, cores=(0, 1), shapes=[(1, 3, 224, 224)]
    )
    assert arguments == [
        *("bmrt_test", "--bmodel", "/data/my models/a.bmodel", "--devid", "0", "--loopnum", "5"),
        *("--calculate_times", "20", "--core_list", "0,1", "--shapes", "[1,3,224,224]"),
    ]
    assert shlex.split(shlex.join(arguments)) == arguments


@pytest.mark.parametrize("wrong", [{"loops": 0}, {"calculate_times": 0}, {"cores": (0, 0)}])
def test_a_wrong_count_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(KilnError):
        command("a.bmodel", **wrong)  # type: ignore[arg-type]
