"""Regularizer ``bcr``: balanced consistency (arXiv 2002.04724): D should not notice a harmless change."""

import torch
from torch import Tensor

from stylenat.interfaces import StepContext


class BalancedConsistency:
    """``weight * E[(D(T(x)) - D(x))²]`` on fakes and on reals, with gradients to both sides.

    T acts in the networks' normalised space with zero fill: flip, translation, brightness, saturation, contrast,
    cutout, in that order (StyleSwin's transforms).

    Args:
        real_weight, fake_weight: of the two terms.
        flip: probability; translation: largest shift as a share of the side.
        brightness: largest shift either way; saturation, contrast: largest relative change.
        cutout: side of the square set to 0, as a share of the image's.
    """

    name = "bcr"
    network = "discriminator"
    own_step = False
    interval = 1

    def __init__(
        self,
        real_weight: float = 10.0,
        fake_weight: float = 10.0,
        flip: float = 0.5,
        translation: float = 0.125,
        brightness: float = 0.5,
        saturation: float = 1.0,
        contrast: float = 0.5,
        cutout: float = 0.5,
    ) -> None:
        self.real_weight, self.fake_weight = real_weight, fake_weight
        self.flip, self.translation, self.cutout = flip, translation, cutout
        self.brightness, self.saturation, self.contrast = brightness, saturation, contrast

    def __call__(self, context: StepContext) -> Tensor:
        # Fakes before reals, each in a call of its own, as in the main step.
        fake = context.discriminate(self.transform(context.fake, context.random))
        real = context.discriminate(self.transform(context.real, context.random))
        return (
            self.fake_weight * (fake - context.fake_logits).square().mean()
            + self.real_weight * (real - context.real_logits).square().mean()
        )

    def transform(self, images: Tensor, random: torch.Generator) -> Tensor:
        """T of images [batch, 3, side, side], drawn image by image."""
        batch, _, side, _ = images.shape
        draws = torch.rand(8, batch, generator=random)
        images = self._moved(images, draws[0], draws[1:3])

        brightness, saturation, contrast = ((2 * d - 1).to(images.device)[:, None, None, None] for d in draws[3:6])
        images = images + self.brightness * brightness
        grey = images.mean(dim=1, keepdim=True)
        images = torch.lerp(grey, images, 1 + self.saturation * saturation)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = torch.lerp(mean, images, 1 + self.contrast * contrast)

        hole = round(self.cutout * side)
        if hole == 0:
            return images
        place = torch.arange(side)
        centre = torch.floor(draws[6:8] * (side + 1 - hole % 2))[..., None]
        inside = (place >= centre - hole // 2) & (place < centre - hole // 2 + hole)  # [2, batch, side]
        keep = ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])
        return images * keep.to(images)

    def _moved(self, images: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
        """Flipped and translated by whole pixels, zero-filled: one gather."""
        batch, channels, side, _ = images.shape
        largest = round(self.translation * side)
        by = torch.floor(shift * (2 * largest + 1)).long() - largest  # [2, batch]
        place = torch.arange(side)
        y = place + by[0][:, None]
        x = place + by[1][:, None]
        x = torch.where((flip < self.flip)[:, None], side - 1 - x, x)
        inside = ((y >= 0) & (y < side))[:, :, None] & ((x >= 0) & (x < side))[:, None, :]
        source = y.clamp(0, side - 1)[:, :, None] * side + x.clamp(0, side - 1)[:, None, :]
        source = source.view(batch, 1, -1).expand(-1, channels, -1).to(images.device)
        moved = images.flatten(2).gather(2, source).view(images.shape)
        return moved * inside[:, None].to(images)
