"""Discriminator ``stylegan2`` (arXiv 1912.04958, section 4.1): residual blocks and a minibatch standard deviation."""

import math
from typing import Literal

from torch import Tensor, nn

from plugins.systems.stylegan2.generator import HALF, channels_at
from plugins.systems.stylegan2.layers import Convolution, activated
from registry import Count, CountOrZero, Positive, UserError
from stylenat import ranks
from stylenat.networks.discriminator import minibatch_stddev
from stylenat.networks.layers import EqualLinear, PixelNorm, given, leaky_relu
from stylenat.networks.resampling import blur_kernel, downsample
from stylenat.networks.widths import Width, resolutions

Architecture = Literal["resnet", "skip", "orig"]


class LabelMapping(nn.Module):
    """Labels [batch, num_classes] to [batch, dim], what the last features are multiplied with (2006.06676)."""

    def __init__(self, num_classes: int, dim: int, layers: int, lr_multiplier: float) -> None:
        super().__init__()
        self.embed, self.norm = EqualLinear(num_classes, dim), PixelNorm()
        self.layers = nn.ModuleList(EqualLinear(dim, dim, lr_multiplier=lr_multiplier) for _ in range(layers))

    def forward(self, labels: Tensor) -> Tensor:
        x = self.norm(self.embed(labels))
        for layer in self.layers:
            x = leaky_relu(layer(x))
        return x


class Block(nn.Module):
    """From one resolution to half of it."""

    def __init__(
        self, channels: int, out_channels: int, architecture: Architecture, from_rgb: bool, clamp: float | None
    ) -> None:
        super().__init__()
        self.from_rgb = Convolution(3, channels, 1, clamp=clamp) if from_rgb else None
        self.conv0 = Convolution(channels, channels, 3, clamp=clamp)
        self.conv1 = Convolution(channels, out_channels, 3, down=2, clamp=clamp)
        self.skip = Convolution(channels, out_channels, 1, down=2, bias=False) if architecture == "resnet" else None
        self.halves_image = architecture == "skip"
        self.register_buffer("taps", blur_kernel(), persistent=False)

    @property
    def layers(self) -> list[Convolution]:
        """From the image on."""
        return [layer for layer in (self.from_rgb, self.conv0, self.conv1, self.skip) if layer is not None]

    def forward(self, x: Tensor | None, image: Tensor) -> tuple[Tensor, Tensor]:
        """x: [batch, channels, side, side], None at the first; image: [batch, 3, side, side]."""
        if self.from_rgb is not None:
            seen = self.from_rgb(image)
            x = seen if x is None else x + seen
            image = downsample(image, self.taps) if self.halves_image else image
        if self.skip is None:
            return self.conv1(self.conv0(x)), image
        return self.skip(x, HALF) + self.conv1(self.conv0(x), HALF), image


class StyleGAN2Discriminator(nn.Module):
    """Discriminator ``stylegan2``: one logit an image.

    Args:
        resolution: side of the image, a power of two from 8.
        channel_base, channel_max: as the generator's.
        architecture: ``resnet`` (the published one), ``skip`` (the image enters at every resolution), ``orig``.
        stddev_group: images a group of the minibatch standard deviation; min(batch, this) must divide the batch.
        mapping_layers, mapping_lr_multiplier: of the labels' mapping network.
        conv_clamp: bound on the magnitude of features, for half precision (published: 256); None for none.
        num_classes: of a class-conditional discriminator, whose logit is the product of its last features with the
            mapped label (projection, arXiv 1802.05637); 0 for an unconditional one.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channel_base: Width = 32768,
        channel_max: Width = 512,
        architecture: Architecture = "resnet",
        stddev_group: Count = 4,
        mapping_layers: Width = 8,
        mapping_lr_multiplier: Positive = 0.01,
        conv_clamp: Positive | None = None,
        num_classes: CountOrZero = 0,
    ) -> None:
        super().__init__()
        sides = resolutions(resolution, "discriminator.stylegan2.resolution")
        width = channels_at(sides, channel_base, channel_max)
        self.resolution, self.stddev_group, self.num_classes = resolution, stddev_group, num_classes
        blocks = []
        for side in reversed(sides[1:]):
            from_rgb = side == resolution or architecture == "skip"
            blocks.append(Block(width[side], width[side // 2], architecture, from_rgb, conv_clamp))
        self.blocks = nn.ModuleList(blocks)
        self.final_from_rgb = Convolution(3, width[4], 1) if architecture == "skip" else None
        self.final_convolution = Convolution(width[4] + 1, width[4], 3, clamp=conv_clamp)
        self.final_linear = EqualLinear(width[4] * 16, width[4])
        self.logit = EqualLinear(width[4], width[4] if num_classes else 1)
        self.mapping = (
            LabelMapping(num_classes, width[4], mapping_layers, mapping_lr_multiplier) if num_classes else None
        )

    def check_batch(self, batch: int) -> None:
        """Raises UserError when the minibatch standard deviation's groups cannot be formed."""
        group = min(batch, self.stddev_group)
        if batch % group:
            raise UserError(
                f"a batch of {batch} does not divide into minibatch-stddev groups of {group}; use a multiple of "
                f"{self.stddev_group}, a smaller batch, or another discriminator.stylegan2.stddev_group"
            )

    def freeze(self, layers: int) -> None:
        """Excludes the first convolutions, counted from the image, from training (FreezeD, arXiv 2002.10964).

        Raises UserError when there are not so many.
        """
        every = [layer for block in self.blocks for layer in block.layers]
        if not 0 <= layers <= len(every):
            raise UserError(
                f"the discriminator has {len(every)} layers to freeze at {self.resolution}x{self.resolution}; "
                f"train.frozen_discriminator_layers is {layers}"
            )
        for layer in every[:layers]:
            layer.requires_grad_(False)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, 3, resolution, resolution] and labels [batch, num_classes] to logits [batch, 1]."""
        x = self.logit(self.features(images))
        if self.mapping is None:
            return x
        mapped = self.mapping(given(labels, self.num_classes))
        return (x * mapped).sum(dim=1, keepdim=True) / math.sqrt(x.shape[1])

    def features(self, images: Tensor) -> Tensor:
        """[batch, 3, resolution, resolution] to [batch, channels] of the last hidden layer."""
        self.check_batch(images.shape[0] * ranks.world_size())
        x: Tensor | None = None
        for block in self.blocks:
            x, images = block(x, images)
        assert x is not None
        if self.final_from_rgb is not None:
            x = x + self.final_from_rgb(images)
        x = self.final_convolution(minibatch_stddev(x, self.stddev_group))
        return activated(self.final_linear(x.flatten(1)))
