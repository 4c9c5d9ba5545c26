"""From latents to pictures: truncation towards the mean style, in batches."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylenat.data.pixels import NotFinite, to_pixels, to_uint8
from stylenat.training.random_streams import BLOCK, latents_by_index

MEAN_STYLE_SAMPLES = 4096


@torch.no_grad()
def mean_style(generator: nn.Module, seed: int = 0) -> Tensor:
    """The average style [1, style_dim] over many latents, the centre that truncation pulls towards."""
    device = next(generator.parameters()).device
    latents = latents_by_index(seed, 0, MEAN_STYLE_SAMPLES, generator.latent_dim).to(device)
    return generator.mapping(latents).mean(dim=0, keepdim=True)


@torch.no_grad()
def sample(
    generator: nn.Module, latents: Tensor, truncation_psi: float = 1.0, centre: Tensor | None = None, batch: int = 16
) -> Tensor:
    """uint8 images [count, 3, resolution, resolution] from latents [count, latent_dim].

    Args:
        truncation_psi: 1 for none, 0 for the mean image (StyleGAN, section 4.2 and appendix B).
        centre: the mean style, needed when ``truncation_psi`` is not 1.

    Raises:
        NotFinite: the generator gives NaN or infinite values.
    """
    device = next(generator.parameters()).device
    images = []
    refused: NotFinite | None = None
    for some in latents.split(batch):
        styles = generator.mapping(some.to(device))
        if truncation_psi != 1:
            styles = centre + truncation_psi * (styles - centre)
        try:
            images.append(to_uint8(generator.synthesis(styles[:, None].expand(-1, generator.num_styles, -1))).cpu())
        except NotFinite as error:
            refused = error
            images.append(error.pixels.cpu())
    if refused is not None:
        message = "the generator's images are not finite (NaN or infinite pixels); use weights from before it diverged"
        raise NotFinite(message, torch.cat(images)) from refused
    return torch.cat(images)


@dataclass(frozen=True)
class Sampler:
    """The images of a generator by number: the i-th depends on (seed, i) and the weights alone.

    Attributes:
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
        """uint8 [count, 3, resolution, resolution] of those sample indices. Raises NotFinite as ``sample`` does."""
        latents = self.latents(start, count)
        return sample(self.generator, latents, self.truncation_psi, self.centre, self.batch)

    def latents(self, start: int, count: int) -> Tensor:
        """[count, latent_dim] of those sample indices, on the generator's device."""
        device = next(self.generator.parameters()).device
        return latents_by_index(self.seed, start, count, self.generator.latent_dim).to(device)

    @torch.no_grad()
    def styles(self, latents: Tensor) -> Tensor:
        """Truncated styles [count, style_dim] of latents [count, latent_dim]."""
        styles = self.generator.mapping(latents)
        return styles if self.centre is None else self.centre + self.truncation_psi * (styles - self.centre)

    @torch.no_grad()
    def pixels(self, styles: Tensor) -> Tensor:
        """float32 [count, 3, resolution, resolution] of styles [count, style_dim], neither rounded nor clamped."""
        wide = (part[:, None].expand(-1, self.generator.num_styles, -1) for part in styles.split(self.batch))
        return torch.cat([to_pixels(self.generator.synthesis(part)) for part in wide])

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


def sampler_of(generator: nn.Module, seed: int, truncation_psi: float = 1.0, batch: int = BLOCK) -> Sampler:
    """With the mean style that truncation needs."""
    centre = mean_style(generator) if truncation_psi != 1 else None
    return Sampler(generator, seed, truncation_psi, centre, min(batch, BLOCK))
