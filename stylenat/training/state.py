"""Everything of a run that changes: networks, optimisers, average, augmentation, random streams, counters."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from registry import UserError
from stylenat import ranks
from stylenat.draws import Share
from stylenat.evaluation.evaluate import Evaluation
from stylenat.training import checkpoint
from stylenat.training.ema import averaged_copy
from stylenat.training.forward import Forward, Running
from stylenat.training.guards import Guard
from stylenat.training.random_streams import RandomStreams, derived_seed, seed_everything
from stylenat.training.settings import Training
from stylenat.training.steps import adam, lazy_ratio

LOSS_SCALE = 2.0**12
"""Of fp16 at the start. PyTorch's 2 ** 16 overflows in the first iterations, each of which is then lost."""


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
    check_microbatches(settings, getattr(discriminator, "stddev_group", 1))
    return generator.to(device), discriminator.to(device)


def shares(settings: Training) -> list[Share]:
    """What this process trains on of every batch of the run: one share a microbatch.

    Raises:
        UserError: the batch does not divide among processes and microbatches.
    """
    processes, parts = ranks.world_size(), settings.accumulate
    if settings.batch_size % (processes * parts):
        raise UserError(
            f"train.batch_size = {settings.batch_size} does not divide among {processes} process(es) x "
            f"train.accumulate = {parts}; use a multiple of {processes * parts}"
        )
    return [Share(ranks.rank() + processes * part, processes * parts) for part in range(parts)]


def check_microbatches(settings: Training, stddev_group: int) -> None:
    """Raises UserError where microbatches would tear minibatch-stddev groups apart.

    Processes can ask each other for the rest of a group; microbatches come one after the other and cannot.
    """
    group = min(settings.batch_size, stddev_group)
    images = settings.batch_size // (settings.accumulate * ranks.world_size())
    if settings.accumulate > 1 and images % group:
        raise UserError(
            f"train.accumulate = {settings.accumulate} makes microbatches of {images} images, which minibatch-stddev "
            f"groups of {group} do not fit into; accumulate less, or bind a stddev_group of the discriminator to "
            f"{math.gcd(images, group)}"
        )


