"""What a training iteration needs in memory: counted on tensors without data, before anything is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from stylenat.draws import conditions
from stylenat.training.build import build_networks, inputs_of_one
from stylenat.training.forward import recompute_stages
from stylenat.training.live_memory import LiveMemory
from stylenat.training.settings import Training
from stylenat.training.step import second_order

CARDS = (24, 40, 80)
"""GB of memory."""
USABLE = 0.9
"""Of a card's memory: the rest is the driver's, the libraries', and lost between blocks of other sizes."""
COUNTED = 2
"""Images that are counted at once: a batch of one takes other paths."""


@dataclass(frozen=True)
class Footprint:
    """Bytes.

    Attributes:
        fixed: weights, gradients, optimizers' moments and the average, in float32.
        image: the peak of the hungriest step, an image.
    """

    fixed: int
    image: int

    def at_once(self, gigabytes: float) -> int:
        """Images that fit a card at once."""
        return max(0, int((USABLE * gigabytes * 1e9 - self.fixed) // self.image))


def footprint(settings: Training, precision: torch.dtype | None = None, recompute: bool = False) -> Footprint:
    """Counts the tensors that live at the peak of the hungriest step, forward and backward.

    The steps: the generator's, through both networks; the discriminator's on real and generated images; its penalty on
    gradients, which is differentiated twice, in float32: of real images, or of real and generated ones where it
    is a term of the main loss. Augmentations are left out.

    Args:
        precision: of autocast, None for float32.
        recompute: with ``train.activation_checkpointing``.

    Raises:
        UserError: the networks cannot be built.
    """
    meta = torch.device("meta")
    with meta:
        steps = _Steps(settings, precision)
        networks = steps.generator, steps.discriminator
        sizes = [sum(4 * p.numel() for p in n.parameters() if p.requires_grad) for n in networks]
        candidates = [steps.generators, steps.discriminators]
        if any(getattr(term, "reuses_logits", False) for term in settings.regularizers):
            candidates.append(partial(steps.penalties, 2 * COUNTED))
        elif any(map(second_order, settings.regularizers)):
            candidates.append(partial(steps.penalties, COUNTED))
        hungriest = max(candidates, key=_kept)
    # Autocast knows no tensors of the meta device.
    with FakeTensorMode():
        for network in networks:
            _pretend(network)
            if recompute:
                recompute_stages(network)
        with LiveMemory() as memory:
            loss = hungriest()
            before = memory.live
            loss.backward()
    made = sum(p.grad.nbytes for n in networks for p in n.parameters() if p.grad is not None)
    # The gradients are counted as fixed, but the peak is reached while most of them are still to be made.
    image = max(before, memory.peak - made) // COUNTED
    # Weights, gradients and two moments each, and the average.
    return Footprint(5 * sizes[0] + 4 * sizes[1], image)


class _Steps:
    """The steps of an iteration up to their losses, for ``COUNTED`` images."""

    def __init__(self, settings: Training, precision: torch.dtype | None) -> None:
        self.generator, self.discriminator = build_networks(settings, torch.device("meta"))
        self.latents, self.labels, self.draws = inputs_of_one(self.generator)
        self.autocast = torch.autocast("cpu", precision, enabled=precision is not None)

    def generators(self) -> Tensor:
        self.discriminator.requires_grad_(False)
        with self.autocast:
            draws = {name: _empty(COUNTED, draw) for name, draw in self.draws.items()}
            fakes = self.generator(_empty(COUNTED, self.latents), *self._given(COUNTED), **draws)
            logits = self.discriminator(fakes, *self._given(COUNTED))
        return logits.sum()

    def discriminators(self) -> Tensor:
        self.discriminator.requires_grad_(True)
        with self.autocast:
            return self.discriminator(self._images(2 * COUNTED), *self._given(2 * COUNTED)).sum()

    def penalties(self, count: int) -> Tensor:
        self.discriminator.requires_grad_(True)
        images = self._images(count).requires_grad_()
        logits = self.discriminator(images, *self._given(count))
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return slope.square().sum()

    def _images(self, count: int) -> Tensor:
        return torch.empty(count, 3, self.generator.resolution, self.generator.resolution)

    def _given(self, count: int) -> list[Tensor]:
        return [_empty(count, t) for t in conditions(self.labels)]


def _empty(count: int, one: Tensor) -> Tensor:
    return torch.empty(count, *one.shape[1:])


def _kept(step: Callable[[], Tensor]) -> int:
    """Bytes that the backward pass of a step is given, each storage once."""
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        storages[storage._cdata] = storage
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        step()
    return sum(storage.nbytes() for storage in storages.values())


def _pretend(network: nn.Module) -> None:
    """Replaces parameters and buffers by tensors that pretend to be on the CPU."""
    for module in network.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None:
                    fake = torch.empty(value.shape, dtype=value.dtype)
                    held[name] = nn.Parameter(fake, value.requires_grad) if name in module._parameters else fake
