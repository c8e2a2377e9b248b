"""Images per second of a training against a plain loop of the same network on tensors in memory.

    python benchmarks/bench_training.py --model retinaface
    python benchmarks/bench_training.py --model ulfd_slim_320 --recipe mine

Both run in turns in one process with the same threads. The ratio of the wall clock tells whether the loaders
starve the training; that of processor time, what they cost, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

from facekiln.config import Model, load_config, load_recipe
from facekiln.models.registry import build_network
from facekiln.progress import set_up_logging
from facekiln.training.device import Device, choose_device, deterministic
from facekiln.training.loop import Trainer
from facekiln.training.prefetch import loaders, prefetched
from facekiln.training.recipe import Recipe, make_recipe
from facekiln.training.schedule import make_optimiser
from facekiln.training.sources import Places, open_pools
from facekiln.training.task import IMAGES, Task
from facekiln.training.train import make_task


def speed_of(images: int, work: Callable[[], None]) -> tuple[float, float]:
    """Return images per second of the wall clock and of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return images / (time.perf_counter() - wall), images / (time.process_time() - processor)


def plain_loop(model: Model, recipe: Recipe, task: Task, steps: range) -> tuple[float, float]:
    """Return the speed of forward, loss, backward and step on batches made beforehand."""
    batches = [task.batch(step) for step in steps]
    network = build_network(model).train()
    optimiser = make_optimiser(network, recipe.optimiser, recipe.schedule.rate)

    def work() -> None:
        for batch in batches:
            tensors = {name: torch.from_numpy(value) for name, value in batch.items()}
            outputs = network(tensors.pop(IMAGES).to(memory_format=torch.channels_last))
            loss = torch.stack(list(task.loss(tuple(outputs), tensors).values())).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()

    return speed_of(sum(len(batch[IMAGES]) for batch in batches), work)


def whole_training(
    model: Model, recipe: Recipe, task: Task, steps: range, where: Device
) -> tuple[float, float]:
    """Return the speed of the trainer, batches made beside it by its loaders."""
    trainer = Trainer(build_network(model), task, recipe, where)

    def work() -> None:
        for batch in prefetched(task, steps.start, steps.stop, loaders(recipe.threads)):
            trainer.take_step(batch)

    return speed_of(sum(len(task.batch(step)[IMAGES]) for step in steps), work)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="retinaface")
    parser.add_argument("--recipe", help="default: the model's")
    parser.add_argument("--config", type=Path, default=Path("config"))
    parser.add_argument("--reports", type=Path, default=Path("results/datasets"))
    parser.add_argument("--steps", type=int, default=40, help="per round")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    set_up_logging()
    model = load_config(options.config).model(options.model)
    recipe = make_recipe(load_recipe(options.recipe or str(model.recipe), options.config))
    pools = open_pools(recipe, Places(options.config, options.reports))
    task = make_task(model, recipe, *pools)
    cv2.setNumThreads(1)
    ratios: list[tuple[float, float]] = []
    with deterministic(recipe.seed, recipe.threads):
        plain_loop(model, recipe, task, range(20))
        for turn in range(options.rounds):
            steps = range(20 + turn * options.steps, 20 + (turn + 1) * options.steps)
            trained = whole_training(model, recipe, task, steps, choose_device(recipe))
            plain = plain_loop(model, recipe, task, steps)
            ratios.append((trained[0] / plain[0], trained[1] / plain[1]))
            speeds = f"trainer {trained[0]:.1f} images/s, cached tensors {plain[0]:.1f}"
            print(f"round {turn + 1}: {speeds}: {ratios[-1][0]:.3f}, of processor time {ratios[-1][1]:.3f}")
    wall, processor = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"median ratio {wall:.3f} (aim: over 0.85), of processor time {processor:.3f}")


if __name__ == "__main__":
    main()
