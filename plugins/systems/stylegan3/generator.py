"""Generator ``stylegan3`` (arXiv 2106.12423): from Fourier features to the image through alias-free layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plugins.systems.stylegan3.input import FourierInput
from plugins.systems.stylegan3.layers import SynthesisLayer
from plugins.systems.stylegan3.schedule import Plan, plans, signals
from registry import Count, CountOrZero, Positive, Share
from stylenat.draws import conditions
from stylenat.networks.generator import Mapping
from stylenat.networks.widths import Width, resolutions

OUTPUT_SCALE = 0.25


class AliasFreeGenerator(nn.Module):
    """A mapping network, a Fourier input and a chain of alias-free layers, which the caller makes.

    Args:
        mapping: latents [batch, latent_dim], and labels if there are classes, to styles [batch, style_dim].
        first: styles [batch, style_dim] and ``transform`` to features; layers: from these to RGB, see SynthesisLayer.
    """

    def __init__(
        self,
        resolution: int,
        latent_dim: int,
        style_dim: int,
        mapping: nn.Module,
        first: nn.Module,
        layers: Sequence[nn.Module],
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.resolution, self.latent_dim, self.style_dim = resolution, latent_dim, style_dim
        self.num_styles, self.num_classes = len(layers) + 1, num_classes
        self.mapping, self.input, self.layers = mapping, first, nn.ModuleList(layers)

    def synthesis(self, styles: Tensor, transform: Tensor | None = None) -> Tensor:
        """w+ [batch, num_styles, style_dim] to images [batch, 3, resolution, resolution].

        Args:
            transform: see ``stylenat.interfaces.Equivariant``.
        """
        x = self.input(styles[:, 0], transform)
        for layer, style in zip(self.layers, styles[:, 1:].unbind(dim=1), strict=True):
            x = layer(x, style)
        # Images are in float32, also where the layers are in half precision.
        return x.to(torch.promote_types(x.dtype, torch.float32)) * OUTPUT_SCALE

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """z [batch, latent_dim] and labels [batch, num_classes] to images [batch, 3, resolution, resolution]."""
        styles = self.mapping(latents, *conditions(labels))
        return self.synthesis(styles[:, None].expand(-1, self.num_styles, -1))


def chain(
    plans: Sequence[Plan],
    style_dim: int,
    kernel_size: int = 3,
    radial: bool = False,
    clamp: float | None = 256.0,
    magnitude_decay: float | None = 0.999,
) -> list[SynthesisLayer]:
    """One layer for each plan."""
    return [SynthesisLayer(plan, style_dim, kernel_size, radial, clamp, magnitude_decay) for plan in plans]


class StyleGAN3Generator(AliasFreeGenerator):
    """Generator ``stylegan3``: images in [-1, 1] (``train.pixel_space = 'symmetric'``).

    Configuration T (equivariant to translation) is the default. R (and to rotation) has ``kernel_size`` 1,
    ``radial_filters``, and twice ``channel_base`` and ``channel_max``.

    Args:
        resolution: side of the image, a power of two from 8.
        channel_base, channel_max: min(channel_base / 2 / cutoff, channel_max) channels after a layer.
        latent_dim: length of z; style_dim: length of w.
        mapping_layers, mapping_lr_multiplier: of the mapping network.
        num_layers: without ToRGB; num_critical: of these, critically sampled at the end.
        margin: samples beyond the image on each side.
        kernel_size: of the convolutions; radial_filters: for downsampling, where a layer is not critically sampled.
        mean_style_decay: of the running mean of w that truncation pulls towards, for each batch of latents; None for
            no running mean.
        magnitude_decay: of the running mean squares that layers divide their input by, for each batch; published:
            0.5 ** (batch_size / 20000). They move in the discriminator's pass of the generator. None: they never move.
        conv_clamp: bound on the magnitude of features, published: 256; None for none.
        num_classes: of a class-conditional generator, whose mapping sees labels; 0 for an unconditional one.
    """

    depends_on_microbatches = "magnitudes (StyleGAN3's layers) are measured in each microbatch and averaged afterwards"

    def __init__(
        self,
        *,
        resolution: int,
        channel_base: Width = 32768,
        channel_max: Width = 512,
        latent_dim: Width = 512,
        style_dim: Width = 512,
        mapping_layers: Width = 2,
        mapping_lr_multiplier: Positive = 0.01,
        num_layers: Count = 14,
        num_critical: Count = 2,
        margin: CountOrZero = 10,
        kernel_size: Count = 3,
        radial_filters: bool = False,
        mean_style_decay: Share | None = 0.998,
        magnitude_decay: Share | None = 0.999,
        conv_clamp: Positive | None = 256.0,
        num_classes: CountOrZero = 0,
    ) -> None:
        resolutions(resolution, "generator.stylegan3.resolution")
        found = signals(resolution, num_layers, num_critical, channel_base, channel_max, margin)
        super().__init__(
            resolution,
            latent_dim,
            style_dim,
            Mapping(latent_dim, style_dim, mapping_layers, mapping_lr_multiplier, num_classes),
            FourierInput(found[0], style_dim),
            chain(plans(found, num_critical), style_dim, kernel_size, radial_filters, conv_clamp, magnitude_decay),
            num_classes,
        )
        self.mean_style_decay = mean_style_decay
        if mean_style_decay is not None:
            self.register_buffer("mean_style", torch.zeros(style_dim))

    @torch.no_grad()
    def observe(self, latents: Tensor, labels: Tensor | None = None) -> None:
        """Moves the running mean of w by a batch of latents [batch, latent_dim]."""
        if self.mean_style_decay is not None:
            mean = self.mapping(latents, *conditions(labels)).mean(dim=0)
            self.mean_style.copy_(mean.lerp(self.mean_style, self.mean_style_decay))
