"""Partition ``random``: random groups. A baseline, not a paper's model."""

import random
from collections import Counter

from plugins.partitions.pyramid import doubling_dilations
from registry import AttentionSite, Count, HeadGroup


class Random:
    """Each head draws one of the pyramid's dilations (1, 2, 4 ... that fit); heads that drew the same are a group.

    The draw depends only on ``seed``, the resolution, the block and the number of heads, and not on the run's seed: it
    is part of the architecture.

    Args:
        seed: of the draw.
        kernel_size: side of every neighborhood; odd, at least 3.
    """

    def __init__(self, seed: int = 0, kernel_size: Count = 7) -> None:
        self.seed, self.kernel_size = seed, kernel_size

    def __call__(self, site: AttentionSite) -> list[HeadGroup]:
        draw = random.Random(f"{self.seed}/{site.resolution}/{site.block}/{site.num_heads}")
        dilations = doubling_dilations(site.resolution, self.kernel_size)
        drawn = Counter(draw.choice(dilations) for _ in range(site.num_heads))
        return [HeadGroup(heads, self.kernel_size, dilation) for dilation, heads in sorted(drawn.items())]
