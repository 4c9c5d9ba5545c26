"""Regularizer ``hit_bcr``: balanced consistency (arXiv 2002.04724) with HiT's transforms (arXiv 2106.07631)."""

import torch
from torch import Tensor

from plugins.augmentations.simple import cut, jittered, moved
from registry import NotNegative
from stylenat.devices import sent
from stylenat.draws import uniform
from stylenat.interfaces import Microbatch


class Consistency:
    """``weight * E[(D(T(x)) - D(x))²]`` on reals and on fakes; gradients reach both logits.

    T is DiffAugment's (arXiv 2006.10738), in the networks' own pixel space, which must be [-1, 1]: brightness within
    ±0.5, saturation times [0, 2], contrast times [0.5, 1.5]; translation up to an eighth of the side; a square of half
    the side set to 0. No flip, no clipping.

    Args:
        real_weight, fake_weight: of the two terms.
    """

    name = "bcr"
    network = "discriminator"
    own_step = False
    interval = 1

    def __init__(self, real_weight: NotNegative = 10.0, fake_weight: NotNegative = 10.0) -> None:
        self.real_weight, self.fake_weight = real_weight, fake_weight

    def __call__(self, batch: Microbatch) -> Tensor:
        real = batch.discriminate(self.transform(batch.images.detach(), batch.random), batch.labels)
        fake = batch.discriminate(self.transform(batch.fake.detach(), batch.random), batch.fake_labels)
        return (
            self.real_weight * (real - batch.real_logits).square().mean()
            + self.fake_weight * (fake - batch.fake_logits).square().mean()
        )

    def transform(self, images: Tensor, random: torch.Generator) -> Tensor:
        return transformed(images, sent(uniform(random, 7, len(images)), images.device))


def transformed(images: Tensor, draws: Tensor) -> Tensor:
    """T of images [batch, 3, side, side] in [-1, 1].

    Args:
        draws: uniform in [0, 1), [7, batch]: brightness, saturation, contrast, rows and columns of the translation and
            of the square.
    """
    images = jittered(images, draws[:3], brightness=0.5, saturation=1.0, contrast=0.5)
    return cut(moved(images, draws[3:5], translation=0.125), draws[5:7], cutout=0.5)
