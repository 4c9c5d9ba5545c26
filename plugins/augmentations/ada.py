"""Augmentation ``ada``: adaptive discriminator augmentation (StyleGAN2-ADA, arXiv 2006.06676)."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from plugins.augmentations import affine, bands, colour, corruption
from plugins.augmentations.adaptation import Adaptation
from plugins.augmentations.draws import ORDER, PRESETS, ROW, TRANSFORMS, Draws, draw, probabilities
from plugins.augmentations.warp import LOW_PASSES, warp
from registry import Count, Share, UserError


class AdaptiveAugmentation:
    """Applies each transform to each image with probability p times its multiplier; p adapts to the overfitting.

    All blits and geometry are one affine map and one warp, all colour one matrix (appendix B, in closed form), all
    frequency bands one separable filter. Colour, noise and cutout act on displayed colours, whatever the networks'
    pixel space. p rises while r_t = E[sign(D(real))] is above ``target`` and falls while it is below (section 3.2).

    Args:
        preset: groups of transforms: ``blit``, ``geom``, ``color``, ``filter``, ``noise``, ``cutout``, ``bg``,
            ``bgc``, ``bgcf``, ``bgcfn`` or ``bgcfnc``.
        multipliers: of p, by transform, in place of the preset's 1 or 0, such as ``{'rotate_90': 0, 'noise': 0.5}``.
        initial_p: p at the start; max_p: its bound.
        policy: ``adaptive``; ``fixed`` keeps p constant, ``none`` keeps it at 0. r_t is tracked with all of them.
        target: of r_t; interval: iterations between adaptations.
        images_to_full: real images in which p can go from 0 to 1.
        low_pass: where geometry minifies: ``mip`` (a mip map, fast) or ``sym6`` (StyleGAN2-ADA's wavelet).
    """

    def __init__(
        self,
        preset: str = "bgc",
        multipliers: dict[str, float] | None = None,
        initial_p: Share = 0.0,
        max_p: Share = 1.0,
        policy: Literal["adaptive", "fixed", "none"] = "adaptive",
        target: float = 0.6,
        interval: Count = 4,
        images_to_full: Count = 500_000,
        low_pass: Literal["mip", "sym6"] = "mip",
    ) -> None:
        if preset not in PRESETS:
            raise UserError(f"augmentation.ada.preset has no {preset!r}; there are {', '.join(PRESETS)}")
        for name, multiplier in (multipliers or {}).items():
            if name not in ORDER:
                raise UserError(f"augmentation.ada.multipliers has no transform {name!r}; there are {', '.join(ORDER)}")
            if not (isinstance(multiplier, int | float) and 0 <= multiplier < math.inf):
                raise UserError(f"augmentation.ada.multipliers: {name!r} must be 0 or more; got {multiplier!r}")
        if low_pass not in LOW_PASSES:
            raise UserError(f"augmentation.ada.low_pass has no {low_pass!r}; there are {', '.join(LOW_PASSES)}")
        chosen = {name: 1.0 for group in PRESETS[preset] for name in TRANSFORMS[group]} | (multipliers or {})
        self._multipliers = np.array([float(chosen.get(name, 0.0)) for name in ORDER])
        self._groups = {
            group for group, names in TRANSFORMS.items() if any(self._multipliers[ROW[name]] > 0 for name in names)
        }
        self.low_pass = low_pass
        self._adaptation = Adaptation(initial_p, max_p, policy, target, interval, images_to_full)

    @property
    def p(self) -> float:
        """The strength in use."""
        return self._adaptation.p

    @property
    def r_t(self) -> float:
        """The overfitting heuristic, as last measured."""
        return self._adaptation.r_t

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        if self.p == 0:
            return images
        return self._applied(images, draw(probabilities(self.p, self._multipliers), len(images), random), random)

    def _applied(self, images: Tensor, draws: Draws, random: torch.Generator) -> Tensor:
        """Images [batch, 3, side, side] after what the draws say; ``random`` gives the noise."""
        side = images.shape[-1]
        if not self._groups.isdisjoint(("blit", "geom")):
            images = warp(images, affine.matrices(affine.geometry(draws, side), side), self.low_pass)
        if "color" in self._groups:
            images = colour.recoloured(images, colour.colours(draws))
        if "filter" in self._groups:
            images = bands.filtered(images, bands.gains(draws))
        if "noise" in self._groups:
            images = corruption.with_noise(images, corruption.deviations(draws), random)
        if "cutout" in self._groups:
            images = corruption.with_holes(images, corruption.holes(draws, side))
        return images

    def demonstrate(self, image: Tensor, strengths: list[float], random: torch.Generator) -> dict[str, Tensor]:
        """Each transform in use by itself, at these quantiles of what it draws, and all of them together at p.

        Args:
            image: [3, side, side]; strengths: in (0, 1).
        """
        columns = len(strengths)
        images = image.expand(columns, -1, -1, -1)
        quantiles = np.broadcast_to(np.array(strengths), (2, len(ROW), columns)).copy()
        normal = np.vectorize(NormalDist().inv_cdf)(quantiles)
        normal[:, ROW["noise"]] = np.vectorize(NormalDist().inv_cdf)((1 + quantiles[0, 0]) / 2)  # half-normal
        rows = {}
        for name in ORDER:
            if self._multipliers[ROW[name]] > 0:
                fires = np.zeros((len(ROW), columns), dtype=bool)
                fires[ROW[name]] = True
                rows[name] = self._applied(images, Draws(fires, quantiles, normal), random)
        together = [
            self._applied(image[None], draw(probabilities(p, self._multipliers), 1, random), random) for p in strengths
        ]
        return rows | {"all, at p": torch.cat(together)}

    def observe(self, real_logits: Tensor) -> None:
        self._adaptation.observe(real_logits)

    def scalars(self) -> Mapping[str, float]:
        return {"augmentation/p": self.p, "augmentation/r_t": self.r_t}

    def state_dict(self) -> dict[str, Any]:
        return self._adaptation.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._adaptation.load_state_dict(state)
