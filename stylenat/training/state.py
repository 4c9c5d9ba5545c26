"""Everything of a run that changes: networks, optimisers, average, augmentation, random streams, counters."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from registry import UserError
from stylenat import checkpoint, ranks
from stylenat.classes import Classes, classes_of, must_have_classes, read_classes
from stylenat.devices import sent
from stylenat.draws import Shard, ShardGenerator, augmented, declared_draws
from stylenat.evaluation.evaluate import Evaluation
from stylenat.interfaces import Microbatch, Time, at
from stylenat.networks.batch_norm import means_over_images
from stylenat.pixels import SPACES, in_imagenet, must_be_of_space
from stylenat.random_streams import RandomStreams, derived_seed, seed_everything
from stylenat.training.build import build_networks, num_classes, shards_of
from stylenat.training.forward import Forward, Running
from stylenat.training.guards import Guard
from stylenat.training.settings import Training
from stylenat.training.step import lazy_ratio

NETWORKS = ("generator", "discriminator")
LOSS_SCALE = 2.0**12
"""Of fp16 at the start. PyTorch's 2 ** 16 overflows in the first iterations, each of which is then lost."""


class TrainingState:
    """The whole mutable state of a run.

    Attributes:
        generator, discriminator: networks; averages: of the generator's weights, by their names in checkpoints.
        optimizers, scalers (of the losses): by network; generate, discriminate: the networks as training calls them.
        streams: the named random generators; guard: what was skipped.
        shards: what this process trains on of every batch, by microbatch.
        step, images: iterations done, and the real images seen in them over all processes.
        drawn: real images taken from the stream, which are more where an iteration takes several batches.
        pending: what is still to be done after them, of ``samples`` and ``evaluation``.
        classes: of the data, in a conditional experiment, once the data set is prepared; None in an unconditional one.
        dataset: the identity of the images, as ``stylenat.data.identity`` has it; None where it is not known.
        best, best_steps: of each metric, the best value so far and its step.
    """

    def __init__(self, settings: Training, device: torch.device) -> None:
        self.settings = settings
        self.shards = shards_of(settings)
        self.generator, self.discriminator = build_networks(settings, device)
        self.averages = settings.average.start(self.generator)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._ratios = {name: lazy_ratio(settings.regularizers, name) for name in NETWORKS}
        for name, network in self._trained().items():
            rate = at(getattr(settings, f"{name}_learning_rate"), self.time_of(0, 0)) * self._ratios[name]
            make = getattr(settings, f"{name}_optimizer")
            self.optimizers[name] = make(network.parameters(), rate, self._ratios[name])
        self.generate, self.discriminate = Forward(self.generator, settings), Forward(self.discriminator, settings)
        self.scalers = {
            name: torch.amp.GradScaler(device.type, LOSS_SCALE, enabled=settings.precision == "fp16")
            for name in NETWORKS
        }
        self.streams = RandomStreams(settings.seed)
        self.guard = Guard()
        self.step = self.images = self.drawn = 0
        self.pending: list[str] = []
        self.classes: Classes | None = None
        self.dataset: dict[str, Any] | None = None
        self.best: dict[str, float] = {}
        self.best_steps: dict[str, int] = {}

    def begin(self) -> dict[str, Any]:
        """Lets the networks take what they begin from (``interfaces.Generator``); returns what they record of it.

        Raises UserError where it is missing or does not fit.
        """
        begun = {name: network.begin() for name, network in self._trained().items() if hasattr(network, "begin")}
        for average in self.averages.values():
            average.load_state_dict(self.generator.state_dict())
        return {name: values for name, values in begun.items() if values}

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
                f"train.keep_best = {keep!r} is not among the values measured: {', '.join(evaluation.metrics)}"
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

    def find_classes(self) -> None:
        """Counts the data set's classes, which must be those of the networks; the data set is prepared.

        Raises:
            UserError: they differ.
        """
        networks, dataset = num_classes(self.generator), self.settings.dataset
        self.classes = classes_of(dataset) if networks else None
        must_have_classes(networks, self.classes, dataset.describe())

    @property
    def sampled(self) -> nn.Module:
        """The network that is sampled and measured: the first average, or the generator where there is none."""
        return next(iter(self.averages.values()), self.generator)

    def networks(self) -> dict[str, nn.Module]:
        """By their names in checkpoints."""
        return {**self._trained(), **self.averages}

    def _trained(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def time(self) -> Time:
        """The iteration that comes next."""
        return self.time_of(self.step, self.images)

    def time_of(self, step: int, images: int) -> Time:
        return Time(step, images, self.settings.iterations, self.settings.batch_size)

    def set_numbers(self, time: Time) -> None:
        """Sets whatever moves in time: learning rates, the optimizers' own numbers, the augmentation's."""
        factor = 1.0 if (schedule := self.settings.learning_rate_schedule) is None else schedule(time)
        for name, optimizer in self.optimizers.items():
            rate = at(getattr(self.settings, f"{name}_learning_rate"), time)
            for group in optimizer.param_groups:
                group["lr"] = rate * self._ratios[name] * factor
            made_by = getattr(self.settings, f"{name}_optimizer")
            if hasattr(made_by, "adjust"):
                made_by.adjust(optimizer, time)
        if hasattr(self.settings.augmentation, "begin"):
            self.settings.augmentation.begin(time)

    def microbatches(self, time: Time) -> list[Microbatch]:
        """One for each shard, empty."""
        return [
            Microbatch(self.generator, self.discriminator, Seen(self, shard), time, torch.Generator(), shard=shard)
            for shard in self.shards
        ]

    def give_images(self, batches: Sequence[Microbatch], real: tuple[Tensor, Tensor | None]) -> None:
        """Divides this process's images, [batch / processes, 3, side, side], and labels among its microbatches."""
        images, labels = real
        for i, batch in enumerate(batches):
            batch.images = images[i :: len(batches)]
            batch.labels = None if labels is None else labels[i :: len(batches)]
        self.drawn += self.settings.batch_size

    def give_latents(self, batches: Sequence[Microbatch]) -> None:
        """Draws latents, and whatever the generator declares to draw, for the whole batch; each microbatch gets its
        part, and loses the fakes that it had."""
        count, dtype = self.settings.batch_size, batches[0].images.dtype
        device = batches[0].images.device
        latents = torch.randn(count, self.generator.latent_dim, generator=self.streams["latents"])
        declared = getattr(self.generator, "draws", {})
        draws = {name: draw(count, self.streams["network"]) for name, draw in declared.items()}
        numbers = self.classes.drawn(count, self.streams["labels"]) if self.classes is not None else None
        if hasattr(self.generator, "observe"):
            labels = () if numbers is None else (sent(self.classes.one_hot(numbers).to(dtype), device),)
            with torch.no_grad():
                self.generator.observe(sent(latents.to(dtype), device), *labels)
        paired = getattr(self.settings.loss, "paired", False)  # A pair of a relativistic loss has one class.
        for batch in batches:
            if paired:
                batch.fake_labels = batch.labels
            elif numbers is not None and self.classes is not None:
                batch.fake_labels = sent(self.classes.one_hot(batch.shard(numbers)).to(dtype), device)
            batch.latents = sent(batch.shard(latents).to(dtype), device)
            batch.draws = {name: sent(batch.shard(drawn).to(dtype), device) for name, drawn in draws.items()}
            batch.fake = batch.fake_with_graph = None

    def replayed(self, batches: Sequence[Microbatch]) -> Iterator[Microbatch]:
        """Microbatches, one after the other, as parts of one batch: each finds the random streams, and the networks'
        buffers (power iterations of the spectral norm), as the first one did, and leaves them as one batch would.
        Batch norm's running statistics, and buffers that modules name in ``means_over_images``, become their means over
        microbatches and processes."""
        networks, several = self._trained().values(), len(batches) > 1
        running = [Running(network) for network in networks] if several else []
        streams = self.streams.state_dict() if several else {}
        divided = several or ranks.world_size() > 1
        places = [place for network in networks for place in means_over_images(network)] if divided else []
        found: list[list[Tensor]] = []
        for number, batch in enumerate(batches):
            if number:
                self.streams.load_state_dict(streams)
                for buffers in running:
                    buffers.restore()
            yield batch
            found.append([getattr(norm, name) for norm, name in places])
        if places:
            means = [torch.stack(values).mean(dim=0) for values in zip(*found, strict=True)]
            ranks.average(means)
            for (norm, name), mean in zip(places, means, strict=True):
                setattr(norm, name, mean)

    def random_for_terms(self, batch: Microbatch) -> ShardGenerator:
        """For the terms of one phase on one microbatch."""
        return self.streams.for_call("regularization", batch.shard)

    def state_dict(self) -> dict[str, Any]:
        """All but the networks: plain values and tensors."""
        return {
            "step": self.step,
            "images": self.images,
            "drawn": self.drawn,
            "pending": self.pending,
            "classes": None if self.classes is None else self.classes.plain(),
            "pixel_space": self.settings.pixel_space,
            "dataset": self.dataset,
            "best": self.best,
            "best_steps": self.best_steps,
            "guard": self.guard.state_dict(),
            "streams": self.streams.state_dict(),
            **{f"{name}_optimizer": optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scalers": {name: scaler.state_dict() for name, scaler in self.scalers.items()},
            "augmentation": self.settings.augmentation.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
            "trackers": {name: tracker.state_dict() for name, tracker in _by_name(self.settings.trackers).items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Everything but the networks and the trackers. Format 1 lacks what it did not know of."""
        self.step = state["step"]
        self.images = state.get("images", self.step * self.settings.batch_size)
        self.drawn = state.get("drawn", self.images)
        self.pending = list(state.get("pending", []))
        self.best = dict(state["best"])
        self.best_steps = dict(state.get("best_steps", {}))
        self.guard = Guard()
        if "guard" in state:
            self.guard.load_state_dict(state["guard"])
        self.draw_anew()
        self.streams.load_state_dict(state["streams"])
        for name, optimizer in self.optimizers.items():
            _load_optimizer(optimizer, state[f"{name}_optimizer"])
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
        must_be_of_space(state.get("pixel_space"), self.settings.pixel_space, str(path))
        before = read_classes(state.get("classes"), str(path))
        must_have_classes(num_classes(self.generator), before, f"the training that wrote {path}")
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
        parts |= {name: getattr(self.settings, name) for name in ("recipe", "average")}
        return {name: part for name, part in parts.items() if hasattr(part, "state_dict")}


class Seen:
    """The discriminator on augmented images, for one microbatch. ``exactly``: as second derivatives need it, in float32
    and uncompiled."""

    def __init__(self, state: TrainingState, shard: Shard, forward: Forward | None = None) -> None:
        self._state, self._shard = state, shard
        self._forward = state.discriminate if forward is None else forward

    @property
    def exactly(self) -> "Seen":
        return Seen(self._state, self._shard, self._state.discriminate.exactly)

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, 3, side, side] to logits [batch, any number]."""
        random = self._state.streams.for_call("augmentation", self._shard)
        settings = self._state.settings
        augment = in_imagenet(settings.augmentation, SPACES[settings.pixel_space])
        return self._forward(augmented(augment, images, random), labels, **self._drawn(images))

    def _drawn(self, images: Tensor) -> dict[str, Tensor]:
        """What the discriminator declares to draw, anew for every call."""
        if not (declared := getattr(self._state.discriminator, "draws", None)):
            return {}
        drawn = declared_draws(declared, len(images), self._state.streams.for_call("discriminator", self._shard))
        return {name: sent(value.to(images.dtype), images.device) for name, value in drawn.items()}


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
