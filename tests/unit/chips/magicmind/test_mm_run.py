"""The log of mm_run, on logs that the vendor published (Cambricon/magicmind_cloud)."""

# ruff: noqa: E501, W291 (lines as they were printed)

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.magicmind.mm_run import command, generation_of, parse, read_trace, timings
from facekiln.errors import KilnError

# retinaface_pytorch/data/output_ok/qint8_mixed_float16_true_8_log_perf at 6f18c92: the older dialect.
OLD = """\
==================== Parameter Information
magicmind model file: /root/models/retinaface_pytorch_model_qint8_mixed_float16_true_1
input dims type: 0
iterations: 1000
duration: 3000
warm_up: 200
thread_num: 1
bind_cluster: 0
devices: 0 
disable_data_copy: 0
batch: 8
[MMINFO]  CreateModel time is 2592 ms
=================== Device Information
Device ID:                    0
Cluster Number:               6
Total Memory Size:            24576 (MB)
Pageable Memory Access:       -940219399
2022-09-26 06:45:54.434045: WARNING:  magicmind/runtime/executor/context.cc:223] Inferoutputshape return value is Unavailable, input parameter is invalid
[MMINFO]  Constdata Size: 26.209045 (MB)
[MMINFO]  ContextMaxworkspace Size: UNAVAILABLE
==================== Model Information 
Buffer Info: Input
Num: 1
[0]: 
  Name: main/arg-0
  Dim: [8, 672, 1024, 3]
==================== Device Utilization Summary
dev0_chip_util(%):            min: 31    max: 66    mean: 63.45 median: 65   
dev0_mem_info(MB):            min: 1478  max: 1478  mean: 1478  median: 1478 
dev0_power_info(W):           min: 30    max: 66    mean: 62.85 median: 65   
dev0_temp_info(C):            min: 56    max: 58    mean: 56.9  median: 57   
==================== Performance Summary
Iterations:                   1000
Host Wall Time (s):           20.9374
MLU Compute Time (s):         20.9228
Throughput (qps):             382.091
Enqueue Time (ms):            min: 1.1015     max: 4.4755     mean: 1.7794     median: 1.7736     percentile: (90%) 1.9391     (95%) 2.0547     (99%) 2.1744    
H2D Latency (ms):             min: 1.211      max: 1.261      mean: 1.2243     median: 1.224      percentile: (90%) 1.232      (95%) 1.235      (99%) 1.242     
MLU Compute Latency (ms):     min: 20.688     max: 22.075     mean: 20.923     median: 20.85      percentile: (90%) 21.216     (95%) 21.375     (99%) 21.628    
D2H Latency (ms):             min: 1.084      max: 1.121      mean: 1.0952     median: 1.096      percentile: (90%) 1.104      (95%) 1.105      (99%) 1.113     
Trace averages of 100 runs:
  MLU Compute Latency (ms): 20.88       Enqueue: 1.7492    
"""

