"""The published channel widths of both networks, and what may be asked for instead."""

from typing import Annotated

from registry import Bounds, UserError

Width = Annotated[int, Bounds(1, 2**16)]
"""Of a layer, or of a stack of layers: more is a mistake that would cost hours or all memory to find."""
NARROWEST = 8
"""Channels below which a list of widths is not halved: two for each of the four heads that a block has by default."""


def resolutions(resolution: int, parameter: str) -> list[int]:
    """[4, 8, ..., resolution]. Raises UserError naming ``parameter`` unless it is a power of two from 8 to 65536."""
    if not 8 <= resolution <= 2**16 or resolution & (resolution - 1):
        raise UserError(f"{parameter} must be a power of two from 8 to {2**16}; got {resolution}")
    return [2**i for i in range(2, resolution.bit_length())]


def widths(sides: list[int], channel_multiplier: int, channels: list[int] | None, parameter: str) -> dict[int, int]:
    """Resolution to channels, for sides [4, 8, ...].

    ``channels`` replaces the published widths, from 4x4 up. So that one list serves every resolution, a longer list is
    cut, and a shorter one is continued: each further resolution has half the width of the one before, as the published
    widths do, and not less than ``NARROWEST``.

    Raises UserError naming ``parameter`` for an empty list.
    """
    if channels is None:
        return {side: 512 if side <= 32 else 256 * 64 // side * channel_multiplier for side in sides}
    if not channels:
        raise UserError(f"{parameter} needs at least the width at 4x4; got an empty list")
    continued = list(channels)
    while len(continued) < len(sides):
        continued.append(min(continued[-1], max(continued[-1] // 2, NARROWEST)))
    return dict(zip(sides, continued, strict=False))
