"""The published channel widths of both networks, and what may be asked for instead."""

from registry import UserError


def resolutions(resolution: int, parameter: str) -> list[int]:
    """[4, 8, ..., resolution]. Raises UserError naming ``parameter`` unless it is a power of two from 8."""
    if resolution < 8 or resolution & (resolution - 1):
        raise UserError(f"{parameter} must be a power of two of at least 8; got {resolution}")
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
