"""Augmentation ``diffaugment``: differentiable augmentation (arXiv 2006.10738)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plugins.augmentations.displayed import from_displayed, to_displayed
from plugins.augmentations.simple import cut, jittered, moved
from registry import UserError
from stylenat.devices import sent
from stylenat.draws import uniform

POLICIES = ("color", "translation", "cutout")


class DiffAugment:
    """Each chosen transform on every image, in the order of the policy, on displayed colours with mid-grey fill.

    Colour is brightness ±0.5 (white less black is 2), saturation times [0, 2], contrast times [0.5, 1.5].

    Args:
        policy: of ``color``, ``translation`` and ``cutout``, with commas between.
        translation: largest shift as a share of the side; cutout: side of the missing square, likewise.
    """

    def __init__(
        self, policy: str = "color,translation,cutout", translation: float = 0.125, cutout: float = 0.5
    ) -> None:
        self.policy = [name.strip() for name in policy.split(",")]
        for name in self.policy:
            if name not in POLICIES:
                raise UserError(f"augmentation.diffaugment.policy has no {name!r}; there are {', '.join(POLICIES)}")
        if not (0 <= translation <= 1 and 0 <= cutout <= 1):
            raise UserError(
                "augmentation.diffaugment.translation and cutout are shares of the side, between 0 and 1; "
                f"got {translation} and {cutout}"
            )
        self.translation, self.cutout = translation, cutout

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        draws = sent(uniform(random, 7, len(images)), images.device)
        images = to_displayed(images)
        for name in self.policy:
            if name == "color":
                images = jittered(images, draws[:3], brightness=0.5, saturation=1.0, contrast=0.5)
            elif name == "translation":
                images = moved(images, draws[3:5], self.translation)
            else:
                images = cut(images, draws[5:7], self.cutout)
        return from_displayed(images)

    def observe(self, real_logits: Tensor) -> None:
        """There is nothing to adapt."""

    def scalars(self) -> Mapping[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state."""
