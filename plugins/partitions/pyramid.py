"""Partition ``pyramid``: many groups whose dilations double (StyleNAT's Church model, as the paper describes it)."""

from registry import AttentionSite, Count, HeadGroup, even_groups


def doubling_dilations(resolution: int, kernel_size: int) -> list[int]:
    """1, 2, 4 ... up to resolution // kernel_size; at least 1."""
    largest = max(resolution // kernel_size, 1)
    return [2**i for i in range(largest.bit_length())]


class Pyramid:
    """Dilations 1, 2, 4 ... up to resolution // kernel_size, one group each.

    If there are more dilations than heads, the smallest and the largest are kept and the others are thinned out evenly.
    The paper's exact table is not public; this rule is this project's.

    Args:
        kernel_size: side of every neighborhood; odd, at least 3.
    """

    def __init__(self, kernel_size: Count = 7) -> None:
        self.kernel_size = kernel_size

    def __call__(self, site: AttentionSite) -> list[HeadGroup]:
        dilations = doubling_dilations(site.resolution, self.kernel_size)
        if len(dilations) > site.num_heads:
            last, slots = len(dilations) - 1, max(site.num_heads - 1, 1)
            dilations = [dilations[round(i * last / slots)] for i in range(site.num_heads)]
        return even_groups(site.num_heads, [(self.kernel_size, dilation) for dilation in dilations])
