"""R3GAN's layers: residual blocks of grouped convolutions, resampling, and the two 4x4 bases.

There is no normalisation, no equalised learning rate and no noise. Weights are stored in float32 and cast to the type
of the features where they are used, so that some resolutions can be computed in bfloat16.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylenat.networks.resampling import downsample, upsample

SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2 / (1 + SLOPE**2))
"""Keeps the variance through a leaky ReLU. It is in the initial weights; the forward pass has no gain."""
FILTER = (1.0, 2.0, 1.0)
"""Convolved with [1, 1] it is the binomial [1, 3, 3, 1]."""


class Convolution(nn.Module):
    """A convolution without bias, at the same size unless ``padding`` says otherwise.

    Args:
        gain: the initial weights are normal, of deviation gain / sqrt(fan_in); 0 for zeros.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        groups: int = 1,
        gain: float = 1.0,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        shape = out_channels, in_channels // groups, kernel_size, kernel_size
        self.groups, self.padding = groups, (kernel_size - 1) // 2 if padding is None else padding
        self.weight = nn.Parameter(torch.randn(shape).mul_(gain / math.sqrt(math.prod(shape[1:]))))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in, height, width] to [batch, out, height, width]."""
        return F.conv2d(x, self.weight.to(x.dtype), padding=self.padding, groups=self.groups)


class Linear(nn.Module):
    """A linear layer without bias; ``gain`` as Convolution's."""

    def __init__(self, in_features: int, out_features: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features).mul_(gain / math.sqrt(in_features)))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in] to [batch, out]."""
        return F.linear(x, self.weight.to(x.dtype))


class BiasedActivation(nn.Module):
    """Leaky ReLU 0.2 of x + bias, one bias a channel, without gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias.to(x.dtype)[:, None, None], SLOPE)


class ResidualBlock(nn.Module):
    """x + L3(act(L2(act(L1 x)))): 1x1 to ``expansion`` times the channels, grouped ``kernel_size``, 1x1 back.

    The last convolution starts at zero, so that the block starts as the identity.

    Args:
        channels: of the input and the output; cardinality: groups of the second convolution.
        depth: blocks in the whole network, by which the initial variance is scaled (Fixup, arXiv 1901.09321).
    """

    def __init__(self, channels: int, cardinality: int, expansion: int, kernel_size: int, depth: int) -> None:
        super().__init__()
        wide, gain = expansion * channels, ACTIVATION_GAIN * depth**-0.25
        self.expand = Convolution(channels, wide, gain=gain)
        self.first = BiasedActivation(wide)
        self.grouped = Convolution(wide, wide, kernel_size, cardinality, gain)
        self.second = BiasedActivation(wide)
        self.contract = Convolution(wide, channels, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width], and so is the result."""
        return x + self.contract(self.second(self.grouped(self.first(self.expand(x)))))


class Resampler(nn.Module):
    """Twice or half the side, by a filter with zero padding: at the borders it is not a bilinear interpolation.

    Args:
        taps: of the filter in one dimension before it is convolved with [1, 1].
        up: whether to zero-stuff and multiply by 4; otherwise every second sample is kept.
    """

    def __init__(self, up: bool, taps: Sequence[float] = FILTER) -> None:
        super().__init__()
        line = F.conv1d(torch.tensor([[taps]], dtype=torch.float32), torch.ones(1, 1, 2), padding=1).flatten()
        kernel = torch.outer(line, line)
        self.up = up
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return upsample(x, self.kernel) if self.up else downsample(x, self.kernel)


class Upsample(nn.Module):
    """A 1x1 convolution where the widths differ, then twice the side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = Convolution(in_channels, out_channels) if in_channels != out_channels else None
        self.resample = Resampler(up=True)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in, height, width] to [batch, out, 2 height, 2 width]."""
        return self.resample(x if self.convolution is None else self.convolution(x))


class Downsample(nn.Module):
    """Half the side, then a 1x1 convolution where the widths differ."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.resample = Resampler(up=False)
        self.convolution = Convolution(in_channels, out_channels) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in, height, width] to [batch, out, height / 2, width / 2]."""
        x = self.resample(x)
        return x if self.convolution is None else self.convolution(x)


class GenerativeBasis(nn.Module):
    """A learned 4x4 map a channel, scaled by a linear function of the latent."""

    def __init__(self, latent_dim: int, channels: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(channels, 4, 4))
        self.linear = Linear(latent_dim, channels)

    def forward(self, latents: Tensor) -> Tensor:
        """[batch, latent_dim] to [batch, channels, 4, 4]."""
        return self.basis.to(latents.dtype) * self.linear(latents)[:, :, None, None]


class DiscriminativeBasis(nn.Module):
    """A learned weighted sum over the 4x4 pixels of each channel, then a linear layer."""

    def __init__(self, channels: int, out_features: int) -> None:
        super().__init__()
        self.basis = Convolution(channels, channels, 4, groups=channels, padding=0)
        self.linear = Linear(channels, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, 4, 4] to [batch, out_features]."""
        return self.linear(self.basis(x).flatten(1))