# The sample's README: the newer dialect, a model of three inputs.
NEW = """\
==================== Parameter Information
--magicmind_model<Str>        : model2
--input_dims<Vec<Vec<Int>>>   : 1,2,3,4 _ 5,6,7
--batch_size<Vec<Int>>        :
--devices<Vec<Int>>           : 0
--threads<Int>                : 1
--iterations<Int>             : 1
--trace_time<Str>             : host
MagicMind: 11534336
CNRT: 50801
CNAPI: 10803
PID: 12345
=================== Model Information
Size:     5581
Input num: 1
Input info [
input0            : [-1, -1, -1, -1], FLOAT
]
=================== Device Information
Device ID:                    0
Compute Capability:           3.0
Cluster Number:               8
MLU Core Clock Rate:          1 (GHz)
Total Memory Size:            24576 (MB)
2022-06-17 06:38:41.652209: INFO: samples/cc/common/timer.cc:34] DeserializeModel time is 1958.32 ms.
2022-06-17 06:38:41.654884: INFO: samples/cc/mm_run/run.cc:223] ContextMaxworkspace Size: 8(MB)
2022-06-17 06:38:45.1: INFO: samples/cc/mm_run/trace.cc:10] =================== Device 0 Utilization Summary
chip_util(%):                 min: 0          max: 1          mean: 0.5        median: 0.5        percentile: (90%) 1          (95%) 1          (99%) 1
power_util(W):                min: 34         max: 34         mean: 34         median: 34         percentile: (90%) 34         (95%) 34         (99%) 34
temp_util(C):                 min: 33         max: 33         mean: 33         median: 33         percentile: (90%) 33         (95%) 33         (99%) 33
=================== Performance Summary
Total iterations:             14466
Host wall time(s):            3.00164
Total MLU compute time(host clock, s): 1.26222
Total MLU compute time(dev clock, s): 0.891635
Throughput (qps):             28916.2 with total batch sizes: 86796 and 4819.36 iterations/second
Input shape group 0: [main/arg:0: [1, 3, 64, 64], main/arg:1: [9, 3, 128, 128], main/arg:2: [1, 3, 24, 24]]
  H2D Summary:
  Latency(host clock, ms):    min: 0.12       max: 1.053      mean: 0.36809    median: 0.326      percentile: (90%) 0.651      (95%) 0.716      (99%) 0.808
  Latency(dev clock, ms):     min: 0.12       max: 1.036      mean: 0.35437    median: 0.312      percentile: (90%) 0.631      (95%) 0.697      (99%) 0.785
  Interface Duration(ms):     min: 0.016      max: 0.104      mean: 0.028189   median: 0.025      percentile: (90%) 0.039      (95%) 0.045      (99%) 0.064
  MLU Compute (Launch jobs) Summary:
  Latency(host clock, ms):    min: 0.057      max: 0.237      mean: 0.08457    median: 0.08       percentile: (90%) 0.103      (95%) 0.113      (99%) 0.14
  Latency(dev clock, ms):     min: 0.051      max: 0.079      mean: 0.055361   median: 0.054      percentile: (90%) 0.06       (95%) 0.066      (99%) 0.075
  Interface Duration(ms):     min: 0.031      max: 0.194      mean: 0.050641   median: 0.043      percentile: (90%) 0.074      (95%) 0.085      (99%) 0.127
  D2H Summary:
  Latency(host clock, ms):    min: 0.162      max: 1.223      mean: 0.41258    median: 0.391      percentile: (90%) 0.635      (95%) 0.694      (99%) 0.848
  Total Latency Summary(H2D + Compute + D2H):
  Latency(host clock, ms):    min: 0.372      max: 1.884      mean: 0.86524    median: 0.846      percentile: (90%) 1.204      (95%) 1.309      (99%) 1.44
  Latency(dev clock, ms):     min: 0.349      max: 1.805      mean: 0.81113    median: 0.788      percentile: (90%) 1.145      (95%) 1.251      (99%) 1.377
Trace average MLU Compute perf over 1446 runs (723 per thread):
  Latency(host clock, ms): 0.089163    Latency(dev clock, ms): 0.061947    Interface Duration(ms): 0.052804
"""
HEAD, REPORT = NEW[: NEW.index("2022-06-17 06:38:45.1")], NEW[NEW.index("2022-06-17 06:38:45.1") :]
GROUP = REPORT[REPORT.index("Input shape group") : REPORT.index("Trace average")]
HOST_ONLY = "\n".join(
    line for line in NEW.splitlines() if "dev clock, ms): " not in line or "min:" not in line
)
INTERFACE = next(line for line in GROUP.splitlines() if "mean: 0.050641" in line)
NO_TRACE = f"{NEW[: NEW.index('  H2D Summary')]}  MLU Compute (Launch jobs) Summary:\n{INTERFACE}\n"


def test_the_older_dialect() -> None:
    (result,) = timings(parse(OLD), batch=8)
    assert result.latency.mean == 20.923
    assert result.latency.percentiles == {"90": 21.216, "95": 21.375, "99": 21.628}
    assert result.parts["h2d"].median == 1.224
    assert result.images_per_second == 382.091
    assert result.per_image_ms == pytest.approx(20.923 / 8)
    assert result.readings["power_w"].mean == 62.85
    assert result.readings["temperature_c"].max == 58
    assert result.memory_mib == {"weights": 26.209045}
    assert result.runs == 1000
    assert result.label == "device 0"


