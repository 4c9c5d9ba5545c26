"""Ways between points in the latent space and the style space, and mixtures of styles. No networks, no files."""

from collections.abc import Callable

import torch
from torch import Tensor

Between = Callable[[Tensor, Tensor, Tensor], Tensor]


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """a at t = 0, b at t = 1. a, b: [..., dim]; t: broadcastable, [..., 1]."""
    return a + t * (b - a)


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Along the great circle between the directions of a and b, with the length interpolated linearly.

    For normal latents, whose lengths are nearly equal (arXiv 1609.04468, section 2.1). Where the directions are equal
    or opposite there is no such circle: then as ``linear``. Arguments as for ``linear``.
    """
    lengths = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    first, last = a / lengths[0].clamp(min=1e-12), b / lengths[1].clamp(min=1e-12)
    angle = torch.arccos((first * last).sum(dim=-1, keepdim=True).clamp(-1, 1))
    sine = angle.sin()
    degenerate = sine < 1e-4
    safe = sine.masked_fill(degenerate, 1)
    direction = ((1 - t) * angle).sin() / safe * first + (t * angle).sin() / safe * last
    return torch.where(degenerate, linear(a, b, t), linear(*lengths, t) * direction)


METHODS: dict[str, Between] = {"linear": linear, "spherical": spherical}


def walk(points: Tensor, frames: int, closed: bool, between: Between) -> Tensor:
    """A walk through all points, [points, ...] to [steps, ...].

    Args:
        frames: steps from a point to the next.
        closed: back to the first point at the end, whose frame is not repeated: points * frames steps. Otherwise the
            walk ends at the last point: (points - 1) * frames + 1 steps.
    """
    last = len(points) if closed else len(points) - 1
    step = torch.arange(last * frames + (not closed), device=points.device)
    left = step // frames
    t = (step % frames / frames).to(points.dtype).view(-1, *(1 for _ in points.shape[1:]))
    return between(points[left % len(points)], points[(left + 1) % len(points)], t)


def mixed(base: Tensor, other: Tensor, layers: list[int]) -> Tensor:
    """w+ of ``base`` with these styles of ``other``. Both [..., num_styles, style_dim]."""
    taken = torch.zeros(base.shape[-2], dtype=torch.bool, device=base.device)
    taken[layers] = True
    return torch.where(taken[:, None], other, base)
