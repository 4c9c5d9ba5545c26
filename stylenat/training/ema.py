"""The running average of the generator's weights, which is what one samples from (Progressive GAN, appendix)."""

import copy

import torch
from torch import nn


def averaged_copy(network: nn.Module) -> nn.Module:
    """A frozen copy to hold the average."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def ema_decay(batch_size: int, images_seen: int, half_life: float, rampup: float | None) -> float:
    """The decay of one iteration.

    Args:
        batch_size, images_seen: images an iteration, and before it.
        half_life: images after which a weight's share has halved. The published recipe's 0.5 ** (32 / 10000) is
            10,000 images at its batch of 32.
        rampup: the half-life is at most this share of the images seen (StyleGAN2-ADA's rule), so that a short run's
            average leaves its beginning behind; None for none.
    """
    if rampup is not None:
        half_life = min(half_life, images_seen * rampup)
    return 0.5 ** (batch_size / max(half_life, 1e-8))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """``average = decay * average + (1 - decay) * network``; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for ours, theirs in zip(average.buffers(), network.buffers(), strict=True):
        ours.copy_(theirs)
