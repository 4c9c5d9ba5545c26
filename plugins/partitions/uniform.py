"""Partition ``uniform``: no split at all."""

from registry import AttentionSite, Count, HeadGroup


class Uniform:
    """All heads see the same neighborhood at every resolution.

    Args:
        kernel_size: side of the neighborhood; odd, at least 3.
        dilation: distance between neighbouring keys, the same at every resolution.
    """

    def __init__(self, kernel_size: Count = 7, dilation: Count = 1) -> None:
        self.kernel_size, self.dilation = kernel_size, dilation

    def __call__(self, site: AttentionSite) -> list[HeadGroup]:
        return [HeadGroup(site.num_heads, self.kernel_size, self.dilation)]
