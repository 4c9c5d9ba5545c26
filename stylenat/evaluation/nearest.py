"""Nearest training images of samples, and of training images themselves: what a generator may have memorised."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Embed = Callable[[Tensor], Tensor]
"""uint8 [batch, 3, side, side] to float32 [batch, dim]."""
SIDE = 64
"""Pixels are compared at this side at most, which bounds the memory; larger images are averaged."""
ROWS = 256
"""Images whose distances to all others are in memory at once."""


def pixels(images: Tensor) -> Tensor:
    """Pixels from 0 to 1, [batch, 3 * side * side]."""
    images = images.float() / 255
    return (F.adaptive_avg_pool2d(images, SIDE) if images.shape[-1] > SIDE else images).flatten(1)


def wavelets(images: Tensor) -> Tensor:
    """The Haar bands of ``pixels`` at every level, without the mean: edges and textures whatever the brightness.

    Each level's bands count the same: they are divided by the root of their number.
    """
    side = min(images.shape[-1], SIDE)
    x, found = pixels(images).view(len(images), 3, side, side), []
    while x.shape[-1] % 2 == 0:
        a, b, c, d = (x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        bands = torch.stack([a - b + c - d, a + b - c - d, a - b - c + d], dim=1).flatten(1) / 2
        found.append(bands / bands.shape[1] ** 0.5)
        x = (a + b + c + d) / 4
    return torch.cat(found, dim=1) if found else x.flatten(1)


@dataclass(frozen=True)
class Nearest:
    """In one space.

    Attributes:
        distance, index: of each sample's nearest training image, either way round, [samples].
        real: of each training image's nearest other one, [training images].
    """

    distance: Tensor
    index: Tensor
    real: Tensor

    @property
    def closer(self) -> float:
        """The share of samples that are nearer to a training image than 95 % of training images are to another; about
        0.05 is expected of new images of the same distribution."""
        return float((self.distance < torch.quantile(self.real, 0.05)).float().mean())


def nearest(samples: Tensor, real: Tensor, embed: Embed, progress: Callable[[int], None]) -> Nearest:
    """Euclidean distances in a space, to training images and their mirror images.

    Args:
        samples: uint8 [samples, 3, side, side]; real: uint8 [training images, 3, side, side], at least two.
        progress: called with the number of images that were embedded.
    """
    done = 0

    def embedded(images: Tensor) -> Tensor:
        nonlocal done
        parts = []
        for part in images.split(16):
            parts.append(embed(part).float().cpu())
            done += len(part)
            progress(done)
        return torch.cat(parts)

    ours, theirs, mirrored = embedded(samples), embedded(real), embedded(real.flip(-1))
    parts = [_to_either(part, theirs, mirrored).min(1) for part in ours.split(ROWS)]
    among = []
    for start in range(0, len(theirs), ROWS):
        distances = _to_either(theirs[start : start + ROWS], theirs, mirrored)
        distances.diagonal(start).fill_(torch.inf)  # No image is its own neighbour.
        among.append(distances.min(1).values)
    distance, index = (torch.cat([getattr(part, name) for part in parts]) for name in ("values", "indices"))
    return Nearest(distance, index, torch.cat(among))


def _to_either(rows: Tensor, theirs: Tensor, mirrored: Tensor) -> Tensor:
    """[rows, training images]: distances to the images or their mirror images, whichever is nearer."""
    return torch.minimum(torch.cdist(rows, theirs), torch.cdist(rows, mirrored))
