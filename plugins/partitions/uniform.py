"""Partition ``uniform``: one group."""

from registry import AttentionSite, Count, HeadGroup


class Uniform:
    """All heads have the same neighborhood at every resolution.

    Args:
        kernel_size: side of the neighborhood; odd, at least 3.
        dilation: distance between neighbouring keys, the same at every resolution.
        capped: use the largest dilation that fits where ``dilation`` does not, instead of an error.
    """

    def __init__(self, kernel_size: Count = 7, dilation: Count = 1, capped: bool = False) -> None:
        self.kernel_size, self.dilation, self.capped = kernel_size, dilation, capped

    def __call__(self, site: AttentionSite) -> list[HeadGroup]:
        largest = max(site.resolution // self.kernel_size, 1)
        dilation = min(self.dilation, largest) if self.capped else self.dilation
        return [HeadGroup(site.num_heads, self.kernel_size, dilation)]
