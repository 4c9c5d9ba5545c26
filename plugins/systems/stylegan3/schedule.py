"""How cutoffs, sampling rates, sizes and widths grow from the first layer to the image (arXiv 2106.12423, section 3.2
and appendix C.1). Plain numbers; no tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from registry import UserError

STOPBAND = 2**2.1
"""Of the input."""
FILTER_SIZE = 6
"""Taps of a filter for each sample of its lower rate."""


@dataclass(frozen=True)
class Signal:
    """The feature map between two layers. The image's side has length 1.

    Attributes:
        cutoff: frequency up to which it is kept; half_width: of the transition band around it.
        rate: samples along the image's side; size: all samples along a side, with the margin.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int
    channels: int


@dataclass(frozen=True)
class Plan:
    """A layer from one signal to another.

    Attributes:
        index: in the published layer's name; critical: critically sampled, with steep filters that alias a little.
        to_rgb: linear and unfiltered, the last.
    """

    index: int
    source: Signal
    target: Signal
    critical: bool = False
    to_rgb: bool = False

    @property
    def name(self) -> str:
        """Of the published layer."""
        return f"L{self.index}_{self.target.size}_{self.target.channels}"


def signals(
    resolution: int,
    layers: int = 14,
    critical: int = 2,
    channel_base: int = 32768,
    channel_max: int = 512,
    margin: int = 10,
    start: Signal | None = None,
) -> list[Signal]:
    """The input's signal and those after each of ``layers``; that of the last is the image's, but for its channels.

    Args:
        critical: layers at the end that reach the image's cutoff.
        margin: samples beyond the image on each side.
        start: of layers that continue others (StyleGAN-XL): the signal that these end with; None for StyleGAN3's input.

    Raises:
        UserError: no layer is left that is not critical.
    """
    if layers <= critical:
        raise UserError(
            f"{critical} of {layers} layers are critically sampled, and none is left to grow in; bind at least "
            f"{critical + 1} layers without RGB"
        )
    first_cutoff, first_stopband = (2.0, STOPBAND) if start is None else (start.cutoff, start.cutoff + start.half_width)
    last_cutoff = resolution / 2
    last_stopband = last_cutoff * 2**0.3
    found = []
    for i in range(layers + 1):
        share = min(i / (layers - critical), 1)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** share
        stopband = first_stopband * (last_stopband / first_stopband) ** share
        rate = 2 ** math.ceil(math.log2(min(stopband * 2, resolution)))
        channels = round(min(channel_base / 2 / cutoff, channel_max))
        if start is not None and i == 0:
            rate, channels = start.rate, start.channels
        size = resolution if i >= layers - 1 else rate + 2 * margin
        found.append(Signal(cutoff, max(stopband, rate / 2) - cutoff, rate, size, channels))
    return found


def plans(signals: Sequence[Signal], critical: int = 2, first: int = 0, image_channels: int = 3) -> list[Plan]:
    """Layers from the first signal through all of them to RGB, ``critical`` of them and ToRGB critically sampled.

    The first layer keeps its signal. ``first`` is its index in published names.
    """
    last = len(signals) - 1
    found = []
    for i, target in enumerate(signals):
        if i == last:
            target = Signal(target.cutoff, target.half_width, target.rate, target.size, image_channels)
        found.append(Plan(first + i, signals[max(i - 1, 0)], target, critical=i >= last - critical, to_rgb=i == last))
    return found
