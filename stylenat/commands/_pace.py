"""What an experiment costs on this machine, by a few of its own iterations."""

import time
from collections.abc import Callable

import torch

from stylenat.commands._choices import Pace
from stylenat.comparison.throughput import cpu_seconds, share_of_others
from stylenat.data.loader import ImageStream
from stylenat.pixels import SPACES
from stylenat.reused_memory import reuse_freed_memory
from stylenat.training.forward import use_tf32
from stylenat.training.loop import reals, sampler
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

REPEATS = 2
"""Of an iteration without R1."""


def pace(settings: Training, interval: int, device: torch.device) -> Pace:
    """Runs a handful of iterations on the real images, and draws one batch. Nothing of it is kept.

    Args:
        settings: whose data set is there; interval: of R1, the only lazy term.
    """
    if device.type == "cpu":
        reuse_freed_memory()
    use_tf32(settings.tf32)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    settings.dataset.prepare()
    state = TrainingState(settings, device)
    stream = ImageStream(
        settings.dataset,
        settings.batch_size,
        seed=settings.seed,
        horizontal_flips=settings.horizontal_flips,
        normalised=device.type == "cpu",
        pixel_space=SPACES[settings.pixel_space],
    )
    images = reals(stream, state, device)

    before = cpu_seconds()

    def one(step: int) -> float:
        state.step = step
        state.seed_iteration()
        return _seconds(lambda: iteration(state, images), device)

    one(0)  # With all that is built on first use.
    plain = min(one(1 + number) for number in range(REPEATS))
    penalised = one(interval)
    draw, batch = sampler(settings, state), min(settings.batch_size, 16)
    draw(0, batch)
    drawn = _seconds(lambda: draw(0, batch), device)
    others = share_of_others(before, cpu_seconds())
    return Pace(plain + (penalised - plain) / interval, drawn / batch, others or 0.0)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