def test_the_newer_dialect() -> None:
    (result,) = timings(parse(NEW))
    assert result.latency.mean == 0.055361
    assert "device clock" in result.measures
    assert result.parts["compute_host"].percentiles["99"] == 0.14
    assert result.parts["total_dev"].mean == 0.81113
    assert result.parts["compute_interface"].max == 0.194
    assert result.throughput == 28916.2
    assert result.batch == 6  # 86796 images in 14466 iterations
    assert result.tool_version == "11534336"
    assert result.readings["power_w"].percentiles["95"] == 34
    assert result.memory_mib == {"workspace": 8}


def test_missing_clocks() -> None:
    (result,) = timings(parse(HOST_ONLY))
    assert result.latency.mean == 0.08457
    assert "host clock" in result.measures
    assert "compute_dev" not in result.parts


def test_no_trace_gives_the_interval_between_batches() -> None:
    (result,) = timings(parse(NO_TRACE))
    assert result.latency.mean == pytest.approx(1000 * 6 / 28916.2)
    assert "nothing was traced" in result.measures
    assert result.mean_only


def test_the_throughput_line_of_the_older_tool_in_the_newer_dialect() -> None:
    # vendor scripts cut it at column 18, and float(line.split(":")[1]) fails on the newer one
    (result,) = timings(
        parse(NEW.replace(" with total batch sizes: 86796 and 4819.36 iterations/second", ""))
    )
    assert result.batch == 6
    assert result.throughput == 28916.2


def test_several_devices() -> None:
    both = HEAD.replace("--devices<Vec<Int>>           : 0", "--devices<Vec<Int>>           : 0 1") + REPORT
    both += REPORT.replace("Device 0", "Device 1").replace(" 34", " 41")
    first, second = timings(parse(both))
    assert (first.label, second.label) == ("device 0", "device 1")
    assert first.readings["power_w"].mean == 34
    assert second.readings["power_w"].mean == 41
    with pytest.raises(KilnError, match="2 reports for 3 devices"):
        parse(both.replace(": 0 1", ": 0 1 2"))


def test_several_shape_groups() -> None:
    second = GROUP.replace("group 0", "group 1").replace("[9, 3", "[4, 3")
    results = timings(parse(NEW.replace(GROUP, GROUP + second)))
    assert [result.batch for result in results] == [9, 4]
    assert results[1].label == "device 0 shape group 1"
    assert "all shape groups" in results[0].notes[0]


@pytest.mark.parametrize(
    ("log", "old", "new", "message"),
    [
        (OLD, "382.091", "982.091", "contradict"),
        (OLD, "20.9374", "29.9374", "contradict"),
        (OLD, "mean: 20.923", "mean: 21.923", "contradict"),
        (OLD, "(99%) 21.628", "(99%) 20.1", "out of order"),
        (OLD, "20.9374", "20,9374", "plain number"),
        (OLD, "20.9374", "nan", "plain number"),
        (OLD, "Iterations:", "Iteratons:", "unknown form|incomplete"),
        (NEW, "86796", "96796", "contradict"),
        (NEW, "4819.36", "4919.36", "contradict"),
        (NEW, "  D2H Summary:\n", "", "second line"),
        (NEW, "Total iterations:", "total:", "incomplete"),
    ],
)
def test_a_damaged_log_is_refused(log: str, old: str, new: str, message: str) -> None:
    assert old in log
    with pytest.raises(KilnError, match=message):
        timings(parse(log.replace(old, new)))


def test_exponents_colours_and_line_ends() -> None:
    text = OLD.replace("min: 0.0", "min: 1e-2").replace("20.9374", "2.09374e+01").replace("\n", "\r\n")
    (result,) = timings(parse(text.replace("Iterations:", "\x1b[1mIterations:\x1b[0m")))
    assert result.throughput == 382.091


def test_another_batch_is_refused() -> None:
    with pytest.raises(KilnError, match="batch 8"):
        timings(parse(OLD), batch=1)


def test_a_failed_run_shows_its_line() -> None:
    with pytest.raises(KilnError, match=r"the tool failed: .*device"):
        parse(OLD[:300] + "\n2023-01-01: ERROR: run.cc:1] no device\n")


