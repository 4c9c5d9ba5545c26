"""How the augmentation's strength p follows the discriminator's overfitting (StyleGAN2-ADA, section 3.2)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from registry import UserError
from stylenat.ranks import mean_over_ranks, world_size

POLICIES = ("adaptive", "fixed", "none")


class Adaptation:
    """p rises while r_t = E[sign(D(real))] is above its target and falls while below.

    Attributes:
        p: strength; r_t: as of the last ``interval``, over all processes.
        images_seen: real images so far, over all processes.
    """

    def __init__(
        self, initial_p: float, max_p: float, policy: str, target: float, interval: int, images_to_full: int
    ) -> None:
        prefix = "augmentation.ada"
        if policy not in POLICIES:
            raise UserError(f"{prefix}.policy has no {policy!r}; there are {', '.join(POLICIES)}")
        if not 0 <= initial_p <= max_p <= 1:
            raise UserError(f"{prefix} needs 0 <= initial_p <= max_p <= 1; got {initial_p} and {max_p}")
        if not -1 <= target <= 1:
            raise UserError(f"{prefix}.target must lie between -1 and 1, as signs do; got {target}")
        if interval < 1 or images_to_full < 1:
            raise UserError(
                f"{prefix}.interval and images_to_full must be at least 1; got {interval} and {images_to_full}"
            )
        self.p = 0.0 if policy == "none" else initial_p
        self.max_p, self.policy, self.target = max_p, policy, target
        self.interval, self.images_to_full = interval, images_to_full
        self.images_seen = 0
        self.r_t = 0.0
        self._signs: list[Tensor] = []
        self._images = 0

    def observe(self, real_logits: Tensor) -> None:
        """Takes one iteration's logits [batch, 1] on this process's share of the real images, equal in all.

        The mean is taken over all processes at once, so that p and everything in the checkpoint is the same in each.
        It stays on its device until p moves.
        """
        newest = mean_over_ranks(real_logits.sign().mean())
        # Those of a checkpoint come from the host.
        self._signs = [*(sign.to(newest.device) for sign in self._signs), newest]
        images = len(real_logits) * world_size()
        self.images_seen += images
        self._images += images
        if len(self._signs) < self.interval:
            return
        self.r_t = float(torch.stack(self._signs).mean())
        if self.policy == "adaptive":
            direction = (self.r_t > self.target) - (self.r_t < self.target)
            self.p = min(max(self.p + direction * self._images / self.images_to_full, 0.0), self.max_p)
        self._signs, self._images = [], 0

    def state_dict(self) -> dict[str, Any]:
        signs = [float(sign) for sign in self._signs]
        return {
            "p": self.p, "r_t": self.r_t, "images_seen": self.images_seen, "signs": signs, "batch": self._images
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """A policy that does not adapt keeps the p of the gin file; a lower ``max_p`` than the checkpoint's counts."""
        if "p" not in state:  # A checkpoint of another augmentation: this one starts afresh.
            return
        if self.policy == "adaptive":
            self.p = min(state["p"], self.max_p)
        self.r_t, self.images_seen = state["r_t"], state["images_seen"]
        self._signs, self._images = [torch.tensor(sign) for sign in state["signs"]], state["batch"]
