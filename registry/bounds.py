"""What a number in a gin file may be, said in a parameter's annotation and checked before anything starts."""

import math
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Bounds:
    """``Annotated[int, Bounds(1)]``: finite, and from ``low`` to ``high``; ``above``: but not ``low`` itself."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def hold(self, value: Any) -> bool:
        """Whether the value stands; what is no number is not judged."""
        if not isinstance(value, int | float):
            return True
        return math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)

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
