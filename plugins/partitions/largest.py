"""Partition ``global``: every head looks as far as it can. A baseline: no paper's model."""

from registry import AttentionSite, Count, HeadGroup


class Global:
    """All heads at the largest dilation that fits, resolution // kernel_size: nothing local above the kernel.

    Args:
        kernel_size: side of every neighborhood; odd, at least 3.
    """

    def __init__(self, kernel_size: Count = 7) -> None:
        self.kernel_size = kernel_size

    def __call__(self, site: AttentionSite) -> list[HeadGroup]:
        return [HeadGroup(site.num_heads, self.kernel_size, max(site.resolution // self.kernel_size, 1))]
