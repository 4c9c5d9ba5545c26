"""How fast each variant's generator draws, measured here and now, side by side."""

import time
from collections.abc import Callable

import torch

from registry import Registry
from stylenat.comparison.results import Comparison
from stylenat.comparison.runs import load_run

BATCH = 16
REPEATS = 5


@torch.no_grad()
def sampling_rates(registry: Registry, comparison: Comparison, device: torch.device) -> dict[str, float]:
    """Images a second by variant: of ``REPEATS`` batches the fastest, the variants taking turns, after a warm-up.

    The weights are newly drawn, which costs the same.
    """
    calls: dict[str, Callable[[], object]] = {}
    for group in comparison.groups:
        generator = load_run(registry, group.runs[0].directory).value("train.generator")().to(device).eval()
        latents = torch.randn(BATCH, generator.latent_dim, device=device)
        calls[group.name] = lambda generator=generator, latents=latents: generator(latents)
    fastest = dict.fromkeys(calls, float("inf"))
    for _ in range(REPEATS + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - began
            fastest[name] = min(fastest[name], seconds)
    return {name: BATCH / seconds for name, seconds in fastest.items()}
