"""From an image to the styles that draw it, by gradient descent (StyleGAN2, arXiv 1912.04958, appendix D)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stylenat.draws import derived_seed
from stylenat.pixels import SPACES, to_pixels_with_graph
from stylenat.random_streams import latents_by_index
from stylenat.sampling import Sampler, for_all_layers, must_be_style_based

CANDIDATES = 512
"""Samples among which the start is chosen."""
RATE = 0.1
"""Of Adam, in standard deviations of w."""
RISE, FALL = 0.05, 0.5
"""Parts of the steps in which the rate rises at first and falls at the end."""

Perceptual = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Inverted:
    """Attributes:
    styles: [num_styles, style_dim], those of the step with the smallest loss.
    psnr: decibels, of the rounded image; loss: the smallest; history: of each step.
    """

    styles: Tensor
    psnr: float
    loss: float
    history: list[float]


def invert(
    sampler: Sampler,
    target: Tensor,
    steps: int,
    wide: bool = True,
    perceptual: Perceptual | None = None,
    seed: int = 0,
    watch: Callable[[int, Tensor], None] = lambda step, image: None,
) -> Inverted:
    """Minimises the mean squared difference of pixels, in units of half their range, plus the perceptual distance.

    It starts from the sample that is nearest in pixels, or the mean style, whichever is better.

    Args:
        target: uint8 [3, resolution, resolution].
        wide: a style for each layer (w+, arXiv 1904.03189) instead of one for all (w).
        perceptual: of pixels [1, 3, side, side] twice, from 0 to 255, to a distance [1].
        seed: of the samples.
        watch: called with each step, from 0, and its image, float32 [3, side, side], pixels from 0 to 255.

    Raises:
        UserError: the generator has no styles.
    """
    generator, space = sampler.generator, SPACES[sampler.pixel_space]
    must_be_style_based(generator, "inversion")
    device = next(generator.parameters()).device
    wanted = target.to(device).float()[None]
    start, spread = _start(sampler, wanted, seed)
    free = for_all_layers(start[None], generator).clone() if wide else start[None].clone()
    free.requires_grad_()
    optimizer = torch.optim.Adam([free], betas=(0.9, 0.99))
    best, best_loss, history = free.detach().clone(), math.inf, []
    for step in range(steps + 1):
        optimizer.param_groups[0]["lr"] = RATE * spread * _ramp(step / max(steps, 1))
        images = to_pixels_with_graph(generator.synthesis(for_all_layers(free, generator)), space)
        loss = ((images - wanted) / 127.5).square().mean()
        if perceptual is not None:
            loss = loss + perceptual(images, wanted).mean()
        history.append(float(loss.detach()))
        if history[-1] < best_loss:
            best, best_loss = free.detach().clone(), history[-1]
        watch(step, images.detach()[0])
        if step < steps:
            optimizer.zero_grad()
            (free.grad,) = torch.autograd.grad(loss, [free])
            optimizer.step()
    styles = for_all_layers(best, generator)[0]
    return Inverted(styles.cpu(), psnr(sampler.of_styles(styles[None])[0], target.to(device)), best_loss, history)


def psnr(image: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio of 8-bit images in decibels; infinite for equal ones."""
    error = float((image.float() - target.float()).square().mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def _ramp(t: float) -> float:
    return min(1.0, (t + 1e-3) / RISE) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / FALL)))


@torch.no_grad()
def _start(sampler: Sampler, wanted: Tensor, seed: int) -> tuple[Tensor, float]:
    """w [style_dim] to start from, and the standard deviation of w's numbers."""
    count, generator = CANDIDATES, sampler.generator
    latents = latents_by_index(derived_seed(seed, "inversion"), 0, count, generator.latent_dim).to(wanted.device)
    labels = None
    if sampler.classes is not None and sampler.class_of is not None:
        labels = sampler.classes.one_hot(sampler.class_of(0, count)).to(wanted.device)
    styles = generator.mapping(latents, *(() if labels is None else (labels,)))
    mean = styles.mean(0)
    candidates = torch.cat([mean[None], styles])
    distances = torch.cat([(sampler.pixels(part) - wanted).square().mean((1, 2, 3)) for part in candidates.split(16)])
    return candidates[distances.argmin()], float((styles - mean).std(0).mean().clamp(min=1e-6))
