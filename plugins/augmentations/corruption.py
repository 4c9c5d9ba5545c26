"""Image-space corruption: noise and a missing square (StyleGAN2-ADA, appendix B), on displayed colours."""

import numpy as np
import torch
from torch import Tensor

from plugins.augmentations.displayed import SCALE, from_displayed, per_channel
from plugins.augmentations.draws import ROW, Draws
from stylenat.devices import sent, sent_like
from stylenat.draws import generators

CUTOUT = 0.5
"""Side of the missing square, as a share of the image's."""


def deviations(draws: Draws) -> np.ndarray:
    """Of each image's noise where white less black is 2, [batch]: half-normal."""
    return np.abs(draws.normals("noise", 0.1))


def with_noise(images: Tensor, deviation: np.ndarray, random: torch.Generator) -> Tensor:
    """Independent normal noise on every pixel and channel; drawn for those images only that get any."""
    noisy = np.flatnonzero(deviation)
    if len(noisy) == 0:
        return images
    each = generators(random, len(images))
    drawn = torch.stack([torch.randn(images.shape[1:], generator=each[i]) for i in noisy])
    noise = sent(drawn.to(images.dtype), images.device)
    (strength,) = sent_like(images, deviation[noisy])
    amplitude = strength[:, None, None, None] / per_channel(SCALE, images)
    return images.index_add(0, sent(torch.from_numpy(noisy), images.device), noise * amplitude)


def holes(draws: Draws, side: int) -> np.ndarray:
    """The columns and rows of the missing pixels, bool [2, batch, side]: a square around a centre that is uniform in
    the image."""
    row = ROW["cutout"]
    place = (np.arange(side) + 0.5) / side
    return (np.abs(place - draws.uniform[:, row, :, None]) < CUTOUT / 2) & draws.fires[row][:, None]


def with_holes(images: Tensor, missing: np.ndarray) -> Tensor:
    """Mid-grey where both a pixel's column and its row are ``missing`` [2, batch, side]."""
    if not missing.any():
        return images
    columns, rows = sent(torch.from_numpy(missing), images.device)
    grey = from_displayed(images.new_zeros(3, 1, 1))
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], grey, images)
