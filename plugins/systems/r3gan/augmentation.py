"""Augmentation ``r3gan``: StyleGAN2-ADA's transforms (arXiv 2006.06676, appendix B) with a scheduled strength."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.augmentations import affine, colour, corruption
from plugins.augmentations.displayed import from_displayed, to_displayed
from plugins.augmentations.draws import ORDER, TRANSFORMS, Draws, draw, probabilities
from plugins.systems.r3gan.resampled_warp import resampled_warp
from registry import Share
from stylenat.interfaces import Schedule, Time, at

STRENGTHS = {"blit": 1.0, "geom": 1.0, "color": 0.5, "cutout": 1.0}
"""Of p, by group of transforms."""
MULTIPLIERS = np.array(
    [STRENGTHS.get(group, 0.0) for group, transforms in TRANSFORMS.items() for name in transforms if name in ORDER]
)


class ScheduledAugmentation:
    """Blits, geometry and cutout with probability p each, colour with p / 2; no image filter and no noise.

    p does not adapt: it is a number or a schedule, by default R3GAN's number after the burn-in of FFHQ.

    Args:
        p: probability of each transform, bounded by 1.
    """

    def __init__(self, p: Share | Schedule = 0.3) -> None:
        self.p = p
        self._now = 0.0 if callable(p) else p

    def begin(self, time: Time) -> None:
        self._now = min(at(self.p, time), 1.0)

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        if self._now == 0:
            return images
        return applied(images, draw(probabilities(self._now, MULTIPLIERS), len(images), random))

    def observe(self, real_logits: Tensor) -> None:
        """The strength does not depend on the logits."""

    def scalars(self) -> Mapping[str, float]:
        return {"augmentation/p": self._now}

    def state_dict(self) -> dict[str, Any]:
        return {}  # p follows from the time.

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to load."""


def applied(images: Tensor, draws: Draws) -> Tensor:
    """Images [batch, 3, side, side] in ImageNet's normalised space after what the draws say, in the same space."""
    side, dtype = images.shape[-1], images.dtype
    images = images.float() if dtype == torch.bfloat16 else images
    # What lies outside of a warped image is mid-grey.
    images = from_displayed(resampled_warp(to_displayed(images), inverse_maps(affine.geometry(draws, side), side)))
    images = colour.recoloured(images, colour.colours(draws))
    return corruption.with_holes(images, corruption.holes(draws, side)).to(dtype)


def inverse_maps(g: affine.Geometry, side: int) -> np.ndarray:
    """From output to input pixels about the image's centre, [batch, 3, 3]: the inverses' product, first one leftmost.

    ``affine.matrices`` has the same distribution, but undoes the translation by whole pixels first.
    """
    found = _scale(g.flip, np.ones_like(g.flip))
    found = found @ _rotation(g.quarters * (np.pi / 2))
    found = found @ _translation(-g.pixels)
    found = found @ _scale(1 / g.zoom, 1 / g.zoom)
    found = found @ _rotation(g.first)
    found = found @ _scale(1 / g.stretch, g.stretch)
    found = found @ _rotation(g.second)
    return found @ _translation(-side * g.shift)


def _scale(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found = np.zeros((len(x), 3, 3))
    found[:, 0, 0], found[:, 1, 1], found[:, 2, 2] = x, y, 1
    return found


def _rotation(angle: np.ndarray) -> np.ndarray:
    found = _scale(np.cos(angle), np.cos(angle))
    found[:, 1, 0] = np.sin(angle)
    found[:, 0, 1] = -found[:, 1, 0]
    return found


def _translation(shift: np.ndarray) -> np.ndarray:
    found = np.tile(np.eye(3), (len(shift), 1, 1))
    found[:, :2, 2] = shift
    return found
