"""Displayed colours, -1 for black and 1 for white in each channel, against the networks' normalised space."""

import numpy as np
import torch
from torch import Tensor

from stylenat.devices import constant
from stylenat.pixels import MEAN, STD

# displayed = SCALE * networks + SHIFT, by channel.
SCALE = 2 * np.array(STD)
SHIFT = 2 * np.array(MEAN) - 1


def per_channel(values: np.ndarray, like: Tensor) -> Tensor:
    """Three numbers that never change, as [3, 1, 1]."""
    return constant(tuple(values.tolist()), like.dtype, like.device).view(3, 1, 1)


def to_displayed(images: Tensor) -> Tensor:
    """From the networks' space, [batch, 3, height, width]."""
    return torch.addcmul(per_channel(SHIFT, images), images, per_channel(SCALE, images))


def from_displayed(images: Tensor) -> Tensor:
    """To the networks' space."""
    return (images - per_channel(SHIFT, images)) / per_channel(SCALE, images)
