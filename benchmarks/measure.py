"""What the benchmarks share: a reference of the machine's own speed, and alternating repeats."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

FLOP = 2 * 4096 * 512 * 2048


@dataclass(frozen=True)
class Times:
    """Seconds of one side: every repeat."""

    repeats: list[float]

    @property
    def minimum(self) -> float:
        return min(self.repeats)

    @property
    def median(self) -> float:
        return statistics.median(self.repeats)

    def __str__(self) -> str:
        return f"{1000 * self.minimum:.0f} / {1000 * self.median:.0f} ms"


def alternating(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Times]:
    """Times of each side, one repeat of every side after another, after one warm-up of each."""
    for call in sides.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, call in sides.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {name: Times(values) for name, values in seconds.items()}


def product(dtype: torch.dtype = torch.float32) -> Callable[[], object]:
    """The reference: a [4096, 512] x [512, 2048] product, float32 by default, ``FLOP`` operations, a few at once."""
    a, b = torch.randn(4096, 512).to(dtype), torch.randn(512, 2048).to(dtype)
    out = torch.empty(4096, 2048, dtype=dtype)

    def call() -> None:
        for _ in range(5):
            torch.mm(a, b, out=out)

    return call


def gflops(times: Times) -> float:
    """The reference's rate at its best, in GFLOP/s."""
    return 5 * FLOP / times.minimum / 1e9
