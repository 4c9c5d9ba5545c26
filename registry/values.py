"""What plugin authors use in signatures: bounds on numbers, and the values that pass to and from partitions."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

from registry.wording import UserError


@dataclass(frozen=True)
class Bounds:
    """``Annotated[int, Bounds(1)]``: finite, and from ``low`` to ``high``; ``above``: but not ``low`` itself."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def hold(self, value: Any) -> bool:
        """Whether the value is within; True for whatever is not a number."""
        if not isinstance(value, int | float):
            return True
        return (
            -math.inf < value < math.inf and self.low <= value <= self.high and not (self.above and value == self.low)
        )

    def __repr__(self) -> str:
        if math.isinf(self.low):
            return "finite"
        if not math.isinf(self.high):
            return f"{'above ' if self.above else ''}{self.low:g} to {self.high:g}"
        return f"above {self.low:g}" if self.above else f"at least {self.low:g}"


Count = Annotated[int, Bounds(1)]
CountOrZero = Annotated[int, Bounds(0)]
Finite = Annotated[float, Bounds()]
Positive = Annotated[float, Bounds(0, above=True)]
NotNegative = Annotated[float, Bounds(0)]
Share = Annotated[float, Bounds(0, 1)]


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

    Raises UserError for no neighborhood, or more than heads: a group without a head is not allowed.
    """
    if not 1 <= len(neighborhoods) <= num_heads:
        raise UserError(
            f"a layer of {num_heads} heads cannot be split into {len(neighborhoods)} groups; use from 1 to {num_heads} "
            f"groups, or more heads"
        )
    share, rest = divmod(num_heads, len(neighborhoods))
    first_with_more = len(neighborhoods) - rest
    return [
        HeadGroup(share + (i >= first_with_more), kernel_size, dilation)
        for i, (kernel_size, dilation) in enumerate(neighborhoods)
    ]
