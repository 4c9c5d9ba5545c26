"""Partition ``global``: every head has the largest dilation. A baseline, not a paper's model."""

from registry import AttentionSite, Count, HeadGroup


class Global:
    """All heads have the largest dilation that fits, resolution // kernel_size.

    Args:
        kernel_size: side of every neighborhood; odd, at least 3.
    """

    def __init__(self, kernel_size: Count = 7) -> None:
        self.kernel_size = kernel_size

    def __call__(self, site: AttentionSite) -> list[HeadGroup]:
        return [HeadGroup(site.num_heads, self.kernel_size, max(site.resolution // self.kernel_size, 1))]
