"""Augmentation ``ada``: adaptive discriminator augmentation (StyleGAN2-ADA, arXiv 2006.06676)."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from plugins.augmentations.warp import warp
from registry import UserError
from stylenat.data.pixels import MEAN, STD

TRANSFORMS = {
    "blit": ("x_flip", "rotate_90", "integer_translation"),
    "geom": ("isotropic_scale", "rotation", "anisotropic_scale", "fractional_translation"),
    "color": ("brightness", "contrast", "luma_flip", "hue", "saturation"),
}
PRESETS = {
    "blit": ("blit",),
    "geom": ("geom",),
    "color": ("color",),
    "bg": ("blit", "geom"),
    "bgc": ("blit", "geom", "color"),
}
ORDER = [name for group in TRANSFORMS.values() for name in group]


class AdaptiveAugmentation:
    """Each transform fires with probability p times its multiplier, image by image; p follows the overfitting.

    All blits and geometry are one affine map and one warp, all colour one matrix (appendix B, in closed form). The
    colour transforms act on displayed colours, though the networks' space is another. p rises while
    r_t = E[sign(D(real))] is above ``target`` and falls below it (section 3.2).

    Args:
        preset: groups of transforms: ``blit``, ``geom``, ``color``, ``bg`` or ``bgc``.
        multipliers: by transform, instead of 1, such as ``{'rotate_90': 0}``.
        initial_p: p at the start; max_p: its bound.
        policy: ``adaptive``, or ``fixed`` to keep p.
        target: of r_t; interval: iterations between adaptations.
        images_to_full: real images in which p can go from 0 to 1.
    """

    def __init__(
        self,
        preset: str = "bgc",
        multipliers: dict[str, float] | None = None,
        initial_p: float = 0.0,
        max_p: float = 1.0,
        policy: Literal["adaptive", "fixed"] = "adaptive",
        target: float = 0.6,
        interval: int = 4,
        images_to_full: int = 500_000,
    ) -> None:
        if preset not in PRESETS:
            raise UserError(f"augmentation.ada.preset has no {preset!r}; there are {', '.join(PRESETS)}")
        unknown = set(multipliers or {}) - set(ORDER)
        if unknown:
            raise UserError(
                f"augmentation.ada.multipliers has no transform {unknown.pop()!r}; there are {', '.join(ORDER)}"
            )
        if not 0 <= initial_p <= max_p <= 1:
            raise UserError(f"augmentation.ada needs 0 <= initial_p <= max_p <= 1; got {initial_p} and {max_p}")
        chosen = {name: 1.0 for group in PRESETS[preset] for name in TRANSFORMS[group]} | (multipliers or {})
        self._multipliers = np.array([chosen.get(name, 0.0) for name in ORDER])
        self.p, self.max_p, self.policy = initial_p, max_p, policy
        self.target, self.interval, self.images_to_full = target, interval, images_to_full
        self.images_seen = 0
        self.r_t = 0.0
        self._signs: list[Tensor] = []
        self._batch = 0

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        if self.p == 0:
            return images
        side = images.shape[-1]
        draws = torch.rand(3, len(ORDER) + 1, len(images), generator=random, dtype=torch.float64).numpy()
        normals = torch.randn(len(ORDER) + 1, len(images), generator=random, dtype=torch.float64).numpy()
        probabilities = self.p * self._multipliers
        # Two rotations, one either side of the anisotropic scale, that together fire with probability p.
        rotation = ORDER.index("rotation")
        probabilities[rotation] = 1 - math.sqrt(1 - probabilities[rotation])
        fires = draws[0] < np.append(probabilities, probabilities[rotation])[:, None]
        if self._multipliers[: ORDER.index("brightness")].any():
            images = warp(images, torch.from_numpy(affine_maps(fires, draws[1], draws[2], normals, side)))
        if self._multipliers[ORDER.index("brightness") :].any():
            matrix, offset = (torch.from_numpy(t).to(images) for t in colour_maps(fires, draws[1], normals))
            images = torch.baddbmm(offset, matrix, images.flatten(2)).view(images.shape)
        return images

    def observe(self, real_logits: Tensor) -> None:
        self._signs.append(real_logits.sign().mean())
        self._batch += len(real_logits)
        self.images_seen += len(real_logits)
        if len(self._signs) < self.interval:
            return
        self.r_t = float(torch.stack(self._signs).mean())
        if self.policy == "adaptive":
            move = math.copysign(self._batch / self.images_to_full, self.r_t - self.target)
            self.p = min(max(self.p + move, 0.0), self.max_p)
        self._signs, self._batch = [], 0

    def scalars(self) -> Mapping[str, float]:
        return {"augmentation/p": self.p, "augmentation/r_t": self.r_t}

    def state_dict(self) -> dict[str, Any]:
        signs = [float(sign) for sign in self._signs]
        return {
            "p": self.p, "r_t": self.r_t, "images_seen": self.images_seen, "signs": signs, "batch": self._batch
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.p, self.r_t, self.images_seen = state["p"], state["r_t"], state["images_seen"]
        self._signs, self._batch = [torch.tensor(sign) for sign in state["signs"]], state["batch"]


def affine_maps(
    fires: np.ndarray, uniform: np.ndarray, uniform_2: np.ndarray, normal: np.ndarray, side: int
) -> np.ndarray:
    """Output to input coordinates in [-1, 1], [batch, 2, 3].

    Flip, quarter turn and rotation a, anisotropic scale, rotation b make the linear part flip R(a) D R(b) / s. The
    turn joins a, since isotropic scale commutes with it; the integer translation comes last in input coordinates,
    which leaves its symmetric distribution as it was.

    Args:
        fires, uniform, uniform_2, normal: [transforms + 1, batch], rows in ``ORDER``; the extra one is rotation b.
    """
    row = {name: i for i, name in enumerate(ORDER)}

    def drawn(name: str, values: np.ndarray, neutral: float) -> np.ndarray:
        return np.where(fires[row[name]], values, neutral)

    flip = drawn("x_flip", 1 - 2 * np.floor(2 * uniform[row["x_flip"]]), 1)
    turn = drawn("rotate_90", np.floor(4 * uniform[row["rotate_90"]]) * (np.pi / 2), 0)
    zoom = drawn("isotropic_scale", np.exp2(0.2 * normal[row["isotropic_scale"]]), 1)
    a = turn + drawn("rotation", (2 * uniform[row["rotation"]] - 1) * np.pi, 0)
    b = np.where(fires[-1], (2 * uniform[-1] - 1) * np.pi, 0)
    stretch = drawn("anisotropic_scale", np.exp2(0.2 * normal[row["anisotropic_scale"]]), 1)
    dx, dy = 1 / (zoom * stretch), stretch / zoom

    linear = np.empty((len(flip), 2, 3))
    cos_a, sin_a, cos_b, sin_b = np.cos(a), np.sin(a), np.cos(b), np.sin(b)
    linear[:, 0, 0] = flip * (cos_a * dx * cos_b - sin_a * dy * sin_b)
    linear[:, 0, 1] = flip * (-cos_a * dx * sin_b - sin_a * dy * cos_b)
    linear[:, 1, 0] = sin_a * dx * cos_b + cos_a * dy * sin_b
    linear[:, 1, 1] = -sin_a * dx * sin_b + cos_a * dy * cos_b

    # Translations in units of half the side, since coordinates run from -1 to 1.
    i = row["integer_translation"]
    whole = np.stack([uniform[i], uniform_2[i]], axis=1) * 0.25 - 0.125
    whole = np.where(fires[i][:, None], np.round(whole * side) * (2 / side), 0)
    f = row["fractional_translation"]
    fraction = np.stack([normal[f], normal[-1]], axis=1) * (2 * 0.125)
    fraction = np.where(fires[f][:, None], fraction, 0)
    linear[:, :, 2] = whole - np.einsum("bij,bj->bi", linear[:, :, :2], fraction)
    return linear


def colour_maps(fires: np.ndarray, uniform: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The colour transforms in the networks' space: matrices [batch, 3, 3] and offsets [batch, 3, 1].

    With the grey axis v, all of them are sums of its projector P, of I - P and of the turn K about it: contrast scales
    everything, the luma flip negates P, hue turns and saturation scales the rest. Displayed colours are in [-1, 1].
    """
    row = {name: i for i, name in enumerate(ORDER)}

    def drawn(name: str, values: np.ndarray, neutral: float) -> np.ndarray:
        return np.where(fires[row[name]], values, neutral)[:, None, None]

    brightness = drawn("brightness", 0.2 * normal[row["brightness"]], 0)
    contrast = drawn("contrast", np.exp2(0.5 * normal[row["contrast"]]), 1)
    luma = drawn("luma_flip", 1 - 2 * np.floor(2 * uniform[row["luma_flip"]]), 1)
    angle = drawn("hue", (2 * uniform[row["hue"]] - 1) * np.pi, 0)
    saturation = drawn("saturation", np.exp2(normal[row["saturation"]]), 1)

    grey = np.full((3, 3), 1 / 3)
    turn = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rest = np.cos(angle) * (np.eye(3) - grey) + np.sin(angle) * turn
    matrix = contrast * (luma * grey + saturation * rest)
    offset = contrast * luma * brightness * np.ones((3, 1))

    # From the networks' space x to displayed colours 2 (std x + mean) - 1, and back.
    scale = 2 * np.array(STD)
    shift = (2 * np.array(MEAN) - 1)[:, None]
    offset = (matrix @ shift + offset - shift) / scale[:, None]
    return matrix * scale / scale[:, None], offset
