"""All colour transforms as one affine map an image (StyleGAN2-ADA, appendix B), acting on displayed colours."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plugins.augmentations.displayed import SCALE, SHIFT
from plugins.augmentations.draws import Draws
from stylenat.devices import sent_like


@dataclass(frozen=True)
class Colours:
    """What happens to each image's colours, in this order. Every array is [batch].

    Attributes:
        brightness: added, where white less black is 2.
        contrast: factor, about mid-grey.
        luma: 1 or -1, of the luma.
        hue: turn about the grey axis, in radians.
        saturation: factor of the distance from the grey axis.
    """

    brightness: np.ndarray
    contrast: np.ndarray
    luma: np.ndarray
    hue: np.ndarray
    saturation: np.ndarray


def colours(draws: Draws) -> Colours:
    """The published distributions."""
    return Colours(
        brightness=draws.normals("brightness", 0.2),
        contrast=draws.factors("contrast", 0.5),
        luma=draws.signs("luma_flip"),
        hue=draws.angles("hue"),
        saturation=draws.factors("saturation", 1.0),
    )


def maps(c: Colours) -> tuple[np.ndarray, np.ndarray]:
    """In the networks' space: matrices [batch, 3, 3] and offsets [batch, 3, 1].

    With the grey axis v, all transforms are sums of its projector P, of I - P and of the turn K about it: contrast
    scales everything, the luma flip negates P, hue turns and saturation scales the rest.
    """
    brightness, contrast, luma, hue, saturation = (
        values[:, None, None] for values in (c.brightness, c.contrast, c.luma, c.hue, c.saturation)
    )
    grey = np.full((3, 3), 1 / 3)
    turn = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rest = np.cos(hue) * (np.eye(3) - grey) + np.sin(hue) * turn
    matrix = contrast * (luma * grey + saturation * rest)
    offset = contrast * luma * brightness * np.ones((3, 1))
    # From the networks' space to displayed colours before, and back after.
    shift = SHIFT[:, None]
    return matrix * SCALE / SCALE[:, None], (matrix @ shift + offset - shift) / SCALE[:, None]


def recoloured(images: Tensor, c: Colours) -> Tensor:
    """Images [batch, 3, height, width] after ``c``: one product."""
    matrix, offset = sent_like(images, *maps(c))
    return torch.baddbmm(offset, matrix, images.flatten(2)).view(images.shape)
