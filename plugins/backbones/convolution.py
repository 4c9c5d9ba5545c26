"""Backbone ``convolution``: a small random network, so that projected discriminators can be tried with no download."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import Count, UserError


class Convolution(nn.Module):
    """Backbone ``convolution``: strided 3x3 convolutions and leaky ReLUs with random weights, on images resized to
    ``side``.

    Its features know edges and colours at several scales, and nothing of what is in an image: runs with it show that
    the parts work, and say nothing of results with trained backbones.

    Args:
        side: to which images are resized, bilinearly; a multiple of 2 to the power of the number of maps.
        channels: of the maps, from fine to coarse; the first has half of ``side``.
    """

    note = (
        "backbone.convolution has random weights: it tests the parts, and results with it say nothing of trained ones"
    )

    def __init__(self, side: Count = 64, channels: Sequence[Count] = (16, 32, 64, 64)) -> None:
        super().__init__()
        if not channels or side % 2 ** len(channels):
            raise UserError(
                f"backbone.convolution.side = {side} is not a multiple of {2 ** len(channels)}, which {len(channels)} "
                "halvings need; bind another side or channels"
            )
        self.side, self.channels = side, list(channels)
        widths = [3, *channels]
        # He initialisation (arXiv 1502.01852) keeps the maps' magnitude.
        self.weights = nn.ParameterList(
            torch.randn(after, before, 3, 3) * math.sqrt(2 / (9 * before * (1 + 0.2**2)))
            for before, after in zip(widths, channels, strict=False)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Colours [batch, 3, height, width] from 0 to 1 to maps [batch, channels, side / 2, side / 2] and so on."""
        x = F.interpolate(2 * images - 1, size=(self.side, self.side), mode="bilinear", align_corners=False)
        maps = []
        for weight in self.weights:
            x = F.leaky_relu(F.conv2d(x, weight, stride=2, padding=1), 0.2)
            maps.append(x)
        return maps
