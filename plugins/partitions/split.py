"""Partition ``split``: half the heads local, half global (StyleNAT's FFHQ models)."""

from registry import AttentionSite, Count, HeadGroup, even_groups


class Split:
    """At 8x8 all heads have dilation 1; from 16x16 up the second half has dilation resolution / 8.

    An odd head goes to the second half.

    Args:
        kernel_size: side of the neighborhood; odd, 3 to 7, since kernel_size x resolution / 8 must fit.
    """

    def __init__(self, kernel_size: Count = 7) -> None:
        self.kernel_size = kernel_size

    def __call__(self, site: AttentionSite) -> list[HeadGroup]:
        if site.resolution < 16:
            return [HeadGroup(site.num_heads, self.kernel_size)]
        return even_groups(site.num_heads, [(self.kernel_size, 1), (self.kernel_size, site.resolution // 8)])
