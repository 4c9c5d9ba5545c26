"""What each variant costs, measured here and now: the only source of speeds in a comparison."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import torch

from registry import Experiment, Registry, UserError
from stylenat.classes import Classes
from stylenat.comparison.groups import Spread
from stylenat.comparison.results import Comparison
from stylenat.comparison.runs import load_run
from stylenat.pixels import to_networks
from stylenat.training.footprint import footprint
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

SAMPLING, TRAINING, MEMORY = "images/s sampling", "images/s training", "MB a training image"
BATCH = 16
WARM_UP = 2
REPEATS = 5
ITERATIONS = 16
"""Of each measurement of training, so that lazy penalties count by their share."""
IDLE = 0.05
"""The share of the cores' time that others may use for the machine to count as idle."""


@dataclass(frozen=True)
class Measured:
    """``columns``: by name, by variant. ``notes``: how they were measured; a line if not alone."""

    columns: dict[str, dict[str, Spread]]
    notes: tuple[str, ...]


def measured(registry: Registry, comparison: Comparison, device: torch.device, training: bool) -> Measured:
    """Images a second of sampling and, where asked, of training, and the memory of a training image, counted.

    The weights are newly drawn, which costs the same. One variant runs at a time, the variants in turn.
    """
    experiments = {}
    for group in comparison.groups:
        first = group.runs[0].directory
        experiments[group.name] = load_run(registry, first, first.parent / "configs" / f"{first.name}.gin")
    before = cpu_seconds()
    calls = {name: _sampling(experiment, device) for name, experiment in experiments.items()}
    columns = {SAMPLING: _timed(calls, BATCH, WARM_UP, device)}
    notes = [
        f"{SAMPLING}: batches of {BATCH} on {device.type}, {WARM_UP} to warm up, mean ± standard deviation of "
        f"{REPEATS}, the variants in turn"
    ]
    if training:
        states = {name: _state(experiment, device) for name, experiment in experiments.items()}
        sizes = {state.settings.batch_size for state in states.values()}
        if len(sizes) > 1:
            raise UserError(f"training is timed with equal batches, and the runs have {sorted(sizes)}; use --measure")
        [batch] = sizes
        calls = {name: _training(state, device) for name, state in states.items()}
        columns[TRAINING] = _timed(calls, batch * ITERATIONS, 1, device)
        columns[MEMORY] = {
            name: Spread(
                (footprint(s.settings, s.settings.precision, s.settings.activation_checkpointing).image / 1e6,)
            )
            for name, s in states.items()
        }
        notes.append(
            f"{TRAINING}: {ITERATIONS} iterations of {batch} images without loading data, mean ± standard deviation of "
            f"{REPEATS}, the variants in turn; memory is counted, without train.augmentation"
        )
    busy = share_of_others(before, cpu_seconds())
    if busy is not None and busy > IDLE:
        notes.append(
            f"{SAMPLING}: other processes used {busy:.0%} of the cores meanwhile, so these speeds say little; "
            "measure again on an idle machine"
        )
    return Measured(columns, tuple(notes))


def _timed(
    calls: Mapping[str, Callable[[], object]], images: int, warm_up: int, device: torch.device
) -> dict[str, Spread]:
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warm_up + REPEATS):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= warm_up:
                rates[name].append(images / (time.perf_counter() - began))
    return {name: Spread(tuple(found)) for name, found in rates.items()}


def _sampling(experiment: Experiment, device: torch.device) -> Callable[[], object]:
    generator = experiment.value("train.generator")().to(device).eval()
    latents = torch.randn(BATCH, generator.latent_dim, device=device)
    labels = [torch.zeros(BATCH, count, device=device)] if (count := getattr(generator, "num_classes", 0)) else []
    return torch.no_grad()(lambda: generator(latents, *labels))


def _state(experiment: Experiment, device: torch.device) -> TrainingState:
    state = TrainingState(experiment.get("train")(), device)
    if count := getattr(state.generator, "num_classes", 0):
        state.classes = Classes((1,) * count, tuple(map(str, range(count))))
    return state


def _training(state: TrainingState, device: torch.device) -> Callable[[], object]:
    side, batch = state.generator.resolution, state.settings.batch_size
    images = to_networks(torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8).to(device))
    numbers = None if state.classes is None else torch.arange(batch) % len(state.classes.counts)
    labels = None if numbers is None else state.classes.one_hot(numbers).float().to(device)
    real = repeat((images, labels))

    def iterations() -> None:
        for _ in range(ITERATIONS):
            iteration(state, real)
            state.step += 1

    return iterations


def cpu_seconds() -> tuple[float, float, float] | None:
    """Seconds that all cores were busy, that they had, and that this process used; None where the system won't say."""
    try:
        fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    tick = os.sysconf("SC_CLK_TCK")
    return (sum(fields) - fields[3] - fields[4]) / tick, sum(fields) / tick, time.process_time()


def share_of_others(
    before: tuple[float, float, float] | None, after: tuple[float, float, float] | None
) -> float | None:
    """Of the cores' time between two results of ``cpu_seconds``; None where there are none."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    busy, there, own = (b - a for a, b in zip(before, after, strict=True))
    return max(busy - own, 0.0) / there
