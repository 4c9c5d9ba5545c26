"""Averages of the generator's weights, which are what one samples from (Progressive GAN, appendix A)."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from registry import Positive
from stylenat.interfaces import Schedule, Time, at

EMA = "ema"
"""The average that is sampled and measured, by its name in checkpoints."""


class Exponential:
    """Average ``exponential``: a running one with a half-life.

    Args:
        half_life: images after which a weight's part in the average has halved. The published recipe's
            0.5 ** (32 / 10000) an iteration is 10,000 images at its batch of 32.
        rampup: the half-life is at most this multiple of the images seen (StyleGAN2-ADA's rule), so that a short run's
            average leaves its beginning behind; None for no such bound.
    """

    def __init__(self, half_life: Positive | Schedule = 10_000, rampup: Positive | None = None) -> None:
        self.half_life, self.rampup = half_life, rampup

    def start(self, generator: nn.Module) -> dict[str, nn.Module]:
        return {EMA: averaged_copy(generator)}

    def update(self, averages: Mapping[str, nn.Module], generator: nn.Module, time: Time) -> None:
        update_average(averages[EMA], generator, self.decay(time))

    def decay(self, time: Time) -> float:
        """Of one iteration: the part of the average that stays."""
        half_life = at(self.half_life, time)
        if self.rampup is not None:
            half_life = min(half_life, time.images * self.rampup)
        return 0.5 ** (time.batch_size / max(half_life, 1e-8))


class NoAverage:
    """Average ``none``: the generator's own weights are sampled and measured."""

    def start(self, generator: nn.Module) -> dict[str, nn.Module]:
        return {}

    def update(self, averages: Mapping[str, nn.Module], generator: nn.Module, time: Time) -> None:
        """There is nothing to update."""


def averaged_copy(network: nn.Module) -> nn.Module:
    """A frozen copy to hold an average."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """``average = decay * average + (1 - decay) * network``; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for ours, theirs in zip(average.buffers(), network.buffers(), strict=True):
        ours.copy_(theirs)
