"""The discriminator of one scale of the projected features: strided convolutions under spectral norm, and logits for
every position."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import UserError
from stylenat.networks.batch_norm import BatchNorm
from stylenat.networks.layers import EqualLinear, leaky_relu
from stylenat.networks.spectral_norm import SpectralNorm, SpectralNorms

KERNEL = 4
"""Side of all convolutions."""


def convolution_weight(in_channels: int, out_channels: int) -> SpectralNorm:
    """4x4, with PyTorch's default initialisation, under spectral norm."""
    return SpectralNorm(
        nn.init.kaiming_uniform_(torch.empty(out_channels, in_channels, KERNEL, KERNEL), a=math.sqrt(5))
    )


class DownBlock(nn.Module):
    """4x4 convolution of stride 2, batch norm, leaky ReLU without gain."""

    def __init__(self, in_channels: int, out_channels: int, norm_group: int | None) -> None:
        super().__init__()
        self.weight = convolution_weight(in_channels, out_channels)
        bound = 1 / math.sqrt(KERNEL**2 * in_channels)
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))
        self.norm = BatchNorm(out_channels, norm_group)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """weight: its own, normalised."""
        x = F.conv2d(x, weight, self.bias, stride=2, padding=1)
        return F.leaky_relu(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 0.2)


class ClassProjection(nn.Module):
    """Labels to the vectors that features are multiplied with (projection, arXiv 1802.05637)."""

    def __init__(self, rows: int, dim: int, out: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, dim))
        self.linear = EqualLinear(dim, out)

    def forward(self, labels: Tensor) -> Tensor:
        """One-hot [batch, classes], of the table's first rows, to [batch, out]."""
        return leaky_relu(self.linear(labels @ self.table[: labels.shape[1]]))


class ScaleDiscriminator(nn.Module):
    """One scale's.

    Args:
        channels: of the features; widths: of its strided blocks; norm_group: images that batch norm normalises
            together.
        embeddings: rows and length of the class table, None for an unconditional one; label_dim: of the projection.
    """

    def __init__(
        self,
        channels: int,
        widths: list[int],
        norm_group: int | None,
        embeddings: tuple[int, int] | None,
        label_dim: int,
    ) -> None:
        super().__init__()
        inputs = [channels, *widths]
        self.blocks = nn.ModuleList(
            DownBlock(before, after, norm_group) for before, after in zip(inputs, widths, strict=False)
        )
        self.classes = ClassProjection(*embeddings, label_dim) if embeddings else None
        self.logit = convolution_weight(inputs[-1], label_dim if embeddings else 1)
        norms = [*(block.weight for block in self.blocks), self.logit]
        self.spectral = SpectralNorms(norms, [1.0] * len(norms))

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """[batch, channels, side, side] to logits [batch, positions]. Raises UserError for a map that is too small."""
        side = min(x.shape[2:])
        if side >> len(self.blocks) < KERNEL:
            raise UserError(
                f"discriminator.projected: a mixed map of side {side} is too small for {len(self.blocks)} halvings and "
                f"a {KERNEL}x{KERNEL} convolution; bind fewer discriminator.projected.channels, or larger backbone maps"
            )
        *weights, logit = self.spectral()
        for block, weight in zip(self.blocks, weights, strict=True):
            x = block(x, weight)
        x = F.conv2d(x, logit)
        if self.classes is not None and labels is not None:
            vectors = self.classes(labels)
            x = (x * vectors[:, :, None, None]).sum(dim=1) / math.sqrt(vectors.shape[1])
        return x.flatten(1)
