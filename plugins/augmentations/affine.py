"""All pixel blits and geometry as one affine map an image (StyleGAN2-ADA, appendix B)."""

from dataclasses import dataclass

import numpy as np

from plugins.augmentations.draws import Draws


@dataclass(frozen=True)
class Geometry:
    """What happens to each image, in this order. Every array is [batch] unless it says otherwise.

    Attributes:
        flip: 1 or -1, of x.
        quarters: quarter turns, 0 to 3.
        pixels: whole pixels of translation (x, y), [batch, 2].
        zoom: isotropic scale; above 1 enlarges.
        first, second: rotations in radians, either side of the anisotropic scale.
        stretch: x is enlarged by it and y reduced.
        shift: translation (x, y) in shares of the side, [batch, 2].
    """

    flip: np.ndarray
    quarters: np.ndarray
    pixels: np.ndarray
    zoom: np.ndarray
    first: np.ndarray
    stretch: np.ndarray
    second: np.ndarray
    shift: np.ndarray


def geometry(draws: Draws, side: int) -> Geometry:
    """The published distributions, for images of this side."""
    return Geometry(
        flip=draws.signs("x_flip"),
        quarters=np.floor(draws.between("rotate_90", 0, 4)),
        pixels=np.round(
            np.stack([draws.between("integer_translation", -side / 8, side / 8, k) for k in (0, 1)], axis=1)
        ),
        zoom=draws.factors("isotropic_scale", 0.2),
        first=draws.angles("rotation"),
        stretch=draws.factors("anisotropic_scale", 0.2),
        second=draws.angles("second_rotation"),
        shift=np.stack([draws.normals("fractional_translation", 0.125, k) for k in (0, 1)], axis=1),
    )


def matrices(g: Geometry, side: int) -> np.ndarray:
    """From output to input coordinates, both in [-1, 1], [batch, 2, 3].

    The product of the inverses, first transform leftmost, in closed form: with R a rotation and D the anisotropic
    scale, the linear part is flip R(a) D R(b) / zoom, where the quarter turn joins a, since the zoom commutes with it.
    The integer translation goes leftmost, before flip and quarter turn are undone: its distribution is symmetric
    under both.
    """
    a = g.first + g.quarters * (np.pi / 2)
    dx, dy = 1 / (g.zoom * g.stretch), g.stretch / g.zoom
    cos_a, sin_a, cos_b, sin_b = np.cos(a), np.sin(a), np.cos(g.second), np.sin(g.second)
    maps = np.empty((len(a), 2, 3))
    maps[:, 0, 0] = g.flip * (cos_a * dx * cos_b - sin_a * dy * sin_b)
    maps[:, 0, 1] = g.flip * (-cos_a * dx * sin_b - sin_a * dy * cos_b)
    maps[:, 1, 0] = sin_a * dx * cos_b + cos_a * dy * sin_b
    maps[:, 1, 1] = -sin_a * dx * sin_b + cos_a * dy * cos_b
    # The side is 2 long in these coordinates.
    maps[:, :, 2] = g.pixels * (-2 / side) - 2 * np.einsum("bij,bj->bi", maps[:, :, :2], g.shift)
    return maps


def minification(maps: np.ndarray) -> np.ndarray:
    """By how much each map shrinks the image where it shrinks it most, [batch]: its largest singular value."""
    (a, b), (c, d) = maps[:, 0, :2].T, maps[:, 1, :2].T
    return (np.hypot(a + d, b - c) + np.hypot(a - d, b + c)) / 2
