"""Layers that both networks are made of: equalised linears and weights, AdaIN."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylenat.networks.modulated_norm import modulated_norm
from stylenat.networks.moments import modulated, moments
from stylenat.networks.pieces import Scratch, as_map, as_tokens, assembled, without_graph

SLOPE, GAIN = 0.2, math.sqrt(2)


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU 0.2 with gain sqrt(2), which keeps the variance (StyleGAN2)."""
    return F.leaky_relu(x, SLOPE) * GAIN


def given(labels: Tensor | None, num_classes: int) -> Tensor:
    """The labels of a network that needs them. Raises ValueError where they are missing or of other classes."""
    if labels is None or labels.shape[1:] != (num_classes,):
        got = "none" if labels is None else list(labels.shape)
        raise ValueError(f"a network with num_classes = {num_classes} needs labels [batch, {num_classes}]; got {got}")
    return labels if labels.is_floating_point() else labels.float()


class EqualLinear(nn.Module):
    """Linear layer with an equalised learning rate (Progressive GAN, section 4.1).

    Args:
        lr_multiplier: scales the effective learning rate of weight and bias, not the initial output.
        gain: scales the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, *, lr_multiplier: float = 1.0, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features).mul_(gain / lr_multiplier))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.scale = lr_multiplier / math.sqrt(in_features)
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        if x.ndim != 2:
            return self.forward(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
        return torch.addmm(self.bias, x, self.weight.t(), beta=self.lr_multiplier, alpha=self.scale)


class PixelNorm(nn.Module):
    """Scales each latent to unit mean square."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-8)


class AdaIN(nn.Module):
    """Adaptive instance norm over tokens: ``gamma(w) * norm(x) + beta(w)`` (StyleSwin, section 3.1).

    gamma is not ``1 + ...``: with the published initialisation (``gamma_bias=0``, ``style_gain=1``) it is a
    zero-mean random factor.
    """

    eps = 1e-5

    def __init__(self, channels: int, style_dim: int, gamma_bias: float = 0.0, style_gain: float = 1.0) -> None:
        super().__init__()
        self.style = EqualLinear(style_dim, 2 * channels, gain=style_gain)
        nn.init.constant_(self.style.bias[:channels], gamma_bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: [batch, height, width, channels]; style: [batch, style_dim]."""
        tokens = as_tokens(x)
        return as_map(assembled(self.of(tokens, style), tokens, tokens.shape, tokens.shape[-1]), x)

    def of(self, tokens: Tensor, style: Tensor) -> Callable[..., Tensor]:
        """``normalised(samples, some, out=None)``: that part of the result for tokens as ``as_tokens`` gives them.

        Where a graph is kept, the parts are all of it. Without one, the next call overwrites the part.
        """
        modulation = self.style(style)
        if not without_graph(tokens):
            return lambda samples, some, out=None: modulated_norm(tokens, modulation, self.eps)
        gamma, beta = modulation[:, None].chunk(2, dim=-1)
        variance, mean = moments(tokens)
        slope, scratch = gamma * torch.rsqrt(variance + self.eps), Scratch()

        def normalised(samples: slice, some: slice, out: Tensor | None = None) -> Tensor:
            piece = tokens[samples, some]
            out = scratch(piece, *piece.shape) if out is None else out
            return modulated(piece, mean[samples], slope[samples], beta[samples], out)

        return normalised


def no_autocast(like: Tensor) -> AbstractContextManager[object]:
    """Within it, tensors on this one's device keep their precision."""
    kind = like.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


class EqualWeight(nn.Module):
    """Holds a unit-variance weight and yields it scaled for an equalised learning rate."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn_like(weight))
        self.scale = 1 / math.sqrt(weight[0].numel())

    def forward(self, gain: float = 1.0) -> Tensor:
        return self.weight * (self.scale * gain)
