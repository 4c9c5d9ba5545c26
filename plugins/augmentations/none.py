"""Augmentation ``none``: the discriminator sees images as they are."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class NoAugmentation:
    """The identity."""

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        return images

    def observe(self, real_logits: Tensor) -> None:
        """There is nothing to adapt."""

    def scalars(self) -> Mapping[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state."""
