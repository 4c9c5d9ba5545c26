"""Averages of the generator's weights, which are what one samples from (Progressive GAN, appendix A)."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from registry import CountOrZero, Positive
from stylenat.interfaces import Schedule, Time, at
from stylenat.networks.batch_norm import running_statistics

EMA = "ema"
"""The average that is sampled and measured, by its name in checkpoints."""


class Exponential:
    """Average ``exponential``: a running one with a half-life.

    Args:
        half_life: images after which a weight's part in the average has halved. The published recipe's
            0.5 ** (32 / 10000) an iteration is 10,000 images at its batch of 32.
        rampup: the half-life is at most this multiple of the images seen (StyleGAN2-ADA's rule), so that a short run's
            average leaves its beginning behind; None for no such bound.
        copied: iterations after which the average is a copy of the weights, before it begins to run.
    """

    def __init__(
        self, half_life: Positive | Schedule = 10_000, rampup: Positive | None = None, copied: CountOrZero = 0
    ) -> None:
        self.half_life, self.rampup, self.copied = half_life, rampup, copied

    def start(self, generator: nn.Module) -> dict[str, nn.Module]:
        return {EMA: averaged_copy(generator)}

    def update(self, averages: Mapping[str, nn.Module], generator: nn.Module, time: Time) -> None:
        update_average(averages[EMA], generator, self.decay(time))

    def decay(self, time: Time) -> float:
        """Of one iteration: the part of the average that stays."""
        if time.iteration < self.copied:
            return 0.0
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
    """``average = decay * average + (1 - decay) * network``, of parameters and batch norm's running statistics; other
    buffers are copied."""
    averaged = [
        [*one.parameters(), *(getattr(norm, name) for norm, name in running_statistics(one))]
        for one in (average, network)
    ]
    torch._foreach_lerp_(*averaged, 1 - decay)
    statistics = set(map(id, averaged[0]))
    for ours, theirs in zip(average.buffers(), network.buffers(), strict=True):
        if id(ours) not in statistics:
            ours.copy_(theirs)
