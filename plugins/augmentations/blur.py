"""Augmentation ``blur``: at the beginning of a training the discriminator sees blurred images (StyleGAN3)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.augmentations.displayed import from_displayed, to_displayed
from plugins.augmentations.none import NoAugmentation
from registry import Count, NotNegative
from stylenat.devices import sent_like
from stylenat.interfaces import Augmentation, Time
from stylenat.networks.resampling import blur


class FadingBlur:
    """A blur of all images, real and generated, that fades linearly, followed by another augmentation.

    The kernel is exp2(-(k / sigma)²) for integers k up to 3 sigma either way, so that its standard deviation is
    sigma / sqrt(2 ln 2). There is none below sigma = 1/3. It acts on displayed colours; beyond the border is mid-grey.

    Args:
        sigma: at the first image, in pixels; images: real images after which it is 0.
        then: augmentation of the blurred images; None for none.
    """

    def __init__(self, sigma: NotNegative = 10.0, images: Count = 200_000, then: Augmentation | None = None) -> None:
        self.sigma, self.images = sigma, images
        self.then: Augmentation = NoAugmentation() if then is None else then
        self._now = sigma

    def begin(self, time: Time) -> None:
        self._now = self.sigma * max(1 - time.images / self.images, 0.0)
        if hasattr(self.then, "begin"):
            self.then.begin(time)

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        reach = math.floor(3 * self._now)
        if reach:
            (taps,) = sent_like(images, kernel(self._now, reach))
            images = from_displayed(blur(to_displayed(images), taps))
        return self.then(images, random)

    def observe(self, real_logits: Tensor) -> None:
        """Only the augmentation that follows may adapt."""
        self.then.observe(real_logits)

    def scalars(self) -> Mapping[str, float]:
        return {"augmentation/blur_sigma": self._now, **self.then.scalars()}

    def state_dict(self) -> dict[str, Any]:
        return self.then.state_dict()  # Sigma follows from the time.

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.then.load_state_dict(state)


def kernel(sigma: float, reach: int) -> np.ndarray:
    """Taps [2 reach + 1] of both axes, summing to 1."""
    taps = np.exp2(-((np.arange(-reach, reach + 1) / sigma) ** 2))
    return taps / taps.sum()
