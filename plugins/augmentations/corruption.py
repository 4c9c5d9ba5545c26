"""Image-space corruption: noise and a missing square (StyleGAN2-ADA, appendix B), on displayed colours."""

import numpy as np
import torch
from torch import Tensor

from plugins.augmentations.displayed import SCALE, from_displayed, per_channel
from plugins.augmentations.draws import ROW, Draws
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
    noise = torch.stack([torch.randn(images.shape[1:], generator=each[i]) for i in noisy]).to(images)
    amplitude = torch.from_numpy(deviation[noisy]).to(images)[:, None, None, None] / per_channel(SCALE, images)
    return images.index_add(0, torch.from_numpy(noisy).to(images.device), noise * amplitude)


def holes(draws: Draws, side: int) -> np.ndarray:
    """Which pixels are missing, bool [batch, side, side]: a square around a centre that is uniform in the image."""
    row = ROW["cutout"]
    place = (np.arange(side) + 0.5) / side
    x, y = (np.abs(place - draws.uniform[k, row][:, None]) < CUTOUT / 2 for k in (0, 1))
    return y[:, :, None] & x[:, None, :] & draws.fires[row][:, None, None]


def with_holes(images: Tensor, missing: np.ndarray) -> Tensor:
    """Mid-grey where ``missing`` [batch, height, width]."""
    if not missing.any():
        return images
    grey = from_displayed(images.new_zeros(3, 1, 1))
    return torch.where(torch.from_numpy(missing).to(images.device)[:, None], grey, images)
