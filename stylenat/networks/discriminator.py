"""StyleSwin's wavelet discriminator (arXiv 2112.10762, section 3.4): Haar bands of an image pyramid."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import Count, CountOrZero, UserError
from stylenat import ranks
from stylenat.networks.layers import GAIN, SLOPE, EqualLinear, EqualWeight, given, leaky_relu
from stylenat.networks.resampling import Blur
from stylenat.networks.spectral_norm import SpectralNorm, SpectralNorms
from stylenat.networks.widths import Width, resolutions, widths


def haar_filters() -> Tensor:
    """The four 2x2 Haar filters [band, y, x] in the order low-low, high y, high x, high both; orthonormal."""
    low, high = torch.tensor([1.0, 1.0]) / 2**0.5, torch.tensor([1.0, -1.0]) / 2**0.5
    return torch.stack([torch.outer(low, low), torch.outer(high, low), torch.outer(low, high), torch.outer(high, high)])


def _weight(weight: Tensor, spectral_norm: bool) -> nn.Module:
    return SpectralNorm(weight) if spectral_norm else EqualWeight(weight)


def _uniform(*shape: int) -> Tensor:
    """PyTorch's default initialisation of a convolution; spectral norm makes its scale irrelevant."""
    return nn.init.kaiming_uniform_(torch.empty(shape), a=5**0.5)


def _activated(x: Tensor, weight: Tensor, bias: Tensor, **options: int) -> Tensor:
    """Convolution by weight and bias that have the gain of ``leaky_relu``, and its rest in place: not three maps."""
    return F.leaky_relu(F.conv2d(x, weight, bias, **options), SLOPE, inplace=True)


class Convolution(nn.Module):
    """3x3 convolution, bias, leaky ReLU; with ``downsample`` a blur before it and stride 2.

    This and the other layers here are given the weight and the bias that the network has made of theirs: ``weights``.
    """

    gain = GAIN

    def __init__(self, in_channels: int, out_channels: int, downsample: bool, spectral_norm: bool) -> None:
        super().__init__()
        self.weight = _weight(_uniform(out_channels, in_channels, 3, 3), spectral_norm)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.blur = Blur(padding=2) if downsample else None

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if self.blur is not None:
            return _activated(self.blur(x), weight, bias, stride=2)
        return _activated(x, weight, bias, padding=1)


