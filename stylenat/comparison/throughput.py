"""How fast each variant's generator draws, measured here and now. It is the only source of speeds in a comparison."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from registry import Registry
from stylenat.comparison.groups import Spread
from stylenat.comparison.results import Comparison
from stylenat.comparison.runs import load_run

BATCH = 16
WARM_UP = 2
REPEATS = 5
IDLE = 0.05
"""The share of the cores' time that others may use for the machine to count as idle."""


@dataclass(frozen=True)
class Measured:
    """``rates``: images a second by variant, of each repeat. ``notes``: how it was measured; a line if not alone."""

    rates: dict[str, Spread]
    notes: tuple[str, ...]


@torch.no_grad()
def sampling_rates(registry: Registry, comparison: Comparison, device: torch.device) -> Measured:
    """Times ``REPEATS`` batches of each variant after ``WARM_UP`` others; one runs at a time, the variants in turn.

    The weights are newly drawn, which costs the same.
    """
    calls: dict[str, Callable[[], object]] = {}
    for group in comparison.groups:
        first = group.runs[0].directory
        config = first.parent / "configs" / f"{first.name}.gin"
        generator = load_run(registry, first, config).value("train.generator")().to(device).eval()
        latents = torch.randn(BATCH, generator.latent_dim, device=device)
        labels = [torch.zeros(BATCH, count, device=device)] if (count := getattr(generator, "num_classes", 0)) else []
        calls[group.name] = lambda generator=generator, inputs=(latents, *labels): generator(*inputs)
    rates: dict[str, list[float]] = {name: [] for name in calls}
    before = _cpu_seconds()
    for repeat in range(WARM_UP + REPEATS):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= WARM_UP:
                rates[name].append(BATCH / (time.perf_counter() - began))
    notes = [
        f"images/s sampling: batches of {BATCH} on {device.type}, {WARM_UP} to warm up, mean ± standard deviation of "
        f"{REPEATS}, the variants in turn"
    ]
    busy = _share_of_others(before, _cpu_seconds())
    if busy is not None and busy > IDLE:
        notes.append(
            f"images/s sampling: other processes used {busy:.0%} of the cores meanwhile, so these speeds say little; "
            "measure again on an idle machine"
        )
    return Measured({name: Spread(tuple(found)) for name, found in rates.items()}, tuple(notes))


def _cpu_seconds() -> tuple[float, float, float] | None:
    """Seconds that all cores were busy, that they had, and that this process used; None where the system won't say."""
    try:
        fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    tick = os.sysconf("SC_CLK_TCK")
    return (sum(fields) - fields[3] - fields[4]) / tick, sum(fields) / tick, time.process_time()


def _share_of_others(
    before: tuple[float, float, float] | None, after: tuple[float, float, float] | None
) -> float | None:
    if before is None or after is None or after[1] <= before[1]:
        return None
    busy, there, own = (b - a for a, b in zip(before, after, strict=True))
    return max(busy - own, 0.0) / there
