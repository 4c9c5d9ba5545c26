"""The layers of StyleGAN2 (arXiv 1912.04958, section 2) as in StyleGAN2-ADA (arXiv 2006.06676)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylenat.networks.layers import GAIN, SLOPE, EqualLinear, no_autocast
from stylenat.networks.resampling import blur_kernel, convolve

EPS = 1e-8


def activated(x: Tensor, gain: float = 1.0, clamp: float | None = None) -> Tensor:
    """Leaky ReLU with gain sqrt(2) * ``gain``, clamped to ``clamp`` * ``gain`` either way."""
    return clamped(F.leaky_relu(x, SLOPE) * (GAIN * gain), gain, clamp)


def clamped(x: Tensor, gain: float = 1.0, clamp: float | None = None) -> Tensor:
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def modulated(x: Tensor, weight: Tensor, styles: Tensor, taps: Tensor, up: int = 1, demodulate: bool = True) -> Tensor:
    """A convolution whose input channels are scaled by styles (equations 1 and 3), zero-padded to keep the side.

    Both factors are drawn out of the sum: one convolution serves the whole batch. Upsampling layers flip the weight. In
    half precision, the weight's scale and the float32 sum of its squares keep everything in range.

    Args:
        x: [batch, in, height, width]; weight: [out, in, side, side]; styles: [batch, in]; taps: of upsampling.

    Returns [batch, out, height * up, width * up].
    """
    scale = 1 / math.sqrt(weight[0].numel()) if demodulate else 1.0  # Demodulation cancels it.
    weight, styles = weight * scale, styles.to(x.dtype)
    out = convolve(x * styles[:, :, None, None], weight, taps, up=up, padding=weight.shape[-1] // 2, correlate=up == 1)
    if not demodulate:
        return out
    with no_autocast(x):
        squares = weight.square().sum(dim=(2, 3))
        length = torch.rsqrt(styles.to(squares.dtype).square() @ squares.t() + EPS * scale**2)
    return out * length.to(out.dtype)[:, :, None, None]


def affine(style_dim: int, channels: int) -> EqualLinear:
    """From w to one scale a channel, 1 on average at the start."""
    layer = EqualLinear(style_dim, channels)
    nn.init.ones_(layer.bias)
    return layer


class StyledConvolution(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU.

    Args:
        side: of the output in pixels; up: 2 to double the side.
    """

    def __init__(
        self, in_channels: int, out_channels: int, style_dim: int, side: int, up: int, clamp: float | None
    ) -> None:
        super().__init__()
        self.up, self.clamp = up, clamp
        self.affine = affine(style_dim, in_channels)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(side, side))
        self.register_buffer("taps", blur_kernel(), persistent=False)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """x: [batch, in, ...]; style: [batch, style_dim]; noise: [batch or nothing, 1, side, side], None for none."""
        x = modulated(x, self.weight, self.affine(style), self.taps, self.up)
        if noise is not None:
            x = x + (noise * self.noise_strength).to(x.dtype)
        return activated(x + self.bias.to(x.dtype)[:, None, None], gain, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to RGB, without demodulation."""

    def __init__(self, channels: int, style_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = affine(style_dim, channels)
        self.weight = nn.Parameter(torch.randn(3, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.scale = 1 / math.sqrt(channels)
        self.register_buffer("taps", blur_kernel(), persistent=False)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = modulated(x, self.weight, self.affine(style) * self.scale, self.taps, demodulate=False)
        # The bias is in float32, and with it the image.
        return clamped(x + self.bias[:, None, None], clamp=self.clamp)


class Convolution(nn.Module):
    """Convolution with an equalised learning rate, bias and leaky ReLU; without bias it is linear and not clamped.

    Args:
        side: of the kernel; up, down: 2 to double or halve the image's side.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        side: int,
        up: int = 1,
        down: int = 1,
        bias: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up, self.down, self.clamp = up, down, clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, side, side))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = 1 / math.sqrt(in_channels * side * side)
        self.register_buffer("taps", blur_kernel(), persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[batch, in, side, side] to [batch, out, ...]; the gain scales the activation and its clamp."""
        scale = self.scale if self.bias is not None else self.scale * gain
        weight = self.weight * scale
        x = convolve(x, weight, self.taps, self.up, self.down, weight.shape[-1] // 2, correlate=self.up == 1)
        if self.bias is None:
            return x
        return activated(x + self.bias.to(x.dtype)[:, None, None], gain, self.clamp)
