"""The end lines of sophon-demo's Python samples: how long their pictures took.

    - inference_time(ms): 6.50
    - total_time(ms): 68396.19, img_num: 3226
    - average latency time(ms): 6.50, QPS: 153.963054

The latency is the inference call alone, per image; `total_time` is the whole run with decoding and drawing
(sophon-demo, sample/Retinaface). QPS is the reciprocal of the latency, so the three lines are held against
each other.
"""

from __future__ import annotations

import re

from facekiln.boards.log_lines import fail, figure, read_lines
from facekiln.boards.timing import Stats, Timing

TOOL = "sophon-demo"
_NUMBER = r"(\S+)"
_FORMS = {
    "inference": re.compile(rf"- inference_time\(ms\): {_NUMBER}$"),
    "total": re.compile(rf"- total_time\(ms\): {_NUMBER}, img_num: (\d+)$"),
    "average": re.compile(rf"- average latency time\(ms\): {_NUMBER}, QPS: {_NUMBER}$"),
}
_HALF_UNIT = 0.006  # milliseconds are printed with two decimals


def parse(text: str) -> Timing:
    """Return the latency per image of a sample's run.

    Raises:
        KilnError: a line is missing, doubled or not of its form, or they contradict each other.
    """
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    for line in read_lines(text):
        for name, form in _FORMS.items():
            match = form.search(line.text)
            if match is None:
                continue
            if name in found:
                raise fail(TOOL, f"a second '{name}' line", line.number, line.text)
            found[name] = (line.number, match.groups())
    if missing := [name for name in ("total", "average") if name not in found]:
        raise fail(TOOL, "the run did not end: its end lines are missing", value=", ".join(missing))
    at, (latency_text, qps_text) = found["average"]
    latency, qps = figure(TOOL, latency_text, at, "latency"), figure(TOOL, qps_text, at, "QPS")
    if latency <= 0 or qps <= 0 or abs(1000 / qps - latency) > _HALF_UNIT:
        raise fail(TOOL, "QPS is not the reciprocal of the latency", at, f"{latency} ms, {qps}/s")
    if "inference" in found:
        line_number, (inference,) = found["inference"]
        if abs(figure(TOOL, inference, line_number, "inference time") - latency) > _HALF_UNIT:
            raise fail(
                TOOL, "inference time and average latency differ", line_number, f"{inference}, {latency}"
            )
    at, (total_text, images_text) = found["total"]
    total, images = figure(TOOL, total_text, at, "total time"), int(images_text)
    if images < 1 or total + _HALF_UNIT * images < latency * images:
        raise fail(
            TOOL, "the whole run is shorter than its inferences", at, f"{total} ms for {images} images"
        )
    return Timing(
        tool=TOOL,
        measures="inference call of the Python sample, per image, with copies",
        latency=Stats(mean=latency),
        batch=1,
        runs=images,
        throughput=qps,
        parts={"whole_run_per_image": Stats(mean=total / images)},
    )
