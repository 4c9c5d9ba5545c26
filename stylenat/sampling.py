"""From latents to pictures: truncation towards the mean style, in batches."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from registry import UserError
from stylenat.classes import Classes, ClassOf
from stylenat.draws import conditions
from stylenat.pixels import SPACES, Name, NotFinite, to_pixels, to_uint8
from stylenat.random_streams import BLOCK, blocks_of, draw_by_index, latents_by_index

MEAN_STYLE_SAMPLES = 4096


@torch.no_grad()
def mean_style(generator: nn.Module, seed: int = 0, classes: Classes | None = None) -> Tensor:
    """The mean style [1, style_dim], which truncation pulls towards: the one that the generator keeps, or those of all
    classes [num_classes, style_dim]; else the mean over many latents.

    Where there are classes, over labels as often as in the data (StyleGAN2-ADA)."""
    if keeps_mean_style(generator):
        return torch.atleast_2d(generator.mean_style)
    device = next(generator.parameters()).device
    latents = latents_by_index(seed, 0, MEAN_STYLE_SAMPLES, generator.latent_dim).to(device)
    if classes is None:
        return generator.mapping(latents).mean(dim=0, keepdim=True)
    numbers = classes.as_in_the_data(seed)(0, MEAN_STYLE_SAMPLES)
    return generator.mapping(latents, classes.one_hot(numbers).to(device)).mean(dim=0, keepdim=True)


@contextmanager
def in_evaluation(network: nn.Module) -> Iterator[None]:
    """The network is in evaluation mode within this context: an image does not depend on others, and no running buffer
    moves."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def is_style_based(generator: nn.Module) -> bool:
    """Whether it has the two halves of ``interfaces.StyleBased``."""
    return hasattr(generator, "mapping") and hasattr(generator, "synthesis")


def for_all_layers(styles: Tensor, generator: nn.Module) -> Tensor:
    """w [count, style_dim] or w+ to w+ [count, num_styles, style_dim]."""
    return styles if styles.ndim == 3 else styles[:, None].expand(-1, generator.num_styles, -1)


def must_be_style_based(generator: nn.Module, what: str) -> None:
    """Raises UserError for ``what``, such as style mixing, of a generator without styles."""
    if not is_style_based(generator):
        raise UserError(f"{what} needs a generator with styles; {type(generator).__name__} has none")


def sampled_in(generator: nn.Module) -> str:
    """The precision of its images: that of its parameters, or the lower one."""
    return getattr(generator, "sampled_in", str(next(generator.parameters()).dtype).removeprefix("torch."))


def keeps_mean_style(generator: nn.Module) -> bool:
    """Whether it has a running mean of its styles, in ``mean_style``."""
    return getattr(generator, "mean_style", None) is not None


def takes_transform(generator: nn.Module) -> bool:
    """Whether its input can be sampled anywhere (``interfaces.Equivariant``)."""
    return is_style_based(generator) and "transform" in inspect.signature(generator.synthesis).parameters


def check_truncation(generator: nn.Module, truncation_psi: float) -> None:
    """Raises UserError for truncation of a generator without styles."""
    if truncation_psi != 1 and not is_style_based(generator):
        raise UserError(
            f"truncation_psi is {truncation_psi:g}, but {type(generator).__name__} has no styles to truncate; use 1"
        )


