"""Regularizers ``r1`` and ``r2``: zero-centred gradient penalties on real and generated images (arXiv 1801.04406)."""

import torch
from torch import Tensor

from registry import Count, NotNegative
from stylenat.interfaces import Microbatch, Schedule, at


class R1:
    """``gamma / 2 * E[|grad D(real)|²] * interval``, lazily, as a step of its own (StyleGAN2, section 3.1).

    The gradient is taken with respect to the image before augmentation (StyleGAN2-ADA).

    Args:
        gamma: weight, a number or a schedule; interval: iterations between applications.
        own_step: False for a term of the main loss, which differentiates that loss's own logits (R3GAN, with interval
            1).
    """

    name = "r1"
    network = "discriminator"

    def __init__(self, gamma: NotNegative | Schedule = 10.0, interval: Count = 16, own_step: bool = True) -> None:
        self.gamma, self.interval, self.own_step = gamma, interval, own_step
        self.reuses_logits = not own_step

    def __call__(self, batch: Microbatch) -> Tensor:
        return self.penalty(batch, batch.images, batch.labels, batch.real_logits)

    def penalty(self, batch: Microbatch, images: Tensor, labels: Tensor | None, logits: Tensor | None) -> Tensor:
        """The term on these images; ``logits`` are theirs in the main loss, where the term is part of that."""
        if self.own_step:
            images = images.detach().requires_grad_()
            logits = batch.discriminate(images, labels)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        gamma = at(self.gamma, batch.time)
        return gamma / 2 * self.interval * gradient.square().flatten(1).sum(dim=1).mean()


class R2(R1):
    """``gamma / 2 * E[|grad D(fake)|²] * interval``: R1 on generated images (arXiv 1801.04406, equation 10).

    Args:
        gamma, interval, own_step: as R1's.
    """

    name = "r2"

    def __call__(self, batch: Microbatch) -> Tensor:
        return self.penalty(batch, batch.fake, batch.fake_labels, batch.fake_logits)
