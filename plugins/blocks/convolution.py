"""Block ``convolution``: StyleGAN2's modulated convolution (arXiv 1912.04958, section 2.2), without attention."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import AttentionSite, Finite
from stylenat.networks.layers import EqualLinear, leaky_relu

EPS = 1e-8


class ConvolutionBlock(nn.Module):
    """``leaky_relu(demodulated(conv3x3, s(w))(x) + bias)``, with an equalised learning rate.

    StyleGAN2 also adds noise after the convolution; this block does not, since no other block has noise.

    Args:
        site: where the block sits; style_dim: length of w. Both are supplied by the generator.
        style_gain: scales the scales' initial dependence on w.
    """

    def __init__(self, *, site: AttentionSite, style_dim: int, style_gain: Finite = 1.0) -> None:
        super().__init__()
        channels = site.channels
        self.style = EqualLinear(style_dim, channels, gain=style_gain)
        nn.init.ones_(self.style.bias)
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.scale = 1 / math.sqrt(9 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: [batch, height, width, channels]; style: [batch, style_dim]."""
        scales, weight = self.style(style), self.scale * self.weight
        # Equations 1 and 3, with both factors drawn out of the sum: input channels are scaled before the
        # convolution and output channels after it, so that one convolution serves the whole batch.
        demodulation = torch.rsqrt(scales.square() @ weight.square().sum(dim=(2, 3)).t() + EPS)
        x = (x * scales[:, None, None]).permute(0, 3, 1, 2)
        x = F.conv2d(x, weight, padding=1).permute(0, 2, 3, 1)
        return leaky_relu(x * demodulation[:, None, None] + self.bias)

    def describe(self) -> str:
        """One line for the dry run's table."""
        return "modulated 3x3 convolution"
