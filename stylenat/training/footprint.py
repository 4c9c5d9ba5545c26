"""What a training iteration needs in memory: counted on tensors without data, before anything is trained."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from registry import UserError
from stylenat.draws import Shard, ShardGenerator, conditions
from stylenat.interfaces import Microbatch, Step
from stylenat.random_streams import RandomStreams
from stylenat.training.build import inputs_of_one
from stylenat.training.live_memory import LiveMemory
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.step import frozen, objective

CARDS = (24, 40, 80)
"""GB of memory."""
USABLE = 0.9
"""Of a card's memory: the rest is the driver's, the libraries', and lost between blocks of other sizes."""
COUNTED = 4
"""Images that are counted at once, so that what does not grow with the batch is a small part."""


@dataclass(frozen=True)
class Footprint:
    """Bytes.

    Attributes:
        fixed: weights, gradients, optimizers' moments and the average, in float32.
        image: the peak of the step that needs most, an image.
    """

    fixed: int
    image: int

    def at_once(self, gigabytes: float) -> int:
        """Images that fit a card at once."""
        return max(0, int((USABLE * gigabytes * 1e9 - self.fixed) // self.image))


def footprint(settings: Training, precision: str = "float32", recompute: bool = False) -> Footprint:
    """Counts the tensors that live at the peak of the recipe's steps, forward and backward, with every term due.

    ``train.augmentation`` is left out: what it draws needs data.

    Args:
        precision: as ``train.precision``; recompute: as ``train.activation_checkpointing``.

    Raises:
        UserError: the networks cannot be built, or a part needs the values of tensors.
    """
    with without_data(settings, precision, recompute) as (state, one):
        try:
            image = max(peak_of(state, step, *one) for step in state.settings.steps) // COUNTED
        except DataDependentOutputException as error:
            raise UserError(
                "memory cannot be counted: a part of the training asks for the value of a tensor, "
                "which has no data here"
            ) from error
    networks = state.generator, state.discriminator
    sizes = [sum(4 * p.numel() for p in network.parameters() if p.requires_grad) for network in networks]
    # Weights, gradients and two moments each, and the average.
    return Footprint(5 * sizes[0] + 4 * sizes[1], image)


@contextmanager
def without_data(
    settings: Training, precision: str, recompute: bool
) -> Iterator[tuple[TrainingState, tuple[Tensor, Tensor | None, dict[str, Tensor]]]]:
    """The training with ``COUNTED`` images an iteration, and the inputs of one, within a context where no tensor has
    data. Arguments as for ``footprint``."""
    counted = replace(
        settings, precision=precision, activation_checkpointing=recompute, batch_size=COUNTED, accumulate=1,
        augmentation=_Unaugmented(), compile=None, cuda_graphs=False,
    )  # fmt: skip
    with torch.device("meta"):
        state = TrainingState(counted, torch.device("meta"))
        one = inputs_of_one(state.generator)
    state.streams = _Unseeded(settings.seed)
    # Autocast knows no tensors of the meta device. A few constants have data.
    with FakeTensorMode(allow_non_fake_inputs=True):
        for network in (state.generator, state.discriminator):
            _pretend(network)
        yield state, one


def peak_of(state: TrainingState, step: Step, latents: Tensor, labels: Tensor | None, draws: dict[str, Tensor]) -> int:
    """Bytes of the tensors that live at the peak of a step, without gradients of parameters and without its inputs.

    Args:
        latents, labels, draws: of one image, as ``inputs_of_one`` gives them.
    """
    side = state.generator.resolution
    [batch] = state.microbatches(state.time())
    _fill(batch, side, latents, labels, draws)
    if not step.new_latents and not step.phases[0].adversarial:
        batch.fake = torch.empty_like(batch.images)
    for network in (state.generator, state.discriminator):
        for parameter in network.parameters():
            parameter.grad = torch.empty_like(parameter)
    with LiveMemory() as memory:
        for phase in step.phases:
            if phase.network == "generator":
                with frozen(state.discriminator):
                    loss, _ = objective(state, step, phase, batch)
                    loss.backward()
            else:
                loss, _ = objective(state, step, phase, batch)
                loss.backward()
            del loss
    return memory.peak


class _Unaugmented:
    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        return images

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class _Unseeded(RandomStreams):
    """Seeds are numbers, which tensors without data do not give."""

    def for_call(self, name: str, shard: Shard) -> ShardGenerator:
        return _SameSeeds(0, shard)


class _SameSeeds(ShardGenerator):
    def seeds(self, images: int) -> list[int]:
        return [0] * images


def _fill(batch: Microbatch, side: int, latents: Tensor, labels: Tensor | None, draws: dict[str, Tensor]) -> None:
    def many(one: Tensor) -> Tensor:
        return torch.empty(COUNTED, *one.shape[1:])

    batch.images, batch.latents = torch.empty(COUNTED, 3, side, side), many(latents)
    batch.draws = {name: many(draw) for name, draw in draws.items()}
    [batch.labels] = [batch.fake_labels] = [many(t) for t in conditions(labels)] or [None]


def _pretend(network: nn.Module) -> None:
    """Replaces parameters and buffers by tensors that pretend to be on the CPU."""
    for module in network.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None:
                    fake = torch.empty(value.shape, dtype=value.dtype)
                    held[name] = nn.Parameter(fake, value.requires_grad) if name in module._parameters else fake