@dataclass(frozen=True)
class Sampler:
    """The images of a generator by number: the i-th depends on (seed, i) and the weights alone.

    The one definition of "sample i": of the grids, of the metrics and of ``tools/sample.py``.

    Attributes:
        truncation_psi: 1 for none, 0 for the mean image (StyleGAN, section 4.2 and appendix B).
        centre: the mean style, or that of each class, needed when ``truncation_psi`` is not 1.
        batch: images made at once. Others may round the last bit differently, so samples to be compared bit by bit
            need equal ones.
        classes: of a conditional generator; class_of: of each sample, and what a protocol says of that.
        pixel_space: of the generator's images.
        truncation_cutoff: how many of the generator's styles, from the first on, are truncated (StyleGAN, appendix B);
            None for all.
    """

    generator: nn.Module
    seed: int
    truncation_psi: float = 1.0
    centre: Tensor | None = None
    batch: int = BLOCK
    classes: Classes | None = None
    class_of: ClassOf | None = None
    which_classes: str | None = None
    pixel_space: Name = "imagenet"
    truncation_cutoff: int | None = None

    def in_rows(self, columns: int) -> "Sampler":
        """For a grid of so many columns: one class a row. An unconditional sampler is as it was."""
        if self.classes is None:
            return self
        return replace(self, class_of=self.classes.in_rows(columns), which_classes="one a row")

    def of_class(self, number: int) -> "Sampler":
        """Images of one class. Raises UserError where there is no such class, or there are none."""
        if self.classes is None:
            raise UserError("the generator has no classes; it was trained without labels")
        return replace(self, class_of=self.classes.one(number), which_classes=f"class {number}")

    def __call__(self, start: int, count: int) -> Tensor:
        """uint8 [count, 3, resolution, resolution] of those sample indices, on the generator's device.

        Raises:
            NotFinite: the generator gives NaN or infinite values.
        """
        stop, parts = start + count, []
        refused: NotFinite | None = None
        while start < stop:
            batch = self.batch_of(start)
            try:
                images = self.images(batch)
            except NotFinite as error:
                refused, images = error, error.pixels
            parts.append(images[start - batch.start : stop - batch.start])
            start = batch.stop
        if refused is not None:
            raise NotFinite(str(refused), torch.cat(parts)) from refused
        return torch.cat(parts)

    def at(self, indices: Sequence[int]) -> Tensor:
        """uint8 [len(indices), 3, resolution, resolution] of these sample indices, in their order.

        Raises:
            NotFinite: as a call does.
        """
        found: dict[int, Tensor] = {}
        for batch, some in groupby(sorted(set(indices)), key=self.batch_of):
            images = self.images(batch)
            found |= {i: images[i - batch.start] for i in some}
        return torch.stack([found[i] for i in indices])

    def styles_at(self, indices: Sequence[int]) -> Tensor:
        """Truncated styles of these sample indices, in their order: as ``styles``."""
        found: dict[int, Tensor] = {}
        for batch, some in groupby(sorted(set(indices)), key=self.batch_of):
            arguments = batch.start, len(batch)
            styles = self.styles(self.latents(*arguments), self.labels(*arguments))
            found |= {i: styles[i - batch.start] for i in some}
        return torch.stack([found[i] for i in indices])

    def batch_of(self, index: int) -> range:
        """The sample indices that are made at once with this one.

        Batches lie at fixed indices: an image has the same bits whatever else is asked for. Blocks of 16 indices, or of
        as many times 16 as hold a batch, are cut into batches from their start.
        """
        block = blocks_of(self.batch) * BLOCK
        first = index // block * block
        start = index - (index - first) % self.batch
        return range(start, min(start + self.batch, first + block))

    def images(self, batch: range) -> Tensor:
        """uint8 [len(batch), 3, resolution, resolution], made at once. Raises NotFinite."""
        latents, labels = self.latents(batch.start, len(batch)), self.labels(batch.start, len(batch))
        return self.of_latents(latents, labels, self.draws(batch.start, len(batch)))

    def latents(self, start: int, count: int) -> Tensor:
        """[count, latent_dim] of those sample indices, on the generator's device."""
        device = next(self.generator.parameters()).device
        return latents_by_index(self.seed, start, count, self.generator.latent_dim).to(device)

    def labels(self, start: int, count: int) -> Tensor | None:
        """[count, num_classes] of those sample indices, on the generator's device; None where there are no classes."""
        if self.classes is None or self.class_of is None:
            return None
        return self.classes.one_hot(self.class_of(start, count)).to(next(self.generator.parameters()).device)

    def draws(self, start: int, count: int) -> dict[str, Tensor]:
        """What the generator declares to draw, [count, *shape] by name, of those sample indices."""
        device = next(self.generator.parameters()).device
        declared = getattr(self.generator, "draws", {})
        return {name: draw_by_index(draw, self.seed, name, start, count).to(device) for name, draw in declared.items()}

    @torch.no_grad()
    def styles(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Truncated styles [count, style_dim] of latents [count, latent_dim]; with a cutoff, w+ [count, num_styles,
        style_dim]."""
        styles = self.generator.mapping(latents, *conditions(labels))
        if self.truncation_psi == 1:
            return styles
        assert self.centre is not None
        # Of several mean styles, that of the sample's class.
        centre = self.centre if labels is None or len(self.centre) == 1 else labels @ self.centre
        truncated = centre + self.truncation_psi * (styles - centre)
        if self.truncation_cutoff is None:
            return truncated
        first = torch.arange(self.generator.num_styles, device=styles.device) < self.truncation_cutoff
        return torch.where(first[:, None], truncated[:, None], styles[:, None])

    def of_latents(self, latents: Tensor, labels: Tensor | None, draws: Mapping[str, Tensor]) -> Tensor:
        """uint8 [count, 3, resolution, resolution] of latents [count, latent_dim] with labels and draws. Raises
        NotFinite."""
        if is_style_based(self.generator):
            return self._shown(self._synthesis(self.styles(latents, labels), draws))
        with torch.no_grad():
            return self._shown(self.generator(latents, *conditions(labels), **draws))

    def of_styles(self, styles: Tensor) -> Tensor:
        """uint8 [count, 3, resolution, resolution] of w [count, style_dim] or w+. Raises NotFinite."""
        device = next(self.generator.parameters()).device
        parts = styles.to(device).split(self.batch)
        return torch.cat([self._shown(self._synthesis(part)) for part in parts])

    @torch.no_grad()
    def pixels(self, styles: Tensor, transform: Tensor | None = None) -> Tensor:
        """float32 [count, 3, resolution, resolution] of styles [count, style_dim] or [count, num_styles, style_dim],
        neither rounded nor clamped.

        Args:
            transform: [count, 3, 3] of the generator's input, see ``interfaces.Equivariant``; None for none.
        """
        parts, space = styles.split(self.batch), SPACES[self.pixel_space]
        if transform is None:
            return torch.cat([to_pixels(self._synthesis(part), space) for part in parts])
        made = [
            self._synthesis(part, {"transform": moves})
            for part, moves in zip(parts, transform.split(self.batch), strict=True)
        ]
        return torch.cat([to_pixels(images, space) for images in made])

    @torch.no_grad()
    def _synthesis(self, styles: Tensor, draws: Mapping[str, Tensor] | None = None) -> Tensor:
        return self.generator.synthesis(for_all_layers(styles, self.generator), **(draws or {}))

    def _shown(self, images: Tensor) -> Tensor:
        """uint8. Raises NotFinite, which says what to do."""
        try:
            return to_uint8(images, SPACES[self.pixel_space])
        except NotFinite as error:
            message = (
                "the generator's images are not finite (NaN or infinite pixels); use weights from before it diverged"
            )
            raise NotFinite(message, error.pixels) from error

    def protocol(self) -> dict[str, Any]:
        """What a result says of the generated images."""
        precision = sampled_in(self.generator)
        truncated = self.truncation_psi != 1
        return {
            "seed": self.seed,
            "resolution": self.generator.resolution,
            "truncation_psi": self.truncation_psi,
            "truncation_centre": self._centre() if truncated else None,
            "precision": f"{precision}, TF32" if _tf32(self.generator) else precision,
            "batch": self.batch,
            "labels": self.which_classes,
        }

    def _centre(self) -> str:
        if keeps_mean_style(self.generator):
            return "mean style kept in training"
        return f"mean of {MEAN_STYLE_SAMPLES} styles, seed 0"


@dataclass(frozen=True)
class GivenStyles:
    """Images of given styles by their number, in place of a sampler's: the truncation does not apply to them.

    Attributes:
        styles: [count, style_dim] or [count, num_styles, style_dim].
    """

    sampler: Sampler
    styles: Tensor

    def batch_of(self, index: int) -> range:
        start = index // self.sampler.batch * self.sampler.batch
        return range(start, min(start + self.sampler.batch, len(self.styles)))

    def images(self, batch: range) -> Tensor:
        """uint8 [len(batch), 3, resolution, resolution]. Raises NotFinite."""
        return self.sampler.of_styles(self.styles[batch.start : batch.stop])


def _tf32(generator: nn.Module) -> bool:
    on_gpu = next(generator.parameters()).is_cuda
    return on_gpu and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)


def default_batch(batch_size: int) -> int:
    """Images that grids and metrics of a training with this ``train.batch_size`` make at once."""
    return min(batch_size, BLOCK)


def sampler_of(
    generator: nn.Module,
    seed: int,
    truncation_psi: float = 1.0,
    batch: int = BLOCK,
    classes: Classes | None = None,
    pixel_space: Name = "imagenet",
    truncation_cutoff: int | None = None,
) -> Sampler:
    """With the mean style that truncation needs, and labels drawn as often as in the data.

    Raises:
        UserError: truncation of a generator without styles, or a cutoff beyond its styles.
    """
    check_truncation(generator, truncation_psi)
    if truncation_cutoff is not None:
        must_be_style_based(generator, "a truncation cutoff")
        if not 0 <= truncation_cutoff <= generator.num_styles:
            raise UserError(
                f"the truncation cutoff is {truncation_cutoff}; the generator has {generator.num_styles} styles"
            )
    centre = mean_style(generator, classes=classes) if truncation_psi != 1 else None
    sampler = Sampler(
        generator, seed, truncation_psi, centre, batch, pixel_space=pixel_space, truncation_cutoff=truncation_cutoff
    )
    if classes is None:
        return sampler
    return replace(sampler, classes=classes, class_of=classes.as_in_the_data(seed), which_classes="as in the data")
