"""From latents to pictures: truncation towards the mean style, in batches."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylenat.pixels import NotFinite, to_pixels, to_uint8
from stylenat.random_streams import BLOCK, blocks_of, latents_by_index

MEAN_STYLE_SAMPLES = 4096


@torch.no_grad()
def mean_style(generator: nn.Module, seed: int = 0) -> Tensor:
    """The average style [1, style_dim] over many latents, the centre that truncation pulls towards."""
    device = next(generator.parameters()).device
    latents = latents_by_index(seed, 0, MEAN_STYLE_SAMPLES, generator.latent_dim).to(device)
    return generator.mapping(latents).mean(dim=0, keepdim=True)


@dataclass(frozen=True)
class Sampler:
    """The images of a generator by number: the i-th depends on (seed, i) and the weights alone.

    The one definition of "sample i": of the grids, of the metrics and of ``tools/sample.py``.

    Attributes:
        truncation_psi: 1 for none, 0 for the mean image (StyleGAN, section 4.2 and appendix B).
        centre: the mean style, needed when ``truncation_psi`` is not 1.
        batch: images made at once. Others may round the last bit differently, so samples to be compared bit by bit
            need equal ones.
    """

    generator: nn.Module
    seed: int
    truncation_psi: float = 1.0
    centre: Tensor | None = None
    batch: int = BLOCK

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
        styles = self.styles(self.latents(batch.start, len(batch)))
        try:
            return to_uint8(self._synthesis(styles))
        except NotFinite as error:
            message = (
                "the generator's images are not finite (NaN or infinite pixels); use weights from before it diverged"
            )
            raise NotFinite(message, error.pixels) from error

    def latents(self, start: int, count: int) -> Tensor:
        """[count, latent_dim] of those sample indices, on the generator's device."""
        device = next(self.generator.parameters()).device
        return latents_by_index(self.seed, start, count, self.generator.latent_dim).to(device)

    @torch.no_grad()
    def styles(self, latents: Tensor) -> Tensor:
        """Truncated styles [count, style_dim] of latents [count, latent_dim]."""
        styles = self.generator.mapping(latents)
        return styles if self.truncation_psi == 1 else self.centre + self.truncation_psi * (styles - self.centre)

    @torch.no_grad()
    def pixels(self, styles: Tensor) -> Tensor:
        """float32 [count, 3, resolution, resolution] of styles [count, style_dim], neither rounded nor clamped."""
        return torch.cat([to_pixels(self._synthesis(part)) for part in styles.split(self.batch)])

    @torch.no_grad()
    def _synthesis(self, styles: Tensor) -> Tensor:
        return self.generator.synthesis(styles[:, None].expand(-1, self.generator.num_styles, -1))

    def protocol(self) -> dict[str, Any]:
        """What a result says of the generated images."""
        precision = str(next(self.generator.parameters()).dtype).removeprefix("torch.")
        truncated = self.truncation_psi != 1
        return {
            "seed": self.seed,
            "resolution": self.generator.resolution,
            "truncation_psi": self.truncation_psi,
            "truncation_centre": f"mean of {MEAN_STYLE_SAMPLES} styles, seed 0" if truncated else None,
            "precision": f"{precision}, TF32" if _tf32(self.generator) else precision,
            "batch": self.batch,
        }


def _tf32(generator: nn.Module) -> bool:
    on_gpu = next(generator.parameters()).is_cuda
    return on_gpu and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)


def default_batch(batch_size: int) -> int:
    """Images that grids and metrics of a training with this ``train.batch_size`` make at once."""
    return min(batch_size, BLOCK)


def sampler_of(generator: nn.Module, seed: int, truncation_psi: float = 1.0, batch: int = BLOCK) -> Sampler:
    """With the mean style that truncation needs."""
    centre = mean_style(generator) if truncation_psi != 1 else None
    return Sampler(generator, seed, truncation_psi, centre, batch)
