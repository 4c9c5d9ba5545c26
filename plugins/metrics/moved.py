"""Images moved or turned by band-limited resampling, with masks of the pixels that no border touches (StyleGAN3,
arXiv 2106.12423, appendix E). Images are [batch, channels, side, side]; masks are [1, 1, side, side] of 0 and 1."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from stylenat.networks.resampling import blur, upfirdn, upsample

LOBES = 3
"""Of Lanczos' window, on each side."""


def shifted(images: Tensor, x: int, y: int) -> tuple[Tensor, Tensor]:
    """By whole pixels, to the right and down."""
    padding = x, -x, y, -y
    mask = images.new_ones(1, 1, *images.shape[2:])
    return F.pad(images, padding), F.pad(mask, padding)


def translated(images: Tensor, x: float, y: float) -> tuple[Tensor, Tensor]:
    """By any number of pixels, to the right and down, with Lanczos' filter."""
    (whole_x, along_x), (whole_y, along_y) = _lanczos(x), _lanczos(y)
    wide = LOBES, LOBES - 1
    for taps, padding in ((along_x[None], (*wide, 0, 0)), (along_y[:, None], (0, 0, *wide))):
        images = upfirdn(images, taps.to(images), padding=padding)
    images, mask = shifted(images, whole_x, whole_y)
    inside = torch.zeros_like(mask)
    inside[:, :, _valid(whole_y, mask.shape[2]), _valid(whole_x, mask.shape[3])] = 1
    return images, inside


def _lanczos(by: float) -> tuple[int, Tensor]:
    """Whole samples, and taps for the rest."""
    whole = math.floor(by)
    at = torch.arange(2 * LOBES, dtype=torch.float64) - (LOBES - 1) - (by - whole)
    taps = torch.special.sinc(at) * _window(at)
    return whole, taps / taps.sum()


def _window(at: Tensor) -> Tensor:
    return torch.where(at.abs() < LOBES, torch.special.sinc(at / LOBES), 0.0)


def _valid(by: int, side: int) -> slice:
    low, high = max(by + LOBES, 0), side + min(by - LOBES + 1, 0)
    return slice(low, max(low, high))


def rotation(angle: float) -> Tensor:
    """float64 [2, 2], from positions to where they are turned to."""
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


def turned(images: Tensor, angle: float, up: int = 4) -> tuple[Tensor, Tensor]:
    """About the centre, limited to the frequencies that both pixel grids carry."""
    taps = _grids_filter(rotation(angle), up).to(images)
    pad = len(taps) // 2
    side = images.shape[-1]
    high = upsample(images, taps, up, padding=pad)
    # Positions from -1 to 1 on the upsampled image, whose samples lie half a sample before the pixels' grid.
    theta = torch.zeros(2, 3, dtype=torch.float64)
    theta[:, :2] = rotation(-angle)
    theta[:, 2] = 1 / up / side
    theta *= side / (side + 2 * pad / up)
    grid = F.affine_grid(theta[None].to(images), [1, 1, side, side], align_corners=False)
    found = F.grid_sample(high, grid.expand(len(images), -1, -1, -1), align_corners=False)
    return found, F.grid_sample(_inside(high, 2 * pad + 1), grid, mode="nearest", align_corners=False)


def limited(images: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Not turned, but limited as ``turned`` images are: to the frequencies that the grid before a turn carries, too."""
    taps = _grids_filter(rotation(-angle), 1).to(images)
    return blur(images, taps), _inside(images, len(taps) // 2)


def _inside(images: Tensor, margin: int) -> Tensor:
    mask = images.new_zeros(1, 1, *images.shape[2:])
    mask[:, :, margin:-margin, margin:-margin] = 1
    return mask


def _grids_filter(turn: Tensor, up: int, kept: int = 2 * LOBES, wide: int = 64) -> Tensor:
    """A low-pass filter of two pixel grids, one turned against the other: float64 [2 kept up - 1, the same].

    The convolution of both grids' sinc filters, times that of both grids' Lanczos windows.

    Args:
        up: taps for each pixel; kept: pixels from the centre to the end; wide: the same while it is computed.
    """
    taps = ((torch.arange(2 * wide * up - 1, dtype=torch.float64) + 1) / up - wide).roll(1 - wide * up)
    y, x = torch.meshgrid(taps, taps, indexing="ij")
    other_x, other_y = (torch.stack([x, y], dim=2) @ turn.t()).unbind(dim=2)

    def both(function) -> Tensor:
        one, other = function(x) * function(y), function(other_x) * function(other_y)
        return torch.fft.irfftn(torch.fft.rfftn(one) * torch.fft.rfftn(other), s=one.shape)

    found = (both(torch.special.sinc) * both(_window)).roll((wide * up - 1, wide * up - 1), (0, 1))
    cut = (wide - kept) * up
    found = F.pad(found[cut:-cut, cut:-cut], [0, 1, 0, 1]).view(2 * kept, up, 2 * kept, up)
    found = found / found.sum(dim=(0, 2), keepdim=True) / up**2
    return found.reshape(2 * kept * up, -1)[:-1, :-1]
