"""From latents to pictures: truncation towards the mean style, in batches."""

import torch
from torch import Tensor, nn

from stylenat.data.pixels import to_uint8
from stylenat.training.random_streams import latents_by_index

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
    """
    device = next(generator.parameters()).device
    images = []
    for some in latents.split(batch):
        styles = generator.mapping(some.to(device))
        if truncation_psi != 1:
            styles = centre + truncation_psi * (styles - centre)
        images.append(to_uint8(generator.synthesis(styles[:, None].expand(-1, generator.num_styles, -1))).cpu())
    return torch.cat(images)
