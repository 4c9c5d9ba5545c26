"""StyleGAN2-ADA's affine warp (arXiv 2006.06676, appendix B.2): at twice the side, between two wavelet filters."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from plugins.augmentations.warp import SYM6, sampled
from stylenat.devices import constant, sent_like
from stylenat.networks.resampling import upfirdn

REACH = len(SYM6) // 4
"""Pixels of the original image that the filter reaches beyond a border."""
TAPS = tuple(tap / sum(SYM6) for tap in SYM6)


def resampled_warp(images: Tensor, maps: np.ndarray) -> Tensor:
    """[batch, channels, side, side] after the affine maps; reflected at the borders, zeros beyond the reflection.

    Args:
        maps: [batch, 3, 3], from output to input pixels about the image's centre.
    """
    side = images.shape[-1]
    left, right, top, bottom = _margins(maps, side)
    images = F.pad(images, (left, right, top, bottom), mode="reflect")
    taps = constant(TAPS, images.dtype, images.device)
    images = upfirdn(images, taps, up=2, padding=(6, 5, 6, 5), gain=4)

    # In pixels of the enlarged image, about its centre, which the margins have moved; then from [-1, 1] to [-1, 1].
    shift, half = np.eye(3), np.eye(3)
    shift[:2, 2] = (left - right) / 2, (top - bottom) / 2
    half[:2, 2] = -0.5  # The filter moves the image by half a pixel.
    double = np.diag((2.0, 2.0, 1.0))
    maps = half @ double @ shift @ maps @ np.linalg.inv(double) @ np.linalg.inv(half)
    wide = (side + 2 * REACH) * 2
    # A border of zeros, which everything beyond it is taken from.
    images = F.pad(images, (1, 1, 1, 1))
    height, width = images.shape[2:]
    maps = np.diag((2 / width, 2 / height, 1.0)) @ maps @ np.diag((wide / 2, wide / 2, 1.0))
    (there,) = sent_like(images, maps[:, :2])
    edge = constant((1 - 1 / width, 1 - 1 / height), images.dtype, images.device)
    enlarged = sampled(images, _grid(there, wide).clamp(-edge, edge))
    return upfirdn(enlarged, taps, down=2, padding=-1, correlate=True)


def _margins(maps: np.ndarray, side: int) -> tuple[int, int, int, int]:
    """Pixels (left, right, top, bottom) that the outputs see beyond the image, at most its side less one."""
    centre = (side - 1) / 2
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * centre + (0, 0, 1)
    seen = (maps @ corners.T)[:, :2]
    lowest, highest = seen.min(axis=(0, 2)), seen.max(axis=(0, 2))
    extent = [-lowest[0], highest[0], -lowest[1], highest[1]]
    left, right, top, bottom = (math.ceil(min(max(x + 2 * REACH - centre, 0), side - 1)) for x in extent)
    return left, right, top, bottom


def _grid(maps: Tensor, side: int) -> Tensor:
    """Where each of side x side output pixels lies, [batch, side, side, 2]; maps: [batch, 2, 3] between [-1, 1]."""
    line = (torch.arange(side, device=maps.device, dtype=maps.dtype) * 2 + (1 - side)) / side
    x, y, offset = maps[:, None, None].unbind(dim=-1)  # each [batch, 1, 1, 2]
    return offset + x * line[:, None] + y * line[:, None, None]