class TrainingState:
    """The whole mutable state of a run.

    Attributes:
        generator, discriminator, ema: networks; ``ema`` is what is sampled and measured.
        generator_optimizer, discriminator_optimizer: Adam.
        generate, discriminate: the networks as training calls them; scalers: of the losses, by network.
        streams: the named random generators; guard: what was skipped.
        shares: what this process trains on of every batch, by microbatch.
        step, images: iterations done, and the real images seen in them over all processes.
        pending: what is still to be done after them, of ``samples`` and ``evaluation``.
        dataset: the identity of the images, as ``stylenat.data.identity`` has it; None where it is not known.
        best, best_steps: of each metric, the best value so far and its step.
    """

    def __init__(self, settings: Training, device: torch.device) -> None:
        self.settings = settings
        self.shares = shares(settings)
        self.generator, self.discriminator = build_networks(settings, device)
        self.ema = averaged_copy(self.generator)
        self.ratios = [lazy_ratio(settings.regularizers, name) for name in ("generator", "discriminator")]
        self.generator_optimizer = adam(
            self.generator, settings.generator_learning_rate, settings.betas, self.ratios[0]
        )
        self.discriminator_optimizer = adam(
            self.discriminator, settings.discriminator_learning_rate, settings.betas, self.ratios[1]
        )
        self.generate, self.discriminate = Forward(self.generator, settings), Forward(self.discriminator, settings)
        self.scalers = {
            name: torch.amp.GradScaler(device.type, LOSS_SCALE, enabled=settings.precision == "fp16")
            for name in ("generator", "discriminator")
        }
        self.streams = RandomStreams(settings.seed)
        self.guard = Guard()
        self.step = self.images = 0
        self.pending: list[str] = []
        self.dataset: dict[str, Any] | None = None
        self.best: dict[str, float] = {}
        self.best_steps: dict[str, int] = {}

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.step >= self.settings.iterations and not self.pending

    def note_metrics(self, evaluation: Evaluation) -> None:
        """Takes an evaluation at ``step`` into the best so far.

        Raises:
            UserError: the metric whose best checkpoint is to be kept is not among its values.
        """
        keep = self.settings.keep_best
        # Where a metric failed, its values may have had other names than it has.
        if keep is not None and keep not in evaluation.metrics and not evaluation.failed:
            raise UserError(
                f"train.keep_best = {keep!r} is none of the values measured: {', '.join(evaluation.metrics)}"
            )
        for name, value in evaluation.metrics.items():
            best = self.best.get(name)
            if math.isfinite(value) and (best is None or evaluation.better(name, value, best) != best):
                self.best[name], self.best_steps[name] = value, self.step

    def draw_anew(self) -> None:
        """Other noise from here on, after a roll-back."""
        self.streams = RandomStreams(self._noise_seed())

    def seed_iteration(self) -> None:
        """Seeds whatever draws from the shared generators in the next iteration, in each process differently."""
        seed_everything(derived_seed(self._noise_seed(), "iteration", self.step, ranks.rank()))

    def _noise_seed(self) -> int:
        roll_backs = self.guard.roll_backs
        return derived_seed(self.settings.seed, "roll-back", roll_backs) if roll_backs else self.settings.seed

    def networks(self) -> dict[str, nn.Module]:
        """By their names in checkpoints."""
        return {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema}

    def microbatches(self) -> Iterator[Share]:
        """The shares, one after the other, as parts of one batch: each finds the random streams, and the networks'
        buffers (power iterations of the spectral norm), as the first one did, and leaves them as one batch would."""
        if len(self.shares) == 1:
            yield self.shares[0]
            return
        streams, running = self.streams.state_dict(), [Running(self.generator), Running(self.discriminator)]
        for share in self.shares:
            self.streams.load_state_dict(streams)
            for buffers in running:
                buffers.restore()
            yield share

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
            "images": self.images,
            "pending": self.pending,
            "dataset": self.dataset,
            "best": self.best,
            "best_steps": self.best_steps,
            "guard": self.guard.state_dict(),
            "streams": self.streams.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "scalers": {name: scaler.state_dict() for name, scaler in self.scalers.items()},
            "augmentation": self.settings.augmentation.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
            "trackers": {name: tracker.state_dict() for name, tracker in _by_name(self.settings.trackers).items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Everything but the networks and the trackers. Format 1 lacks what it did not know of."""
        self.step = state["step"]
        self.images = state.get("images", self.step * self.settings.batch_size)
        self.pending = list(state.get("pending", []))
        self.best = dict(state["best"])
        self.best_steps = dict(state.get("best_steps", {}))
        self.guard = Guard()
        if "guard" in state:
            self.guard.load_state_dict(state["guard"])
        self.draw_anew()
        self.streams.load_state_dict(state["streams"])
        _load_optimizer(self.generator_optimizer, state["generator_optimizer"])
        _load_optimizer(self.discriminator_optimizer, state["discriminator_optimizer"])
        for name, scale in state.get("scalers", {}).items():
            if scale:  # Empty without loss scaling.
                self.scalers[name].load_state_dict(scale)
        self.settings.augmentation.load_state_dict(state["augmentation"])
        for name, part in self._parts().items():
            if name in state.get("parts", {}):
                part.load_state_dict(state["parts"][name])

    def load_trackers(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """A tracker added since the checkpoint has no state there and starts afresh."""
        for name, tracker in _by_name(self.settings.trackers).items():
            if name in states:
                tracker.load_state_dict(states[name])

    def restore(self, path: Path) -> Mapping[str, Any]:
        """Takes everything but the trackers' state from a verified checkpoint; returns its state.

        Raises:
            UserError: it cannot be read, or belongs to another experiment.
        """
        state = checkpoint.state(path)
        for name, network in self.networks().items():
            try:
                network.load_state_dict(checkpoint.weights(path, name))
            except RuntimeError as error:
                raise UserError(f"{path} does not fit this experiment's {name}; it belongs to another one") from error
        try:
            self.load_state_dict(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path} does not fit this experiment ({reason}); it belongs to another one") from error
        return state

    def _parts(self) -> dict[str, Any]:
        """Losses and regularizers need not have a state; of those that do, it is kept."""
        parts = {f"loss/{type(self.settings.loss).__qualname__}": self.settings.loss}
        parts |= {f"regularizer/{r.name}": r for r in self.settings.regularizers}
        return {name: part for name, part in parts.items() if hasattr(part, "state_dict")}


def _load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """The moments of a checkpoint under the rates of this experiment.

    Raises ValueError where they belong to other parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, moments in state["state"].items():
        for name, value in moments.items():
            if name != "step" and value.shape != parameters[index].shape:
                raise ValueError(f"an optimiser's {name} has shape {list(value.shape)}")
    own = optimizer.state_dict()
    optimizer.load_state_dict({"state": state["state"], "param_groups": own["param_groups"]})


def _by_name(trackers: Sequence[Any]) -> dict[str, Any]:
    """Trackers by their classes' names; of several of one class, the later ones are numbered."""
    named: dict[str, Any] = {}
    for tracker in trackers:
        name = type(tracker).__qualname__
        same = sum(type(other).__qualname__ == name for other in named.values())
        named[f"{name} {same + 1}" if same else name] = tracker
    return named
