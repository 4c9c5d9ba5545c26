"""Flip, translation, colour jitter and cutout with zero fill, in whatever space the images are in: what balanced
consistency (arXiv 2002.04724, as in StyleSwin) and DiffAugment (arXiv 2006.10738) are made of.

Draws are uniform in [0, 1), [batch], on the images' device; images are [batch, 3, side, side].
"""

import torch
from torch import Tensor


def moved(images: Tensor, shift: Tensor, translation: float, flips: Tensor | None = None) -> Tensor:
    """Flipped and then translated by whole pixels, zero-filled: one gather.

    Args:
        shift: draws of y and x, [2, batch]; translation: the largest, as a share of the side.
        flips: bool [batch].
    """
    batch, channels, side, _ = images.shape
    largest = round(translation * side)
    by = torch.floor(shift * (2 * largest + 1)).long() - largest  # [2, batch]
    place = torch.arange(side, device=images.device)
    y = place + by[0][:, None]
    x = place + by[1][:, None]
    if flips is not None:
        x = torch.where(flips[:, None], side - 1 - x, x)
    inside = ((y >= 0) & (y < side))[:, :, None] & ((x >= 0) & (x < side))[:, None, :]
    source = y.clamp(0, side - 1)[:, :, None] * side + x.clamp(0, side - 1)[:, None, :]
    source = source.view(batch, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, source).view(images.shape) * inside[:, None].to(images)


def jittered(images: Tensor, draws: Tensor, brightness: float, saturation: float, contrast: float) -> Tensor:
    """Brightness, saturation, contrast, in that order.

    Args:
        draws: of the three, [3, batch].
        brightness: largest shift either way; saturation, contrast: largest relative change.
    """
    by, colourful, strong = ((2 * d - 1).to(images)[:, None, None, None] for d in draws)
    images = images + brightness * by
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(grey, images, 1 + saturation * colourful)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, 1 + contrast * strong)


def cut(images: Tensor, draws: Tensor, cutout: float) -> Tensor:
    """Zero in a square that may reach over the border.

    Args:
        draws: of its centre's y and x, [2, batch]; cutout: its side, as a share of the image's.
    """
    side = images.shape[-1]
    hole = round(cutout * side)
    if hole == 0:
        return images
    place = torch.arange(side, device=images.device)
    centre = torch.floor(draws * (side + 1 - hole % 2))[..., None]
    inside = (place >= centre - hole // 2) & (place < centre - hole // 2 + hole)  # [2, batch, side]
    keep = ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])
    return images * keep.to(images)
