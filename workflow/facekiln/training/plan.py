"""Which samples each step takes, fixed before the first step, so that a resumed training goes on the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Plan:
    """The kind of batch of each step and its samples.

    Attributes:
        steps: how many there are.
        epoch_steps: steps that take about as many samples as there are.
    """

    def __init__(
        self,
        seed: int,
        kinds: Sequence[tuple[int, float]],
        counts: Sequence[int],
        *,
        steps: int | None = None,
        epochs: int | None = None,
        shares: Sequence[float] | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Plan a training.

        Args:
            seed: decides everything.
            kinds: per kind of batch its number of samples and its share of the steps.
            counts: samples per source; they are numbered through.
            steps: how long, or
            epochs: how long, in passes over all samples.
            shares: share of the samples that each source gives; None: by their number.
            weights: [sum(counts)], how often each sample is drawn, with replacement; None: each once per pass
                over its source.
        """
        total = sum(counts)
        sizes = np.array([pictures for pictures, _ in kinds])
        probability = np.array([share for _, share in kinds], np.float64)
        probability /= probability.sum()
        self.epoch_steps = max(1, round(total / float(sizes @ probability)))
        self.steps = steps if steps is not None else self.epoch_steps * (epochs or 1)
        self._kinds = np.random.default_rng([seed, 1]).choice(len(kinds), self.steps, p=probability)
        self._ends = np.cumsum(sizes[self._kinds])
        self._order = _order(np.random.default_rng([seed, 3]), int(self._ends[-1]), counts, shares, weights)

    def kind(self, step: int) -> int:
        """Return the index of a step's kind of batch."""
        return int(self._kinds[step])

    def samples(self, step: int) -> list[int]:
        """Return the samples of a step, numbered through all sources."""
        start = 0 if step == 0 else int(self._ends[step - 1])
        return [int(index) for index in self._order[start : int(self._ends[step])]]


def _passes(rng: np.random.Generator, count: int, needed: int) -> NDArray[np.int64]:
    """Return `needed` numbers below `count`, in shuffled passes over all of them."""
    rounds = -(-needed // count)
    return np.concatenate([rng.permutation(count) for _ in range(max(1, rounds))])[:needed]


def _order(
    rng: np.random.Generator,
    needed: int,
    counts: Sequence[int],
    shares: Sequence[float] | None,
    weights: NDArray[np.float64] | None,
) -> NDArray[np.int64]:
    total = sum(counts)
    starts = list(itertools.accumulate(counts, initial=0))[:-1]
    if shares is None:
        if weights is None:
            return _passes(rng, total, needed)
        return rng.choice(total, needed, p=weights / weights.sum())
    probability = np.array(shares, np.float64)
    source = rng.choice(len(counts), needed, p=probability / probability.sum())
    order = np.empty(needed, np.int64)
    for index, (start, count) in enumerate(zip(starts, counts, strict=True)):
        mine = source == index
        wanted = int(mine.sum())
        if weights is None:
            chosen = _passes(rng, count, wanted)
        else:
            own = weights[start : start + count]
            chosen = rng.choice(count, wanted, p=own / own.sum())
        order[mine] = start + chosen
    return order
