"""Regularizer ``path_length``: equal steps in w move the image equally far (StyleGAN2, section 3.2)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from registry import Count, NotNegative, Share, UserError
from stylenat import ranks
from stylenat.devices import sent
from stylenat.draws import conditions, generators
from stylenat.interfaces import Microbatch, Schedule, Time, at
from stylenat.sampling import is_style_based


class PathLength:
    """``weight * E[(|J^T y| - a)²] * interval`` with y normal noise of one pixel's variance and a the running mean of
    the lengths, lazily, as a step of its own.

    As in StyleGAN2-ADA, the mean is moved before it is used and carries its own small gradient. It is that of the batch
    over all processes; with ``train.accumulate``, each microbatch moves it by its own images before using it.

    Args:
        weight: of the term, a number or a schedule; while it is 0, nothing is computed and the mean does not move.
            decay: part of the mean that each application replaces; interval: iterations between them.
        batch_shrink: the first 1 / so many of the images are used.
    """

    name = "path_length"
    network = "generator"
    own_step = True
    depends_on_microbatches = "each microbatch of path_length has a target that was moved by its own images alone"

    def __init__(
        self, weight: NotNegative | Schedule = 2.0, decay: Share = 0.01, interval: Count = 4, batch_shrink: Count = 2
    ) -> None:
        self.weight, self.decay, self.interval, self.batch_shrink = weight, decay, interval, batch_shrink
        self.mean: Tensor | float = 0.0
        self._iteration: int | None = None

    def check(self, generator: nn.Module, discriminator: nn.Module) -> None:
        """Raises UserError for a generator without styles."""
        if not is_style_based(generator):
            raise UserError(
                f"regularizer.path_length needs a generator with styles, and {type(generator).__name__} has none; "
                "remove it from train.regularizers"
            )

    def __call__(self, batch: Microbatch) -> Tensor:
        assert batch.latents is not None
        if not at(self.weight, batch.time):
            return batch.latents.new_zeros(())
        # The first images of the whole batch. Each shard takes as many, some with weight 0 where they do not divide.
        shard, size = batch.shard, len(batch.latents) * batch.shard.of
        used = max(1, size // self.batch_shrink)
        count = -(-used // shard.of)
        latents, device = batch.latents[:count], batch.latents.device
        labels = None if batch.fake_labels is None else batch.fake_labels[:count]
        draws = {name: drawn[:count] for name, drawn in batch.draws.items()}
        styles = styles_of(batch.generator, latents, labels, draws)
        pixels = 3, batch.generator.resolution, batch.generator.resolution
        sources = generators(batch.random, len(batch.latents))[:count]
        noise = torch.stack([torch.randn(pixels, generator=source) for source in sources])
        lengths = path_lengths(batch.generator, styles, sent(noise.to(latents.dtype), device), draws)
        mine = sent((shard.index + shard.of * torch.arange(count) < used).to(latents.dtype), device)
        return self.penalty(lengths, mine * (shard.of / used), batch.time)

    def penalty(self, lengths: Tensor, weights: Tensor, time: Time) -> Tensor:
        """The weighted term of some lengths [images], and the mean moved by them.

        Args:
            weights: [images], each image's part in the mean over the microbatches and processes, times their number.
        """
        if time.iteration != self._iteration:
            self._iteration, self._before, self._parts = time.iteration, self.mean, []
        before = torch.as_tensor(self._before, dtype=lengths.dtype, device=lengths.device)
        own = ranks.gathered_with_gradient((lengths * weights).sum()).mean()
        self._parts.append(own.detach())
        self.mean = before.lerp(torch.stack(self._parts).mean(), self.decay)
        target = before.lerp(own, self.decay)
        return at(self.weight, time) * self.interval * ((lengths - target).square() * weights).sum()

    def state_dict(self) -> dict[str, Any]:
        return {"mean": float(self.mean)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean, self._iteration = float(state["mean"]), None


def styles_of(generator: nn.Module, latents: Tensor, labels: Tensor | None, draws: Mapping[str, Tensor]) -> Tensor:
    """Styles w+ [batch, num_styles, style_dim] that the generator makes images of in training."""
    if hasattr(generator, "styles"):
        return generator.styles(latents, *conditions(labels), **draws)
    return generator.mapping(latents, *conditions(labels))[:, None].expand(-1, generator.num_styles, -1)


def path_lengths(generator: nn.Module, styles: Tensor, noise: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
    """Lengths [batch], differentiable to the generator's parameters.

    Args:
        styles: [batch, num_styles, style_dim] with a graph; noise: normal [batch, 3, side, side].
    """
    images = generator.synthesis(styles, **draws)
    projected = (images * noise).sum() / math.sqrt(images.shape[2] * images.shape[3])
    (jacobian,) = torch.autograd.grad(projected, styles, create_graph=True)
    return jacobian.square().sum(dim=2).mean(dim=1).sqrt()
