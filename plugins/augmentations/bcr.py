"""Augmentation ``bcr``: the transforms of balanced consistency (arXiv 2002.04724) as StyleSwin has them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plugins.augmentations.simple import cut, jittered, moved
from registry import NotNegative, Share
from stylenat.devices import sent
from stylenat.draws import uniform


class BalancedConsistencyTransforms:
    """Flip, translation, brightness, saturation, contrast, cutout, in that order, on every image.

    They act in the networks' normalised space with zero fill, as the paper's training does: what is cut out or moved
    in has ImageNet's mean colour, and brightness counts in its deviations.

    Args:
        flip: probability; translation: largest shift as a share of the side.
        brightness: largest shift either way; saturation, contrast: largest relative change.
        cutout: side of the square set to 0, as a share of the image's.
    """

    def __init__(
        self,
        flip: Share = 0.5,
        translation: Share = 0.125,
        brightness: NotNegative = 0.5,
        saturation: NotNegative = 1.0,
        contrast: NotNegative = 0.5,
        cutout: Share = 0.5,
    ) -> None:
        self.flip, self.translation, self.cutout = flip, translation, cutout
        self.brightness, self.saturation, self.contrast = brightness, saturation, contrast

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        draws = sent(uniform(random, 8, len(images)), images.device)
        images = moved(images, draws[1:3], self.translation, flips=draws[0] < self.flip)
        images = jittered(images, draws[3:6], self.brightness, self.saturation, self.contrast)
        return cut(images, draws[6:8], self.cutout)

    def observe(self, real_logits: Tensor) -> None:
        """There is nothing to adapt."""

    def scalars(self) -> Mapping[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state."""
