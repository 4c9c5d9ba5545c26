"""Regularizer ``r1``: the gradient penalty on real images (arXiv 1801.04406)."""

import torch
from torch import Tensor

from registry import Count, NotNegative
from stylenat.interfaces import StepContext


class R1:
    """``gamma / 2 * E[|grad D(real)|²] * interval``, lazily, as a step of its own (StyleGAN2, section 3.1).

    The gradient is taken with respect to the image before augmentation (StyleGAN2-ADA).

    Args:
        gamma: weight; interval: iterations between applications.
    """

    name = "r1"
    network = "discriminator"
    own_step = True

    def __init__(self, gamma: NotNegative = 10.0, interval: Count = 16) -> None:
        self.gamma, self.interval = gamma, interval

    def __call__(self, context: StepContext) -> Tensor:
        images = context.real.detach().requires_grad_()
        logits = context.discriminate(images)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return self.gamma / 2 * self.interval * gradient.square().flatten(1).sum(dim=1).mean()