class Block(nn.Sequential):
    """Two convolutions; the second halves the side."""

    def forward(self, x: Tensor, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        return self[1](self[0](x, *first), *second)


class FromWavelet(nn.Module):
    """The image's Haar bands (12 channels at half the side) through a 1x1 convolution.

    Both are linear, so that they run as one 2x2 convolution of stride 2 on the image: ``on_pixels``.
    """

    gain = GAIN

    def __init__(self, channels: int, spectral_norm: bool) -> None:
        super().__init__()
        self.weight = _weight(_uniform(channels, 12, 1, 1), spectral_norm)
        self.bias = nn.Parameter(torch.zeros(channels))
        # From the 12 channels [band, colour] to the taps [colour, y, x] of each.
        taps = torch.einsum("byx,cd->bcdyx", haar_filters(), torch.eye(3)).reshape(12, 12)
        self.register_buffer("taps", taps, persistent=False)

    def on_pixels(self, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """From weights on bands [channels, 12, 1, 1] to those on pixels [channels, 3, 2, 2]."""
        joined = torch.cat(list(weights)).view(-1, 12) @ self.taps
        return joined.view(-1, 3, 2, 2).split([len(weight) for weight in weights])

    def forward(self, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[batch, 3, side, side] to [batch, channels, side / 2, side / 2]; weight: ``on_pixels``."""
        return _activated(images, weight, bias, stride=2)


class Linear(nn.Module):
    """Linear layer under spectral norm or an equalised learning rate."""

    gain = 1.0

    def __init__(self, in_features: int, out_features: int, spectral_norm: bool) -> None:
        super().__init__()
        self.weight = _weight(_uniform(out_features, in_features), spectral_norm)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)


class _WithGain(torch.autograd.Function):
    """Each tensor times ``GAIN``: one operation for all of them, forward and backward."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        outs = torch._foreach_mul(tensors, GAIN)
        # A frozen layer's gradient is not computed.
        ctx.mark_non_differentiable(*(out for i, out in enumerate(outs) if not ctx.needs_input_grad[i]))
        ctx.set_materialize_grads(False)
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = iter(torch._foreach_mul([grad for grad in grads if grad is not None], GAIN))
        return tuple(None if grad is None else next(found) for grad in grads)


def minibatch_stddev(x: Tensor, group_size: int) -> Tensor:
    """Appends one channel: the features' mean standard deviation over groups (Progressive GAN, section 3).

    Of a batch over all processes, image i belongs to group i modulo (batch / group). A process has every
    ``world_size``-th image: whole groups, if its images divide into groups at all; else the others are asked.
    """
    batch, channels, height, width = x.shape
    group = min(batch * ranks.world_size(), group_size)
    torn = batch % group != 0
    features = ranks.gathered_with_gradient(x).transpose(0, 1).flatten(0, 1) if torn else x
    features = features.to(torch.promote_types(x.dtype, torch.float32))
    groups = features.shape[0] // group
    stddev = torch.var(features.view(group, groups, channels, height, width), dim=0, correction=0)
    stddev = (stddev + 1e-8).sqrt().mean(dim=(1, 2, 3)).repeat(group)
    if torn:
        stddev = stddev[ranks.rank() :: ranks.world_size()]
    return torch.cat([x, stddev.to(x.dtype).view(-1, 1, 1, 1).expand(-1, 1, height, width)], dim=1)


class WaveletDiscriminator(nn.Module):
    """Discriminator ``wavelet``: one convolution block an octave, fed the Haar bands of each pyramid level.

    Args:
        resolution: side of the image, a power of two from 8.
        channel_multiplier: m in the published widths 4-32: 512, 64: 256m, 128: 128m, 256: 64m, 512: 32m, 1024: 16m.
        channels: widths at 4, 8, ..., resolution / 2 instead of the published ones. A longer list is cut to the
            resolution; a shorter one goes on by halving, down to 8.
        spectral_norm: on every convolution and linear; an equalised learning rate when False.
        stddev_group: images a group of the minibatch standard deviation; min(batch, this) must divide the batch.
        num_classes: of a class-conditional discriminator, whose logit has the product of its last features with an
            embedding of the label added (projection, arXiv 1802.05637); 0 for an unconditional one.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channel_multiplier: Width = 2,
        channels: list[Width] | None = None,
        spectral_norm: bool = True,
        stddev_group: Count = 4,
        num_classes: CountOrZero = 0,
    ) -> None:
        super().__init__()
        # The Haar transform halves the side: features live at 4, 8, ..., resolution / 2. The published network
        # gives the largest of them the width of the image's own resolution.
        sides = resolutions(resolution, "discriminator.wavelet.resolution")
        if channels is None:
            published = widths(sides, channel_multiplier, None, "")
            channels = [published[side] for side in sides[:-2]] + [published[resolution]]
        width = widths(sides[:-1], channel_multiplier, channels, "discriminator.wavelet.channels")
        self.resolution = resolution
        self.stddev_group = stddev_group
        from_wavelet, blocks = [FromWavelet(width[resolution // 2], spectral_norm)], []
        for side in reversed(sides[1:-1]):
            blocks.append(
                Block(
                    Convolution(width[side], width[side], False, spectral_norm),
                    Convolution(width[side], width[side // 2], True, spectral_norm),
                )
            )
            from_wavelet.append(FromWavelet(width[side // 2], spectral_norm))
        self.from_wavelet = nn.ModuleList(from_wavelet)
        self.blocks = nn.ModuleList(blocks)
        self.halve = Blur(padding=1, stride=2)
        self.final_convolution = Convolution(width[4] + 1, width[4], False, spectral_norm)
        self.final_linear = Linear(width[4] * 16, width[4], spectral_norm)
        # The reference's spectral-norm linear has a bias of its own beside the activation's. Kept for its
        # checkpoints and its parameter count.
        self.activation_bias = nn.Parameter(torch.zeros(width[4])) if spectral_norm else None
        self.logit = Linear(width[4], 1, spectral_norm)
        layers = [m for m in self.modules() if isinstance(m, Convolution | FromWavelet | Linear)]
        self.spectral = SpectralNorms([m.weight for m in layers], [m.gain for m in layers]) if spectral_norm else None
        # Not registered a second time.
        self._weighted = tuple(layers)
        self._activated = tuple(layer for layer in layers if layer.gain == GAIN)
        self.num_classes = num_classes
        self.embed = EqualLinear(num_classes, width[4]) if num_classes else None

    def check_batch(self, batch: int) -> None:
        """Raises UserError when the minibatch standard deviation's groups cannot be formed."""
        group = min(batch, self.stddev_group)
        if batch % group:
            raise UserError(
                f"a batch of {batch} does not divide into minibatch-stddev groups of {group}; use a multiple of "
                f"{self.stddev_group}, a smaller batch, or another discriminator.wavelet.stddev_group"
            )

    def freeze(self, layers: int) -> None:
        """Excludes the first layers, counted from the image, from training (FreezeD, arXiv 2002.10964).

        A layer is a scale's from-wavelet convolution and the block after it. Raises UserError when there are not
        so many.
        """
        if not 0 <= layers <= len(self.blocks):
            raise UserError(
                f"the discriminator has {len(self.blocks)} layers to freeze at {self.resolution}x{self.resolution}; "
                f"train.frozen_discriminator_layers is {layers}"
            )
        for module in (*self.from_wavelet[:layers], *self.blocks[:layers]):
            module.requires_grad_(False)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, 3, resolution, resolution] and labels [batch, num_classes] to logits [batch, 1]."""
        weights = self.weights()
        x = self._features(images, weights)
        logit = self.logit(x, *weights[self.logit])
        if self.embed is None:
            return logit
        embedded = self.embed(given(labels, self.num_classes))
        return logit + (embedded * x).sum(dim=1, keepdim=True) / math.sqrt(x.shape[1])

    def features(self, images: Tensor) -> Tensor:
        """[batch, 3, resolution, resolution] to the features [batch, channels] that the logit is linear in."""
        return self._features(images, self.weights())

    def weights(self) -> dict[nn.Module, tuple[Tensor, Tensor]]:
        """Of each layer the weight, normalised, and the bias, both with the layer's gain.

        In training each call is a power iteration.
        """
        normalised = self.spectral() if self.spectral is not None else [m.weight(m.gain) for m in self._weighted]
        weights = dict(zip(self._weighted, normalised, strict=True))
        of_bands = [weights[layer] for layer in self.from_wavelet]
        weights |= dict(zip(self.from_wavelet, self.from_wavelet[0].on_pixels(of_bands), strict=True))
        biases = {layer: layer.bias for layer in self._weighted}
        with_gain = _WithGain.apply(*(layer.bias for layer in self._activated))
        biases |= dict(zip(self._activated, with_gain, strict=True))
        return {layer: (weights[layer], biases[layer]) for layer in self._weighted}

    def _features(self, images: Tensor, weights: dict[nn.Module, tuple[Tensor, Tensor]]) -> Tensor:
        self.check_batch(images.shape[0] * ranks.world_size())
        x = self.from_wavelet[0](images, *weights[self.from_wavelet[0]])
        for block, from_wavelet in zip(self.blocks, self.from_wavelet[1:], strict=True):
            # The reference inverts the Haar transform, blurs and transforms again; the first two cancel.
            images = self.halve(images)
            x = block(x, *(weights[layer] for layer in block)) + from_wavelet(images, *weights[from_wavelet])
        x = minibatch_stddev(x, self.stddev_group)
        x = self.final_convolution(x, *weights[self.final_convolution])
        x = self.final_linear(x.flatten(1), *weights[self.final_linear])
        if self.activation_bias is not None:
            x = x + self.activation_bias
        return leaky_relu(x)
