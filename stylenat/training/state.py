"""Everything of a run that changes: networks, optimisers, average, augmentation, random streams, counters."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from registry import UserError
from stylenat.training.ema import averaged_copy
from stylenat.training.random_streams import RandomStreams, derived_seed
from stylenat.training.settings import Training
from stylenat.training.steps import adam, lazy_ratio


def build_networks(settings: Training, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator, initialised from the run's seed whatever was drawn before.

    Raises:
        UserError: their resolutions, or the data set's, do not agree.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings.seed, "generator"))
        generator = settings.generator()
        torch.manual_seed(derived_seed(settings.seed, "discriminator"))
        discriminator = settings.discriminator()
    sides = {
        "generator": generator.resolution,
        "discriminator": discriminator.resolution,
        "dataset": settings.dataset.resolution,
    }
    if len(set(sides.values())) > 1:
        listed = ", ".join(f"{name} {side}" for name, side in sides.items())
        raise UserError(f"resolutions differ: {listed}; bind the same resolution to all three")
    if settings.frozen_discriminator_layers:
        if not hasattr(discriminator, "freeze"):
            raise UserError("train.frozen_discriminator_layers needs a discriminator that can freeze layers")
        discriminator.freeze(settings.frozen_discriminator_layers)
    if hasattr(discriminator, "check_batch"):
        discriminator.check_batch(settings.batch_size)
    return generator.to(device), discriminator.to(device)


class TrainingState:
    """The whole mutable state of a run.

    Attributes:
        generator, discriminator, ema: networks; ``ema`` is what is sampled and measured.
        generator_optimizer, discriminator_optimizer: Adam.
        streams: the named random generators.
        step: iterations done; best: of each metric, the lowest value so far.
    """

    def __init__(self, settings: Training, device: torch.device) -> None:
        self.settings = settings
        self.generator, self.discriminator = build_networks(settings, device)
        self.ema = averaged_copy(self.generator)
        self.ratios = [lazy_ratio(settings.regularizers, name) for name in ("generator", "discriminator")]
        self.generator_optimizer = adam(
            self.generator, settings.generator_learning_rate, settings.betas, self.ratios[0]
        )
        self.discriminator_optimizer = adam(
            self.discriminator, settings.discriminator_learning_rate, settings.betas, self.ratios[1]
        )
        self.streams = RandomStreams(settings.seed)
        self.step = 0
        self.best: dict[str, float] = {}

    def networks(self) -> dict[str, nn.Module]:
        """By their names in checkpoints."""
        return {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema}

    def set_learning_rates(self, factor: float) -> None:
        """Both optimisers' rates to ``factor`` times their initial ones."""
        rates = (self.settings.generator_learning_rate, self.settings.discriminator_learning_rate)
        optimizers = (self.generator_optimizer, self.discriminator_optimizer)
        for optimizer, rate, ratio in zip(optimizers, rates, self.ratios, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * ratio * factor

    def state_dict(self) -> dict[str, Any]:
        """All but the networks: plain values and tensors."""
        return {
            "step": self.step,
            "best": self.best,
            "streams": self.streams.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "augmentation": self.settings.augmentation.state_dict(),
            "trackers": _by_name(self.settings.trackers),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.best = dict(state["best"])
        self.streams.load_state_dict(state["streams"])
        self.generator_optimizer.load_state_dict(state["generator_optimizer"])
        self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        self.settings.augmentation.load_state_dict(state["augmentation"])
        for tracker in self.settings.trackers:
            # A tracker added since the checkpoint has no state there and starts afresh.
            if type(tracker).__qualname__ in state["trackers"]:
                tracker.load_state_dict(state["trackers"][type(tracker).__qualname__])


def _by_name(trackers: Sequence[Any]) -> dict[str, dict[str, Any]]:
    return {type(tracker).__qualname__: tracker.state_dict() for tracker in trackers}
