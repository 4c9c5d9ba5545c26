"""The style-based generator (StyleNAT, section 3; the line of StyleSwin, arXiv 2112.10762, section 3)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import AttentionSite, CountOrZero, Finite, Positive, UserError
from stylenat.networks.layers import EqualLinear, PixelNorm, given, leaky_relu
from stylenat.networks.pieces import assembled, part, shared_memory, without_graph
from stylenat.networks.resampling import UpsampleImage
from stylenat.networks.widths import Width, resolutions, widths

LARGE = 2**20
"""Numbers in a sample's feature map from which samples of a batch are taken one by one where no graph is kept."""


class Mapping(nn.Module):
    """Latents z [batch, latent_dim], and labels [batch, num_classes] if there are classes, to styles w
    [batch, style_dim].

    Labels are embedded linearly, normalised like the latents and put beside them (StyleGAN2-ADA, arXiv 2006.06676,
    appendix D).

    Args:
        embed: another embedding, from labels to [batch, embed_dim]; None for the linear one, of style_dim.
    """

    def __init__(
        self,
        latent_dim: int,
        style_dim: int,
        layers: int,
        lr_multiplier: float,
        num_classes: int = 0,
        embed: nn.Module | None = None,
        embed_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.norm, self.num_classes = PixelNorm(), num_classes
        self.embed = EqualLinear(num_classes, style_dim) if num_classes and embed is None else embed
        inputs = latent_dim + ((embed_dim or style_dim) if self.embed is not None else 0)
        self.layers = nn.ModuleList(
            EqualLinear(inputs if i == 0 else style_dim, style_dim, lr_multiplier=lr_multiplier) for i in range(layers)
        )

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        styles = self.norm(latents)
        if self.embed is not None:
            styles = torch.cat([styles, self.norm(self.embed(given(labels, self.num_classes)))], dim=1)
        for layer in self.layers:
            styles = leaky_relu(layer(styles))
        return styles


def sinusoidal_position(channels: int, side: int) -> Tensor:
    """Fixed position embedding of one axis [side, channels / 2]: sines, then cosines.

    A place's embedding is its column's, then its row's. Kept apart: at 256x256 the whole is as large as the features.
    """
    count = channels // 4
    frequency = torch.exp(torch.arange(count) * -(math.log(10000.0) / max(count - 1, 1)))
    angle = torch.arange(1, side + 1)[:, None] * frequency  # positions start at 1
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Upsample(nn.Module):
    """To twice the side and another width, with ``alpha`` times a fixed position embedding added."""

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.reduction = nn.Linear(in_channels, out_channels, bias=False)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.register_buffer("axis", sinusoidal_position(out_channels, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, height, width, in] to [batch, 2 height, 2 width, out]."""
        batch, height, width, channels = x.shape

        def doubled_rows(samples: slice, some: slice, out: Tensor | None) -> Tensor:
            first, last, _ = some.indices(height)
            if last - first == height:
                doubled = _doubled(part(x, samples, some))
            else:
                # A row more on either side, which the interpolation looks at.
                above = min(first, 1)
                doubled = _doubled(x[samples, first - above : last + 1])[:, 2 * above :][:, : 2 * (last - first)]
            position, out = self._position(2 * first, 2 * last), None if out is None else out.flatten(1, 2)
            return torch.addcmul(self.reduction(self.norm(doubled)), position, self.alpha, out=out)

        shape = batch, height, 2, 2 * width, self.reduction.out_features
        return assembled(doubled_rows, x, shape, 4 * width * channels).view(batch, 2 * height, 2 * width, -1)

    def _position(self, first: int, last: int) -> Tensor:
        """The embedding of rows [first, last): [rows, side, channels]."""
        columns = self.axis.expand(last - first, -1, -1)
        return torch.cat([columns, self.axis[first:last, None].expand(-1, len(self.axis), -1)], dim=2)


def _doubled(x: Tensor) -> Tensor:
    # A permuted view is channels-last memory, which interpolate keeps: no transposes.
    x = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=2, mode="bilinear", align_corners=False)
    return x.permute(0, 2, 3, 1)


class ToRGB(nn.Module):
    """A 1x1 convolution to RGB added to the running image, which is upsampled first if it is smaller."""

    def __init__(self, channels: int, gain: float) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 3)
        nn.init.xavier_normal_(self.linear.weight, gain=gain)
        nn.init.zeros_(self.linear.bias)
        self.bias = nn.Parameter(torch.zeros(3))
        self.upsample = UpsampleImage()

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        """x: [batch, side, side, channels]; image: [batch, 3, side or side / 2, ...] or None."""
        weight, bias = self.linear.weight, self.linear.bias + self.bias
        rgb = F.linear(x, weight, bias.to(weight.dtype)).permute(0, 3, 1, 2)
        if weight.dtype != bias.dtype:  # ``lower_precision``; the image is summed in float32.
            rgb = rgb.to(bias.dtype)
        if image is None:
            return rgb
        return rgb + (self.upsample(image) if image.shape[-1] < rgb.shape[-1] else image)


class Stage(nn.Module):
    """The blocks of one resolution, the upsample to the next (none at the last), and RGB."""

    def __init__(self, blocks: list[nn.Module], upsample: nn.Module | None, to_rgb: ToRGB) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.upsample = upsample
        self.to_rgb = to_rgb

    def forward(self, x: Tensor, styles: list[Tensor], image: Tensor | None) -> tuple[Tensor, Tensor]:
        for block, style in zip(self.blocks, styles, strict=True):
            x = block(x, style)
        if self.upsample is not None:
            x = self.upsample(x)
        return x, self.to_rgb(x, image)


class StyleGenerator(nn.Module):
    """Generator ``style``: constant input, two blocks a resolution, each modulated by its own copy of w.

    Args:
        resolution: side of the image, a power of two from 8.
        block: class of one block (kind ``block``), such as ``@block.hydra``.
        channel_multiplier: m in the published widths 4-32: 512, 64: 256m, 128: 128m, 256: 64m, 512: 32m, 1024: 16m.
        channels: widths at 4, 8, ... instead of the published ones. A longer list is cut to the resolution; a shorter
            one goes on by halving, down to 8.
        latent_dim: length of z; style_dim: length of w.
        mapping_layers, mapping_lr_multiplier: of the mapping network.
        head_dim: channels a head, where that leaves at least ``min_heads`` heads.
        to_rgb_gain: Xavier gain of the ToRGB layers' initial weights.
        num_classes: of a class-conditional generator, whose mapping sees labels; 0 for an unconditional one.
    """

    def __init__(
        self,
        *,
        resolution: int,
        block: Callable[..., nn.Module],
        channel_multiplier: Width = 2,
        channels: list[Width] | None = None,
        latent_dim: Width = 512,
        style_dim: Width = 512,
        mapping_layers: Width = 8,
        mapping_lr_multiplier: Positive = 0.01,
        head_dim: Width = 32,
        min_heads: Width = 4,
        to_rgb_gain: Finite = 0.02,
        num_classes: CountOrZero = 0,
    ) -> None:
        super().__init__()
        sides = resolutions(resolution, "generator.style.resolution")
        width = widths(sides, channel_multiplier, channels, "generator.style.channels")
        self.resolution, self.latent_dim, self.style_dim = resolution, latent_dim, style_dim
        self.num_styles = 2 * len(sides)
        self.num_classes = num_classes
        self.mapping = Mapping(latent_dim, style_dim, mapping_layers, mapping_lr_multiplier, num_classes)
        self.constant = nn.Parameter(torch.randn(1, 4, 4, width[4]))
        self.sites = [
            [AttentionSite(side, max(width[side] // head_dim, min_heads), width[side], i) for i in (0, 1)]
            for side in sides
        ]
        for side in sides:
            heads = max(width[side] // head_dim, min_heads)
            if width[side] % heads:
                raise UserError(
                    f"generator.style.head_dim = {head_dim} and min_heads = {min_heads} give {heads} heads at "
                    f"{side}x{side}, which do not divide its {width[side]} channels; bind another head_dim or channels"
                )
        stages = []
        for side, sites in zip(sides, self.sites, strict=True):
            blocks = [block(site=site, style_dim=style_dim) for site in sites]
            last = side == resolution
            if not last and width[2 * side] % 4:
                raise UserError(
                    f"generator.style.channels: {width[2 * side]} at {2 * side}x{2 * side} does not divide by 4, as "
                    "the position embedding needs"
                )
            upsample = None if last else Upsample(width[side], width[2 * side], 2 * side)
            stages.append(Stage(blocks, upsample, ToRGB(width[side if last else 2 * side], to_rgb_gain)))
        self.stages = nn.ModuleList(stages)
        self.apply(_initialise)

    def synthesis(self, styles: Tensor) -> Tensor:
        """w+ [batch, num_styles, style_dim] to images [batch, 3, resolution, resolution], normalised space."""
        x = self.constant.expand(styles.shape[0], -1, -1, -1)
        largest = max(3 * site.channels * site.resolution**2 for sites in self.sites for site in sites)
        with shared_memory(x, largest):
            return self._from_stage(0, x, None, styles)

    def _from_stage(self, first: int, x: Tensor, image: Tensor | None, styles: Tensor) -> Tensor:
        each = styles.unbind(1)
        for i, stage in enumerate(self.stages[first:], first):
            if image is not None and without_graph(x) and len(x) > 1 and x[0].numel() >= LARGE:
                # Sample by sample: a batch of large maps needs memory of its own for each and gains nothing.
                samples = zip(x.split(1), image.split(1), styles.split(1), strict=True)
                return torch.cat([self._from_stage(i, *sample) for sample in samples])
            x, image = stage(x, [each[2 * i], each[2 * i + 1]], image)
        return image

    def lower_precision(self) -> bool:
        """See ``interfaces.Generator``: maps and products are bfloat16; styles, statistics, the softmax and the image
        float32."""
        blocks = [block for stage in self.stages for block in stage.blocks]
        if not all(hasattr(block, "lower_precision") for block in blocks):
            return False
        for block in blocks:
            block.lower_precision()
        for stage in self.stages:
            if stage.upsample is not None:
                stage.upsample.bfloat16()
            stage.to_rgb.linear.bfloat16()
        self.constant.data = self.constant.data.bfloat16()
        return True

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """z [batch, latent_dim] and labels [batch, num_classes] to images [batch, 3, resolution, resolution]."""
        return self.synthesis(self.mapping(latents, labels)[:, None].expand(-1, self.num_styles, -1))


def _initialise(module: nn.Module) -> None:
    """A module's own linears: truncated normal 0.02, bias 0. Equalised linears and ToRGB keep theirs."""
    for child in module.children():
        if isinstance(child, nn.Linear) and not isinstance(module, ToRGB):
            nn.init.trunc_normal_(child.weight, std=0.02)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
