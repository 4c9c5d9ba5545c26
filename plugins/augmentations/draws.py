"""What chance gives each image: which transforms fire, and the numbers that they take. No pixels here."""

from dataclasses import dataclass

import numpy as np
import torch

from stylenat.draws import normal, uniform

TRANSFORMS = {
    "blit": ("x_flip", "rotate_90", "integer_translation"),
    "geom": ("isotropic_scale", "rotation", "anisotropic_scale", "fractional_translation"),
    "color": ("brightness", "contrast", "luma_flip", "hue", "saturation"),
    "filter": ("band_1", "band_2", "band_3", "band_4"),
    "noise": ("noise",),
    "cutout": ("cutout",),
}
"""The transforms by group, in the order of StyleGAN2-ADA's appendix B."""

PRESETS = {group: (group,) for group in TRANSFORMS} | {
    "bg": ("blit", "geom"),
    "bgc": ("blit", "geom", "color"),
    "bgcf": ("blit", "geom", "color", "filter"),
    "bgcfn": ("blit", "geom", "color", "filter", "noise"),
    "bgcfnc": tuple(TRANSFORMS),
}
ORDER = tuple(name for group in TRANSFORMS.values() for name in group)
ROW = {name: row for row, name in enumerate((*ORDER, "second_rotation"))}


@dataclass(frozen=True)
class Draws:
    """Independent draws for every transform and image. Rows are in ``ROW``'s order.

    Attributes:
        fires: bool [rows, batch].
        uniform: in [0, 1), [2, rows, batch]: up to two numbers a transform.
        normal: standard normal, [2, rows, batch].
    """

    fires: np.ndarray
    uniform: np.ndarray
    normal: np.ndarray

    def signs(self, name: str) -> np.ndarray:
        """1 or -1 with equal chance; 1 where the transform does not fire. All of these are [batch]."""
        return self._where(name, 1 - 2 * np.floor(2 * self.uniform[0, ROW[name]]), 1)

    def angles(self, name: str) -> np.ndarray:
        """Uniform between -π and π, else 0."""
        return self._where(name, (2 * self.uniform[0, ROW[name]] - 1) * np.pi, 0)

    def between(self, name: str, low: float, high: float, k: int = 0) -> np.ndarray:
        """Uniform between low and high, else 0."""
        return self._where(name, low + (high - low) * self.uniform[k, ROW[name]], 0)

    def normals(self, name: str, deviation: float, k: int = 0) -> np.ndarray:
        """Normal, else 0."""
        return self._where(name, deviation * self.normal[k, ROW[name]], 0)

    def factors(self, name: str, deviation: float) -> np.ndarray:
        """2 to the power of a normal with this deviation, else 1."""
        return np.exp2(self.normals(name, deviation))

    def _where(self, name: str, values: np.ndarray, neutral: float) -> np.ndarray:
        return np.where(self.fires[ROW[name]], values, neutral)


def probabilities(p: float, multipliers: np.ndarray) -> np.ndarray:
    """[rows]: p times each transform's multiplier, at most 1.

    There are two rotations, one either side of the anisotropic scale, that together fire with the rotation's.
    """
    every = np.minimum(p * multipliers, 1.0)
    rotation = ROW["rotation"]
    every[rotation] = 1 - np.sqrt(1 - every[rotation])
    return np.append(every, every[rotation])


def draw(probability: np.ndarray, batch: int, random: torch.Generator) -> Draws:
    """Draws for a batch, from one call each of the generator's two kinds."""
    first = uniform(random, 3, len(ROW), batch, dtype=torch.float64).numpy()
    second = normal(random, 2, len(ROW), batch, dtype=torch.float64).numpy()
    return Draws(first[0] < probability[:, None], first[1:], second)
