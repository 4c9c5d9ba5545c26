"""Small frozen values that pass between the core and partitions. No torch in here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionSite:
    """Where in a generator an attention layer sits. New fields may be added, always with a default.

    Attributes:
        resolution: side of the square feature map, in tokens.
        num_heads: heads to be split into groups.
        channels: width of the feature map.
        block: index of the block within its resolution (0 or 1).
    """

    resolution: int
    num_heads: int
    channels: int
    block: int = 0


@dataclass(frozen=True)
class HeadGroup:
    """Consecutive heads that share one neighborhood (StyleNAT, arXiv 2211.05770, section 3.2).

    Attributes:
        num_heads: heads in the group.
        kernel_size: side of the neighborhood in keys; odd and at least 3.
        dilation: distance between neighbouring keys, in tokens.
    """

    num_heads: int
    kernel_size: int
    dilation: int = 1


def even_groups(num_heads: int, neighborhoods: list[tuple[int, int]]) -> list[HeadGroup]:
    """One group for each (kernel size, dilation), the heads split evenly; a remainder goes to the LAST groups.

    Neighborhoods beyond the number of heads would get no head, which no layer accepts: at most ``num_heads``.
    """
    share, rest = divmod(num_heads, len(neighborhoods))
    first_with_more = len(neighborhoods) - rest
    return [
        HeadGroup(share + (i >= first_with_more), kernel_size, dilation)
        for i, (kernel_size, dilation) in enumerate(neighborhoods)
    ]
