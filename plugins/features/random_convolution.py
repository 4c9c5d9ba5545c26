"""Features ``random_convolution``: a fixed random network, so that something can be measured with no download."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from registry import Count


class RandomConvolution:
    """Means and standard deviations of random convolutions at several scales.

    The weights come from a seed and are never trained: distances in this space rank images of one data set, and say
    nothing that another paper's FID says.

    Args:
        channels: random filters a scale; seed: of the weights.
    """

    name = "random_convolution"
    scales = 3

    def __init__(self, channels: Count = 32, seed: int = 0) -> None:
        self.dim, self.channels, self.seed = 2 * channels * self.scales, channels, seed
        random = torch.Generator().manual_seed(seed)
        self._weights = [
            torch.randn(channels, width, 3, 3, generator=random) / math.sqrt(9 * width)
            for width in (3, *[channels] * (self.scales - 1))
        ]

    def protocol(self) -> dict[str, Any]:
        """All that the vectors depend on."""
        return {"name": self.name, "version": 1, "channels": self.channels, "seed": self.seed, "resize": "none"}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [batch, 3, height, width], at least 8 x 8, to float32 [batch, dim]."""
        x = images.float() / 127.5 - 1
        found = []
        self._weights = [weight.to(x.device) for weight in self._weights]
        for weight in self._weights:
            x = F.leaky_relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight), 0.2)
            # Means by quadrant-free pooling lose where things are; spread keeps how much texture there is.
            found += [x.mean(dim=(2, 3)), x.std(dim=(2, 3))]
            x = F.avg_pool2d(x, 2)
        return torch.cat(found, dim=1)
