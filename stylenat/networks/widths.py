"""The published channel widths of both networks, and what may be asked for instead."""

from typing import Annotated

from registry import Bounds, UserError

Width = Annotated[int, Bounds(1, 2**16)]
"""Of a layer, or of a stack of layers: more is a mistake that would cost hours or all memory to find."""


def resolutions(resolution: int, parameter: str) -> list[int]:
    """[4, 8, ..., resolution]. Raises UserError naming ``parameter`` unless it is a power of two from 8 to 65536."""
    if not 8 <= resolution <= 2**16 or resolution & (resolution - 1):
        raise UserError(f"{parameter} must be a power of two from 8 to {2**16}; got {resolution}")
    return [2**i for i in range(2, resolution.bit_length())]


def widths(sides: list[int], channel_multiplier: int, channels: list[int] | None, parameter: str) -> dict[int, int]:
    """Resolution to channels. ``channels`` replaces the published widths, from 4x4 up.

    Raises UserError naming ``parameter`` when the list's length is not that of the resolutions.
    """
    if channels is None:
        return {side: 512 if side <= 32 else 256 * 64 // side * channel_multiplier for side in sides}
    if len(channels) != len(sides):
        raise UserError(f"{parameter} needs one width for each of {sides}; got {len(channels)}: {channels}")
    return dict(zip(sides, channels, strict=True))
