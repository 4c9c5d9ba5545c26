"""Generator ``r3gan``: a plain residual network from a latent to an image (arXiv 2501.05441, section 3)."""

from typing import Annotated

import torch
from torch import Tensor, nn

from plugins.systems.r3gan.layers import Convolution, GenerativeBasis, Linear, Upsample
from plugins.systems.r3gan.sizes import Stage, precision, residual_blocks, stages
from registry import Bounds, Count, CountOrZero
from stylenat.networks.layers import given
from stylenat.networks.widths import Width

Blocks = Annotated[int, Bounds(1, 64)]


class R3Generator(nn.Module):
    """No mapping network, styles, noise, normalisation or output non-linearity.

    Args:
        resolution: side of the images, a power of two from 8.
        channels: at 4x4, 8x8, ...; None for the published 768, halved from 64x64 up. A longer list is cut, a shorter
            one continued by halves.
        cardinality: groups of the 3x3 convolutions, in the same way; None for groups of 16 channels.
        blocks: residual blocks at 4x4, 8x8, ...; the last number serves the resolutions that follow; None for two each.
        expansion: of the channels within a block; kernel_size: of the grouped convolutions, odd.
        latent_dim: of the normal latents; num_classes: 0 for an unconditional network.
        label_dim: of the embedded label, which is appended to the latent.
        bf16_resolutions: so many of the largest are computed in bfloat16, and the image is bfloat16 too. The published
            models have 4, or 3 at 32x32.

    Raises:
        UserError: sizes that do not fit each other.
    """

    def __init__(
        self,
        resolution: int,
        channels: list[Width] | None = None,
        cardinality: list[Count] | None = None,
        blocks: list[Blocks] | None = None,
        expansion: Count = 2,
        kernel_size: Count = 3,
        latent_dim: Count = 64,
        num_classes: CountOrZero = 0,
        label_dim: Count = 64,
        bf16_resolutions: CountOrZero = 0,
    ) -> None:
        super().__init__()
        sizes = stages(
            "generator.r3gan", resolution, channels, cardinality, blocks, expansion, kernel_size, bf16_resolutions
        )
        self.resolution, self.latent_dim, self.num_classes = resolution, latent_dim, num_classes
        self.embedding = Linear(num_classes, label_dim) if num_classes else None
        depth, first = sum(size.blocks for size in sizes), sizes[0]
        inputs = latent_dim + (label_dim if num_classes else 0)
        entries = [GenerativeBasis(inputs, first.channels)]
        entries += [Upsample(a.channels, b.channels) for a, b in zip(sizes, sizes[1:], strict=False)]
        self.stages = nn.ModuleList(
            GeneratorStage(size, entry, residual_blocks(size, expansion, kernel_size, depth))
            for size, entry in zip(sizes, entries, strict=True)
        )
        self.to_rgb = Convolution(sizes[-1].channels, 3)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, latent_dim] and one-hot [batch, num_classes] to images [batch, 3, resolution, resolution]."""
        x = latents
        if self.embedding is not None:
            x = torch.cat([latents, self.embedding(given(labels, self.num_classes).to(latents.dtype))], dim=1)
        for stage in self.stages:
            x = stage(x)
        return self.to_rgb(x)


class GeneratorStage(nn.Module):
    """One resolution: the 4x4 basis or an upsampling, then residual blocks.

    Args:
        size: of the stage; entry: from the latent, or from the resolution before.
    """

    def __init__(self, size: Stage, entry: nn.Module, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.size, self.entry, self.blocks = size, entry, nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, latent] or [batch, before, side / 2, side / 2] to [batch, channels, side, side]."""
        x = self.entry(x.to(precision(self.size, next(self.parameters()).dtype)))
        for block in self.blocks:
            x = block(x)
        return x
