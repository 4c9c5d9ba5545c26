"""Images a second of a generator, as papers report them: after a warm-up, by batch size, mean and spread."""

import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stylenat.draws import conditions
from stylenat.networks.counting import macs, parameters

BATCHES = (1, 2, 4, 8, 16, 32, 64)
WARM_UP, FEWEST, MOST = 3, 5, 100
"""Calls before the measurement, and within it."""


@dataclass(frozen=True)
class Rate:
    """Images a second with ``batch`` images at once.

    Attributes:
        mean, spread: over ``calls`` calls, one standard deviation.
        peak: MiB. On a GPU, the most that PyTorch's allocator held during the calls; on a CPU, the most that the
            process has held so far, weights and libraries included.
    """

    batch: int
    mean: float
    spread: float
    calls: int
    peak: float


@dataclass(frozen=True)
class Cost:
    """``parameters``: trainable numbers; ``macs``: multiply-accumulates of one image."""

    parameters: int
    macs: int


def cost(build: Callable[[], nn.Module]) -> Cost:
    """Counted on a network without data, so that nothing is computed."""
    with torch.device("meta"):
        generator = build().eval()
        latents, labels, draws = _inputs(generator, 1, torch.device("meta"))
        return Cost(parameters(generator), macs(generator, latents, *conditions(labels), **draws))


@torch.no_grad()
def rates(generator: nn.Module, seconds: float = 5.0, batches: Sequence[int] = BATCHES) -> Iterator[Rate]:
    """One rate for each batch size: latents to images on the generator's device, in the weights' precision.

    Args:
        seconds: that the calls of one batch size take, warm-up excluded; at least ``FEWEST`` calls are made.
    """
    device = next(generator.parameters()).device
    for batch in batches:
        latents, labels, draws = _inputs(generator, batch, device)
        given = (latents, *conditions(labels))

        def call(given: tuple[Tensor, ...] = given, draws: dict[str, Tensor] = draws) -> float:
            began = time.perf_counter()
            generator(*given, **draws)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter() - began

        slowest = max(call() for _ in range(WARM_UP))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        calls = min(MOST, max(FEWEST, math.ceil(seconds / slowest)))
        found = [batch / call() for _ in range(calls)]
        yield Rate(batch, statistics.fmean(found), statistics.stdev(found), calls, _peak(device))


def _inputs(generator: nn.Module, count: int, device: torch.device) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(count, generator.latent_dim, generator=random, device="cpu").to(device)
    classes = getattr(generator, "num_classes", 0)
    labels = torch.eye(classes, device=device)[torch.arange(count, device=device) % classes] if classes else None
    draws = {name: draw(count, random).to(device) for name, draw in getattr(generator, "draws", {}).items()}
    return latents, labels, draws


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
