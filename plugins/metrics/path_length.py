"""Metric ``ppl``: the perceptual path length of the generator itself."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from plugins.features.lpips import Lpips
from registry import CountOrZero, Positive, UserError
from stylenat.evaluation.accumulators import Rows
from stylenat.interfaces import Measured, Sampler
from stylenat.random_streams import BLOCK, derived_seed
from stylenat.sampling import must_be_style_based


class Steps:
    """Of each sample, LPIPS between two images a small step apart on the way from it to another, over the step
    squared."""

    name = "path_step"

    def __init__(
        self, lpips: Lpips, space: Literal["w", "z"], sampling: Literal["full", "end"], epsilon: float
    ) -> None:
        self.lpips, self.space, self.sampling, self.epsilon = lpips, space, sampling, epsilon

    def check(self) -> None:
        """Raises UserError when LPIPS's weights are missing."""
        self.lpips.check()

    def check_generator(self, generator: nn.Module) -> None:
        """Raises UserError for one without styles."""
        must_be_style_based(generator, "ppl")

    def take(self, path: Path, names: Mapping[str, Tensor]) -> bool:
        """Takes a file of weights with these tensors, if it is one of LPIPS's."""
        return self.lpips.take(path, names)

    @property
    def download(self) -> bool:
        """Whether LPIPS's weights are fetched where they are missing."""
        return self.lpips.download

    @download.setter
    def download(self, allowed: bool) -> None:
        self.lpips.download = allowed

    def protocol(self) -> dict[str, Any]:
        return {
            "name": self.name, "version": 1, "space": self.space, "sampling": self.sampling, "epsilon": self.epsilon,
            "similarity": self.lpips.protocol(),
        }  # fmt: skip

    @torch.no_grad()
    def along(self, sampler: Sampler, start: int, count: int) -> Tensor:
        """float32 [count, 1] of the samples number ``start`` to ``start + count``."""
        if not hasattr(sampler, "styles"):
            raise UserError("ppl measures a generator; these are only images")
        if hasattr(sampler, "generator"):
            self.check_generator(sampler.generator)
        # Sample i walks from latent 2i towards latent 2i + 1.
        latents = sampler.latents(2 * start, 2 * count)
        at = _uniform(start, count).to(latents) if self.sampling == "full" else latents.new_zeros(count, 1)
        # Both ends have the class of the first: the way is within it.
        labels = sampler.labels(2 * start, 2 * count)
        of_pair = None if labels is None else labels[0::2]
        of_ends = None if of_pair is None else of_pair.repeat_interleave(2, dim=0)
        ends = latents if self.space == "z" else sampler.styles(latents, of_ends)
        here, there = ends[0::2], ends[1::2]
        way = _arc if self.space == "z" else torch.lerp
        steps = [way(here, there, at), way(here, there, at + self.epsilon)]
        styles = [sampler.styles(step, of_pair) if self.space == "z" else step for step in steps]
        one, other = (sampler.pixels(style) for style in styles)
        return (self.lpips(one, other).float() / self.epsilon**2)[:, None]


class PerceptualPathLength:
    """Perceptual path length (StyleGAN, arXiv 1812.04948, section 4.1): the mean, without the lowest and the highest
    percent, of LPIPS along small steps. Lower is better; it needs no real images.

    Args:
        space: steps along straight lines in ``w`` or along arcs in ``z``.
        sampling: steps anywhere on the way (``full``) or at its beginning (``end``).
        epsilon: their length, as a share of the way.
        resize: side that images are resized to; 0 for none.
        vgg16_weights, lpips_weights: files; None for those in PyTorch's cache, if they are there.
        download: download them into that cache if they are missing.
    """

    name = "ppl"
    uses_real = False

    def __init__(
        self,
        space: Literal["w", "z"] = "w",
        sampling: Literal["full", "end"] = "end",
        epsilon: Positive = 1e-4,
        resize: CountOrZero = 256,
        vgg16_weights: str | None = None,
        lpips_weights: str | None = None,
        download: bool = False,
    ) -> None:
        self.needs = Steps(Lpips(vgg16_weights, lpips_weights, download, resize or None), space, sampling, epsilon)

    def check(self) -> None:
        """Raises UserError when LPIPS's weights are missing."""
        self.needs.check()

    def check_generator(self, generator: nn.Module) -> None:
        """Raises UserError for one without styles."""
        self.needs.check_generator(generator)

    def protocol(self) -> dict[str, Any]:
        return {"version": 1, "discarded": "below the 1st, above the 99th percentile"}

    def accumulator(self) -> Rows:
        return Rows()

    def compare(self, real: Rows, fake: Rows) -> Measured:
        lengths = fake.all().double().flatten()
        low = torch.quantile(lengths, 0.01, interpolation="lower")
        high = torch.quantile(lengths, 0.99, interpolation="higher")
        kept = lengths[(lengths >= low) & (lengths <= high)]
        return Measured(float(kept.mean()), float(kept.std(correction=0)) if len(kept) > 1 else None)


def _uniform(start: int, count: int) -> Tensor:
    """[count, 1] in [0, 1), each of its index alone."""
    blocks = range(start // BLOCK, -(-(start + count) // BLOCK))
    drawn = [torch.rand(BLOCK, 1, generator=torch.Generator().manual_seed(derived_seed(0, "path", b))) for b in blocks]
    skip = start - blocks.start * BLOCK
    return torch.cat(drawn)[skip : skip + count]


def _arc(here: Tensor, there: Tensor, at: Tensor) -> Tensor:
    """Spherical interpolation [count, dim] of directions, as StyleGAN's ``slerp``."""
    here, there = (x / x.norm(dim=1, keepdim=True) for x in (here, there))
    along = (here * there).sum(dim=1, keepdim=True)
    angle = at * along.clamp(-1, 1).acos()
    across = there - along * here
    across = across / across.norm(dim=1, keepdim=True)
    # As long as a normal vector is: a mapping that does not normalise its latents sees what it knows.
    return (here * angle.cos() + across * angle.sin()) * math.sqrt(here.shape[1])
