"""Generator ``stylegan2`` (arXiv 1912.04958, section 2 and 3.2): modulated convolutions, noise, ToRGB skips."""

from typing import Literal

import torch
from torch import Tensor, nn

from plugins.systems.stylegan2.layers import Convolution, StyledConvolution, ToRGB
from registry import CountOrZero, Positive, Share
from stylenat.draws import Draw, conditions
from stylenat.networks.generator import Mapping
from stylenat.networks.resampling import blur_kernel, upsample
from stylenat.networks.widths import Width, resolutions

Architecture = Literal["skip", "orig", "resnet"]
Noise = Literal["random", "const", "none"]

HALF = 0.5**0.5
"""Of both branches of a residual block, so that their sum has the variance of one."""


def channels_at(sides: list[int], channel_base: int, channel_max: int) -> dict[int, int]:
    """Side to channels: channel_base / side, at most ``channel_max`` and at least 1."""
    return {side: max(1, min(channel_base // side, channel_max)) for side in sides}


class Block(nn.Module):
    """The layers of one resolution: one convolution at 4x4, two above, and RGB.

    Args:
        to_rgb: whether it has a ToRGB layer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style_dim: int,
        side: int,
        architecture: Architecture,
        to_rgb: bool,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.side, self.first = side, side == 4
        if self.first:
            self.const = nn.Parameter(torch.randn(out_channels, 4, 4))
        else:
            self.conv0 = StyledConvolution(in_channels, out_channels, style_dim, side, 2, clamp)
        self.conv1 = StyledConvolution(out_channels, out_channels, style_dim, side, 1, clamp)
        self.to_rgb = ToRGB(out_channels, style_dim, clamp) if to_rgb else None
        residual = architecture == "resnet" and not self.first
        self.skip = Convolution(in_channels, out_channels, 1, up=2, bias=False) if residual else None
        self.register_buffer("taps", blur_kernel(), persistent=False)

    @property
    def layers(self) -> list[StyledConvolution]:
        return [self.conv1] if self.first else [self.conv0, self.conv1]

    def forward(
        self, x: Tensor | None, image: Tensor | None, styles: Tensor, noise: list[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """x: [batch, in, side / 2, side / 2], None at 4x4; image: [batch, 3, side / 2, side / 2] or None.

        Args:
            styles: [batch, layers + 1, style_dim], the last for ToRGB; noise: of each layer, see StyledConvolution.
        """
        if x is None:
            x = self.conv1(self.const.expand(styles.shape[0], -1, -1, -1), styles[:, 0], noise[0])
        elif self.skip is not None:
            skipped = self.skip(x, HALF)
            x = self.conv0(x, styles[:, 0], noise[0])
            x = skipped + self.conv1(x, styles[:, 1], noise[1], HALF)
        else:
            x = self.conv1(self.conv0(x, styles[:, 0], noise[0]), styles[:, 1], noise[1])
        image = None if image is None else upsample(image, self.taps)
        if self.to_rgb is not None:
            rgb = self.to_rgb(x, styles[:, -1])
            image = rgb if image is None else image + rgb
        return x, image


class StyleGAN2Generator(nn.Module):
    """Generator ``stylegan2``: images in [-1, 1] (``train.pixel_space = 'symmetric'``).

    Args:
        resolution: side of the image, a power of two from 8.
        channel_base, channel_max: min(channel_base / side, channel_max) channels at each side; the base is 16384 in
            the configuration paper256 and 32768 in those for larger images.
        latent_dim: length of z; style_dim: length of w.
        mapping_layers, mapping_lr_multiplier: of the mapping network.
        architecture: ``skip`` sums the RGB of all resolutions (the published one), ``orig`` has RGB at the last alone,
            ``resnet`` has residual blocks (section 4.1).
        noise: in training: ``random``, drawn for each image; ``const``, fixed maps that are part of the weights; or
            ``none``. sampling_noise: the same for samples and metrics.
        style_mixing: probability that a batch's layers from a random one on take the styles of other latents.
        mean_style_decay: of the running mean of w that truncation pulls towards (2006.06676's code: 0.995), for each
            batch of latents; None for no running mean: truncation then takes the mean of 4096 styles.
        conv_clamp: bound on the magnitude of features, for half precision (published: 256); None for none.
        num_classes: of a class-conditional generator, whose mapping sees labels; 0 for an unconditional one.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channel_base: Width = 32768,
        channel_max: Width = 512,
        latent_dim: Width = 512,
        style_dim: Width = 512,
        mapping_layers: Width = 8,
        mapping_lr_multiplier: Positive = 0.01,
        architecture: Architecture = "skip",
        noise: Noise = "random",
        sampling_noise: Noise = "const",
        style_mixing: Share = 0.9,
        mean_style_decay: Share | None = 0.995,
        conv_clamp: Positive | None = None,
        num_classes: CountOrZero = 0,
    ) -> None:
        super().__init__()
        sides = resolutions(resolution, "generator.stylegan2.resolution")
        width = channels_at(sides, channel_base, channel_max)
        self.resolution, self.latent_dim, self.style_dim = resolution, latent_dim, style_dim
        self.num_styles, self.num_classes = 2 * len(sides), num_classes
        self.noise, self.sampling_noise = noise, sampling_noise
        self.style_mixing, self.mean_style_decay = style_mixing, mean_style_decay
        self.mapping = Mapping(latent_dim, style_dim, mapping_layers, mapping_lr_multiplier, num_classes)
        if mean_style_decay is not None:
            self.register_buffer("mean_style", torch.zeros(style_dim))
        blocks = []
        for side in sides:
            to_rgb = architecture == "skip" or side == resolution
            inputs = width[max(side // 2, 4)]
            blocks.append(Block(inputs, width[side], style_dim, side, architecture, to_rgb, conv_clamp))
        self.blocks = nn.ModuleList(blocks)

    @property
    def draws(self) -> dict[str, Draw]:
        """Noise maps where noise is random; in training, what style mixing draws: other latents, and two numbers of
        the batch that say whether and from where to mix."""
        kind = self.noise if self.training else self.sampling_noise
        maps = {name: Draw((1, side, side)) for name, side in self._noise_maps()} if kind == "random" else {}
        if self.training and self.style_mixing > 0:
            maps |= {"mixing_latents": Draw((self.latent_dim,)), "mixing": Draw((2,), "uniform", shared=True)}
        return maps

    def _noise_maps(self) -> list[tuple[str, int]]:
        return [(f"noise{block.side}_{i}", block.side) for block in self.blocks for i in range(len(block.layers))]

    @torch.no_grad()
    def observe(self, latents: Tensor, labels: Tensor | None = None) -> None:
        """Moves the running mean of w by a batch of latents [batch, latent_dim]."""
        if self.mean_style_decay is not None:
            mean = self.mapping(latents, *conditions(labels)).mean(dim=0)
            self.mean_style.copy_(mean.lerp(self.mean_style, self.mean_style_decay))

    def styles(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        mixing_latents: Tensor | None = None,
        mixing: Tensor | None = None,
        **noise: Tensor,
    ) -> Tensor:
        """Styles w+ [batch, num_styles, style_dim]; in training, mixed as the draws say (StyleGAN, section 3.1)."""
        styles = self.mapping(latents, *conditions(labels))[:, None].expand(-1, self.num_styles, -1)
        if not self.training or mixing_latents is None or mixing is None:
            return styles
        others = self.mapping(mixing_latents, *conditions(labels))[:, None]
        # The first number says whether, the second from which style on: 1 to num_styles - 1.
        first = 1 + (mixing[:, 1] * (self.num_styles - 1)).floor()
        first = torch.where(mixing[:, 0] < self.style_mixing, first, self.num_styles)
        index = torch.arange(self.num_styles, device=styles.device)
        return torch.where((index < first[:, None])[:, :, None], styles, others)

    def synthesis(self, styles: Tensor, **draws: Tensor) -> Tensor:
        """w+ [batch, num_styles, style_dim] to images [batch, 3, resolution, resolution].

        Without draws, random noise is the constant maps: the same image each time.
        """
        kind = self.noise if self.training else self.sampling_noise
        x = image = None
        position = 0
        for block in self.blocks:
            noise: list[Tensor | None] = [None] * len(block.layers)
            if kind != "none":
                noise = [layer.noise_const[None, None] for layer in block.layers]
            if kind == "random":
                names = [f"noise{block.side}_{i}" for i in range(len(noise))]
                noise = [draws.get(name, const) for name, const in zip(names, noise, strict=True)]
            # ToRGB has the style of the next block's first layer.
            x, image = block(x, image, styles[:, position : position + len(noise) + 1], noise)
            position += len(noise)
        return image

    def forward(self, latents: Tensor, labels: Tensor | None = None, **draws: Tensor) -> Tensor:
        """z [batch, latent_dim] and labels [batch, num_classes] to images [batch, 3, resolution, resolution]."""
        return self.synthesis(self.styles(latents, labels, **draws), **draws)
