"""Discriminator ``hit``: StyleGAN2's residual one, simplified (arXiv 2106.07631, appendix)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import CountOrZero
from stylenat.networks.discriminator import minibatch_stddev
from stylenat.networks.layers import SLOPE
from stylenat.networks.resampling import Blur
from stylenat.networks.widths import Width, resolutions, widths


class Convolution(nn.Module):
    """Convolution with zero padding: Glorot-uniform kernels, or an equalised learning rate."""

    def __init__(self, in_channels: int, out_channels: int, size: int, equalised: bool, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(_kernel(equalised, out_channels, in_channels, size, size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = 1 / math.sqrt(in_channels * size**2) if equalised else 1.0

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.weight.shape[-1] // 2)


class Linear(nn.Module):
    """Linear layer, initialised as ``Convolution``."""

    def __init__(self, in_features: int, out_features: int, equalised: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(_kernel(equalised, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.scale = 1 / math.sqrt(in_features) if equalised else 1.0

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


def _kernel(equalised: bool, *shape: int) -> Tensor:
    return torch.randn(shape) if equalised else nn.init.xavier_uniform_(torch.empty(shape))


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU 0.2, without StyleGAN2's gain."""
    return F.leaky_relu(x, SLOPE)


class Block(nn.Module):
    """Residual block to half the side. The pooling comes before the second convolution, which has stride 1."""

    def __init__(self, in_channels: int, out_channels: int, blur: bool, equalised: bool) -> None:
        super().__init__()
        self.pool = Blur(padding=1, stride=2) if blur else nn.AvgPool2d(2)
        self.first = Convolution(in_channels, in_channels, 3, equalised)
        self.second = Convolution(in_channels, out_channels, 3, equalised)
        self.skip = Convolution(in_channels, out_channels, 1, equalised, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        main = leaky(self.second(self.pool(leaky(self.first(x)))))
        return (main + self.skip(self.pool(x))) * math.sqrt(0.5)


class HiTDiscriminator(nn.Module):
    """Discriminator ``hit``: residual blocks down to 4x4 and two linears.

    Args:
        resolution: side of the image, a power of two from 8.
        channel_multiplier: m in the published widths 4-32: 512, 64: 256m, 128: 128m, 256: 64m, 512: 32m, 1024: 16m.
        channels: widths at 4, 8, ..., resolution instead of the published ones; a longer list is cut, a shorter one
            continued by halving, down to 8.
        blur: blur before pooling; False for 2x2 means.
        equalised: learning rates, as in StyleGAN2; False as trained.
        stddev_group: images a group of the minibatch standard deviation; 0 for none, as trained.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channel_multiplier: Width = 2,
        channels: list[Width] | None = None,
        blur: bool = True,
        equalised: bool = False,
        stddev_group: CountOrZero = 0,
    ) -> None:
        super().__init__()
        sides = resolutions(resolution, "discriminator.hit.resolution")
        width = widths(sides, channel_multiplier, channels, "discriminator.hit.channels")
        self.resolution = resolution
        self.stddev, self.stddev_group = stddev_group > 0, max(stddev_group, 1)
        self.from_rgb = Convolution(3, width[resolution], 3, equalised)
        self.blocks = nn.ModuleList(
            Block(width[side], width[side // 2], blur, equalised) for side in reversed(sides[1:])
        )
        self.final_convolution = Convolution(width[4] + self.stddev, width[4], 3, equalised)
        self.final_linear = Linear(width[4] * 16, width[4], equalised)
        self.logit = Linear(width[4], 1, equalised)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 3, resolution, resolution] to logits [batch, 1]."""
        return self.logit(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """[batch, 3, resolution, resolution] to the features [batch, channels] that the logit is linear in."""
        x = leaky(self.from_rgb(images))
        for block in self.blocks:
            x = block(x)
        if self.stddev:
            x = minibatch_stddev(x, self.stddev_group)
        x = leaky(self.final_convolution(x))
        return leaky(self.final_linear(x.flatten(1)))
