"""Image-space filtering: four frequency bands, each amplified or damped (StyleGAN2-ADA, appendix B)."""

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from plugins.augmentations.displayed import SCALE, SHIFT
from plugins.augmentations.draws import TRANSFORMS, Draws
from stylenat.devices import sent_like

# Daubechies' wavelet with two vanishing moments, low-pass, of unit energy.
SYM2 = np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / (4 * 2**0.5)

EXPECTED_POWER = np.array([10, 1, 1, 1]) / 13
"""Of natural images in each band, lowest first: their spectrum falls as 1 / f."""


def gains(draws: Draws) -> np.ndarray:
    """Of each band, [batch, 4]. A band that fires is scaled by 2^N(0, 1), and all so that the power stays."""
    every = np.ones((draws.fires.shape[1], 4))
    for band, name in enumerate(TRANSFORMS["filter"]):
        scaled = np.ones_like(every)
        scaled[:, band] = draws.factors(name, 1.0)
        every *= scaled / np.sqrt(scaled**2 @ EXPECTED_POWER)[:, None]
    return every


@cache
def filter_bank() -> np.ndarray:
    """Zero-phase taps [4, 43] of the bands [0, π/8], [π/8, π/4], [π/4, π/2], [π/2, π]; they add up to the identity.

    Each level splits the lowest band by the wavelet's half-band filter and its complement.
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    high = low * (-1.0) ** np.arange(-3, 4)
    bank = np.eye(4, 1)
    for band in (1, 2, 3):
        spread = np.zeros((4, 2 * bank.shape[1] - 1))
        spread[:, ::2] = bank
        bank = np.stack([np.convolve(row, low) for row in spread])
        middle = bank.shape[1] // 2
        bank[band, middle - 3 : middle + 4] += high
    return bank


def filtered(images: Tensor, gains: np.ndarray) -> Tensor:
    """Images [batch, 3, height, width] with their bands scaled along x and then along y, reflecting at the borders.

    It acts on displayed colours, whose mid-grey stays. The filter is linear and scales a constant by the square of the
    lowest band's gain, so that the change of space is an offset.
    """
    grey = ((gains[:, :1] ** 2 - 1) * (SHIFT / SCALE))[:, :, None, None]
    taps, grey_there = sent_like(images, gains @ filter_bank(), grey)
    from kornia.filters import filter2d_separable  # A second to import, and most presets have no bands.

    images = filter2d_separable(reflected(images, taps.shape[1] // 2), taps, taps, padding="valid")
    return images + grey_there


def reflected(images: Tensor, margin: int) -> Tensor:
    """Extended by ``margin`` pixels each way, which may exceed the side: in steps from mirror to mirror."""
    if torch.are_deterministic_algorithms_enabled():  # The gradient of reflecting has no such form on CUDA.
        for dim in (2, 3):
            side = images.shape[dim]
            place = torch.arange(-margin, side + margin, device=images.device).abs() % (2 * side - 2)
            images = images.index_select(dim, torch.where(place < side, place, 2 * side - 2 - place))
        return images
    while margin:
        step = min(margin, min(images.shape[-2:]) - 1)
        images = F.pad(images, [step] * 4, mode="reflect")
        margin -= step
    return images
