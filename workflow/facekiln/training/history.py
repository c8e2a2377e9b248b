"""What happened during a training: losses, rate and judgements, as JSON and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_POINTS = 400  # of the curves; each is the mean of the steps since the last


@dataclass
class History:
    """The course of a training.

    Attributes:
        steps: how many it should take.
        curve: one entry per point: step, rate, loss, and the parts of the loss by name.
        judged: one entry per judgement: step and the figures.
    """

    steps: int
    curve: list[dict[str, float]] = field(default_factory=list)
    judged: list[dict[str, Any]] = field(default_factory=list)
    _sums: dict[str, float] = field(default_factory=dict)
    _count: int = 0
    _rate: float = 0.0

    def add(self, step: int, rate: float, parts: Mapping[str, float]) -> None:
        """Take in a step's loss."""
        self._count += 1
        for name, value in {**parts, "loss": sum(parts.values())}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._rate = rate
        if self._count >= max(1, self.steps // _POINTS):
            self.close(step + 1)

    def close(self, step: int) -> None:
        """End the point that is under way, if any, after `step` steps."""
        if self._count:
            means = {name: round(value / self._count, 6) for name, value in self._sums.items()}
            self.curve.append({"step": step, "rate": round(self._rate, 9), **means})
            self._sums, self._count = {}, 0

    def judge(self, step: int, figures: Mapping[str, Any]) -> None:
        """Take in the figures after `step` steps."""
        self.judged.append({"step": step, **figures})

    def last_loss(self) -> float:
        """Return the mean loss of the last tenth of the curve."""
        last = self.curve[-max(1, len(self.curve) // 10) :]
        return sum(point["loss"] for point in last) / max(1, len(last))

    def state(self) -> dict[str, Any]:
        """Return everything, for `History(**state)`."""
        return dict(vars(self))

    def record(self) -> dict[str, Any]:
        """Return what is worth keeping, ready for JSON."""
        return {"steps": self.steps, "curve": self.curve, "judged": self.judged}

    def picture(self, title: str, metric: str) -> bytes:
        """Return the curves as PNG: losses on a logarithmic scale, the rate, and the metric as judged."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 6), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        at = [point["step"] for point in self.curve]
        names = [name for name in self.curve[-1] if name not in ("step", "rate")] if self.curve else []
        for name in sorted(names, key=lambda name: name != "loss"):
            top.plot(
                at,
                [point.get(name, float("nan")) for point in self.curve],
                label=name,
                lw=2 if name == "loss" else 1,
            )
        top.set(yscale="log", ylabel="loss", title=title)
        if names:
            top.legend()
        bottom.plot(at, [point["rate"] for point in self.curve], color="tab:gray")
        bottom.set(xlabel="step", ylabel="learning rate")
        judged = [(entry["step"], entry[metric]) for entry in self.judged if metric in entry]
        if judged:
            figures = bottom.twinx()
            figures.plot(*zip(*judged, strict=True), "o-", color="tab:green")
            figures.set_ylabel(metric)
        stream = io.BytesIO()
        # Neither a date nor a release, so that equal curves are equal files.
        figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
        return stream.getvalue()
