"""DiffAugment (arXiv 2006.10738) as the projected discriminators' code has it: colour, translation, cutout, always, on
images in [-1, 1] with mid-grey fill. Draws are uniform in [0, 1), [batch, 7]."""

from collections.abc import Sequence

import torch
from torch import Tensor

from plugins.augmentations.simple import jittered

DRAWS = 7
"""An image: brightness, saturation, contrast, two of the translation, two of the cutout."""

TRANSLATION, CUTOUT = 1 / 8, 0.2
"""The largest shift, and the side of the missing square, as shares of the image's side."""


def augmented(images: Tensor, draws: Tensor, policy: Sequence[str]) -> Tensor:
    """Images [batch, 3, side, side] by the parts of the policy, in its order."""
    by = draws.t()
    for name in policy:
        if name == "color":
            images = jittered(images, by[:3], brightness=0.5, saturation=1.0, contrast=0.5)
        elif name == "translation":
            images = translated(images, by[3:5])
        else:
            images = with_hole(images, by[5:7])
    return images


def translated(images: Tensor, draws: Tensor) -> Tensor:
    """By whole pixels, filled with 0."""
    height, width = images.shape[2:]
    sources, inside = [], []
    for side, draw in zip((height, width), draws, strict=True):
        largest = int(TRANSLATION * side + 0.5)
        shift = torch.floor(draw * (2 * largest + 1)).long() - largest
        source = torch.arange(side, device=images.device) + shift[:, None]
        inside.append((source >= 0) & (source < side))
        sources.append(source.clamp(0, side - 1))
    flat = sources[0][:, :, None] * width + sources[1][:, None, :]
    moved = images.flatten(2).gather(2, flat.view(len(images), 1, -1).expand(-1, images.shape[1], -1))
    return moved.view(images.shape) * (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images)


def with_hole(images: Tensor, draws: Tensor) -> Tensor:
    """0 in a square whose centre is anywhere in the image; what lies outside of it falls on the border."""
    height, width = images.shape[2:]
    inside = []
    for side, draw in zip((height, width), draws, strict=True):
        hole = int(CUTOUT * side + 0.5)
        centre = torch.floor(draw * (side + (1 - hole % 2))).long()
        place = (centre[:, None] - hole // 2 + torch.arange(hole, device=images.device)).clamp(0, side - 1)
        covered = torch.zeros(len(images), side, device=images.device)
        inside.append(covered.scatter(1, place, 1.0))
    hole = inside[0][:, None, :, None] * inside[1][:, None, None, :]
    return images * (1 - hole).to(images)
