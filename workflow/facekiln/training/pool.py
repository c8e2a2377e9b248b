"""Scenes drawn ahead by several processes, in the order of their indices whatever their number."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import cv2

from facekiln.data.procedural import Scene, Style, draw_scene, scene_seed
from facekiln.progress import progress_bar
from facekiln.training.recipe import Drawn

_Task = tuple[int, tuple[int, int], Style]


def _quiet_worker() -> None:
    """Leave an interruption to the parent, and the other core to the other worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _draw(task: _Task) -> Scene:
    return draw_scene(*task)


def _drawn(tasks: list[_Task], processes: int) -> Iterator[Scene]:
    if processes == 1 or len(tasks) < 16:
        yield from map(_draw, tasks)
        return
    # Spawned, because a fork of a process that runs torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _quiet_worker) as workers:
        try:
            yield from workers.map(_draw, tasks, chunksize=4)
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def draw_pool(wanted: Drawn, purpose: str, seed: int, processes: int) -> list[Scene]:
    """Draw a set of scenes.

    Args:
        wanted: how many, how large, with which faces.
        purpose: "train" or "held-out"; sets of two purposes share no seed.
        seed: the recipe's.
        processes: how many draw; the result does not depend on it.
    """
    seeds = [scene_seed(purpose, seed, index) for index in range(wanted.count)]
    drawn = []
    with progress_bar(wanted.count, f"draw {purpose}", "scene") as bar:
        for scene in _drawn([(seed, wanted.size, wanted.style()) for seed in seeds], processes):
            drawn.append(scene)
            bar.update(1)
    return drawn
