"""Which layers a progressively grown generator has (arXiv 2202.00273, section 3.2): those of the stem, less the last
ones, then a head for each stage. Plain numbers; no tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

from plugins.systems.stylegan3.schedule import Plan, Signal, plans, signals
from registry import UserError

CRITICAL = 2
"""Critically sampled layers at the end of every stage, beside ToRGB."""
REPLACED = CRITICAL + 1
"""Layers at the end of a stage that the next one makes anew."""


@dataclass(frozen=True)
class Grown:
    """A generator's layers.

    Attributes:
        first: the signal of the Fourier input; layers: from it to RGB; kept: how many of them are of earlier stages.
        sides: of every stage's image, the stem's first.
    """

    first: Signal
    layers: tuple[Plan, ...]
    kept: int
    sides: tuple[int, ...]


def sides_of(resolution: int, stem: int, growth: Sequence[int] | None, selector: str) -> tuple[int, ...]:
    """The sides of all stages, from the stem's to ``resolution``.

    Args:
        growth: sides of the stages after the stem; None for each twice the one before.

    Raises:
        UserError: they are not powers of two from 8, or do not rise to ``resolution``.
    """
    sides = [stem]
    if growth is None:
        while sides[-1] < resolution:
            sides.append(2 * sides[-1])
    else:
        sides += growth
    powers = all(side >= 8 and not side & (side - 1) for side in sides)
    if not powers or sides != sorted(set(sides)) or sides[-1] != resolution:
        raise UserError(
            f"{selector}: stages of {', '.join(map(str, sides))} do not lead to resolution = {resolution}; "
            "stem_resolution and growth are rising powers of two from 8, and the last is resolution"
        )
    return tuple(sides)


def grown(
    sides: Sequence[int],
    layers: Sequence[int],
    channel_base: int,
    channel_max: int,
    margin: int,
) -> Grown:
    """All layers of a generator.

    Args:
        layers: of each stage without ToRGB: the stem's, then those of the heads.

    Raises:
        UserError: a stage has too few layers.
    """
    widths = {"channel_base": channel_base, "channel_max": channel_max, "margin": margin}
    found = signals(sides[0], layers[0], CRITICAL, **widths)
    first, chain, kept = found[0], plans(found, CRITICAL), 0
    for side, count in zip(sides[1:], layers[1:], strict=True):
        chain = chain[:-REPLACED]
        kept, last = len(chain), chain[-1].target
        # The published names leave out one number between the kept layers and the head.
        chain += plans(signals(side, count, CRITICAL, start=last, **widths), CRITICAL, first=kept + 1)
    return Grown(first, tuple(chain), kept, tuple(sides))