WHOLE = {"old": OLD, "new": NEW}


@pytest.mark.parametrize("dialect", list(WHOLE))
@given(data=st.data())
def test_a_log_cut_before_its_end_is_refused(dialect: str, data: st.DataObject) -> None:
    text = WHOLE[dialect]
    end = data.draw(st.integers(0, text.index("Trace average")))
    with pytest.raises(KilnError):
        parse(text[:end])


@pytest.mark.parametrize("dialect", list(WHOLE))
@given(data=st.data())
def test_lost_lines_never_change_a_figure(dialect: str, data: st.DataObject) -> None:
    lines = WHOLE[dialect].splitlines()
    gone = data.draw(st.sets(st.integers(0, len(lines) - 1), min_size=1, max_size=3))
    (whole,) = timings(parse(WHOLE[dialect]))
    try:
        results = timings(parse("\n".join(line for index, line in enumerate(lines) if index not in gone)))
    except KilnError:
        return
    for result in results:
        assert result.throughput == whole.throughput
        assert result.batch == whole.batch
        assert result.latency in (whole.latency, whole.parts.get("compute_host"))
        for name, part in result.parts.items():
            assert part == whole.parts[name]


def test_a_section_whose_heading_is_lost_is_not_read_as_the_one_before() -> None:
    lines = WHOLE["new"].splitlines()
    heading = next(index for index, line in enumerate(lines) if "D2H Summary" in line)
    compute = next(index for index, line in enumerate(lines) if "MLU Compute" in line and "Summary" in line)
    host = next(index for index in range(compute, heading) if "host clock" in lines[index])
    with pytest.raises(KilnError, match="precedes"):
        parse("\n".join(line for index, line in enumerate(lines) if index not in (heading, host)))


@given(st.integers(0, len(OLD) - 1), st.sampled_from("0123456789,.x -e"))
def test_a_changed_character_never_changes_the_mean_or_the_throughput(place: int, character: str) -> None:
    try:
        results = timings(parse(OLD[:place] + character + OLD[place + 1 :]))
    except KilnError:
        return
    assert [result.latency.mean for result in results] == [pytest.approx(20.923, rel=1e-3)]
    assert results[0].throughput == pytest.approx(382.091, rel=1e-3)


@given(st.text(max_size=300))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(KilnError):
        parse(text)


def test_both_generations_of_flags() -> None:
    assert generation_of("  --batch_size  batch of inputs\n") == "batch_size"
    assert generation_of("  --batch  batch\n") == "batch"
    with pytest.raises(KilnError, match="neither"):
        generation_of("usage: mm_run")
    assert command("m.mm", batch=4, generation="batch", iterations=1000) == [
        *("mm_run", "--magicmind_model", "m.mm", "--batch", "4", "--devices", "0"),
        *("--threads", "1", "--iterations", "1000"),
    ]
    newer = command("m.mm", batch=4, devices=(0, 1), trace_time="both", input_dims=[(4, 3, 8, 8), (4, 1)])
    assert newer[3:5] == ["--batch_size", "4"]
    assert newer[-3:] == ["--input_dims", "4,3,8,8", "4,1"]
    with pytest.raises(KilnError, match="generation"):
        command("m.mm", batch=4, generation="batch", trace_time="dev")


def test_the_trace_file() -> None:
    latency = {"min": 1.0, "max": 2.0, "mean": 1.5}
    text = json.dumps(
        {
            "iterations": 10,
            "mluComputTime(s)": 1.5,
            "mluComputTime(dev|s)": 1.25,
            "trace": [{"inputDims": "[1,3]", "mlu(ms)": latency, "latency(dev|ms)": 2.5}],
        }
    )
    trace = read_trace(text)
    assert (trace.iterations, trace.compute_s, trace.compute_dev_s) == (10, 1.5, 1.25)
    assert trace.groups == [("[1,3]", {"mlu(ms)": latency, "latency(dev|ms)": {"mean": 2.5}})]
    for wrong in ("{", "[]", "{}", '{"iterations": 1}', '{"iterations": 1, "trace": [3]}'):
        with pytest.raises(KilnError, match="trace file"):
            read_trace(wrong)
