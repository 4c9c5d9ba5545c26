"""Average ``power``: power-function averages of several widths at once (EDM2, arXiv 2312.02696, section 3.1)."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from torch import nn

from registry import Bounds, UserError
from stylenat.interfaces import Time
from stylenat.training.average import EMA, averaged_copy, update_average

# The widest profile, gamma = 0, has a relative standard deviation of 1 / sqrt(12) = 0.2887.
Width = Annotated[float, Bounds(0.001, 0.288)]


class Power:
    """Averages whose width is a fixed fraction of the training so far, so that short and long runs use equal settings.

    Args:
        widths: relative standard deviations of the profiles (EDM2's sigma_rel); the first is sampled and measured,
            the others are in the checkpoints as ``ema-0.100`` and the like.
    """

    def __init__(self, widths: Sequence[Width] = (0.05, 0.1)) -> None:
        names = [f"{EMA}-{width:.3f}" for width in widths]
        if not widths or len(set(names)) < len(names):
            raise UserError(f"average.power.widths needs widths that differ by 0.001 or more; got {list(widths)}")
        self.exponents = dict(zip([EMA, *names[1:]], map(exponent, widths), strict=True))

    def start(self, generator: nn.Module) -> dict[str, nn.Module]:
        return {name: averaged_copy(generator) for name in self.exponents}

    def update(self, averages: Mapping[str, nn.Module], generator: nn.Module, time: Time) -> None:
        for name, gamma in self.exponents.items():
            # EDM2, equation 2: beta = (1 - batch / t) ** (gamma + 1); the first iteration copies the weights.
            seen = time.images + time.batch_size
            update_average(averages[name], generator, (1 - time.batch_size / seen) ** (gamma + 1))


def exponent(width: float) -> float:
    """gamma of a profile t ** gamma with this relative standard deviation (EDM2, algorithm 2)."""
    squared = width**-2
    return float(np.roots([1, 7, 16 - squared, 12 - squared]).real.max())
