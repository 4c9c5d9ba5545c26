"""The leaky ReLU between two low-pass filters (arXiv 2106.12423, section 3.1), which all layers but ToRGB end with."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stylenat.attention.shape import without_data
from stylenat.networks.banded import Resampling, resampling
from stylenat.networks.layers import GAIN, SLOPE
from stylenat.networks.resampling import Padding, sides, upfirdn

CACHED = 2**19
"""Numbers at the high rate that are worked on at once, about what a core's cache holds."""


def filtered_leaky_relu(
    x: Tensor,
    up_taps: Tensor | None,
    down_taps: Tensor | None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    slope: float = SLOPE,
    gain: float = GAIN,
    clamp: float | None = None,
    correlate: bool = False,
) -> Tensor:
    """Leaky ReLU at ``up`` times the rate, between two low-pass filters. Differentiable as often as one likes.

    Args:
        x: [batch, channels, height, width], with its bias.
        up_taps, down_taps: [taps], or [taps, taps]; None for no filter, at the same rate.
        padding: of the upsampled image, for both filters. gain: of the activation; clamp: bound on its magnitude.
        correlate: uses the taps as they are; a convolution flips them.

    Returns [batch, channels, (height * up + padding - filters) // down + 1, the same of the width].
    """
    if up_taps is not None and down_taps is not None and _by_products(x):
        size = (x.shape[2], x.shape[3])
        first = resampling(up_taps, size, up=up, padding=sides(padding), gain=up**2, correlate=correlate)
        last = resampling(down_taps, first.size, down=down, correlate=correlate)
        return _Filtered.apply(x, Between(size, first, last, slope, gain, clamp))
    one = x.new_ones(1, 1)
    x = upfirdn(x, one if up_taps is None else up_taps, up, padding=padding, gain=up**2, correlate=correlate)
    x = F.leaky_relu(x, slope) if slope != 1 else x
    x = x * gain if gain != 1 else x
    x = x if clamp is None else x.clamp(-clamp, clamp)
    return x if down_taps is None else upfirdn(x, down_taps, down=down, correlate=correlate)


def _by_products(x: Tensor) -> bool:
    """On a CPU, plainly. The matrices are made from the taps' values."""
    plain = x.dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling()
    return plain and x.device.type == "cpu" and not without_data(x)


@dataclass(frozen=True)
class Between:
    """An activation between two resamplings, and its derivative, for as many channels at a time as the cache holds.

    Attributes:
        size: (height, width) of the input; first, last: the resamplings.
    """

    size: tuple[int, int]
    first: Resampling
    last: Resampling
    slope: float
    gain: float
    clamp: float | None

    def value(self, x: Tensor) -> Tensor:
        out = x.new_empty(*x.shape[:2], *self.last.size)
        for part in self._parts(x):
            between = F.leaky_relu_(self.first(_inside(x[part])), self.slope)
            if self.clamp is not None:
                between.clamp_(-self.clamp / self.gain, self.clamp / self.gain)
            torch.mul(self.last(between).transpose(0, 1), self.gain, out=out[part])
        return out

    def derivative(self, x: Tensor, tangent: Tensor) -> Tensor:
        """At x, times a tangent of x's shape."""
        return self._linear(x, tangent, self.first, self.last)

    def transposed(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """The derivative's transposed map, from a cotangent of the result's shape to one of x's."""
        return self._linear(x, cotangent, self.last.adjoint(self.first.size), self.first.adjoint(self.size))

    def _linear(self, x: Tensor, given: Tensor, first: Resampling, last: Resampling) -> Tensor:
        out = x.new_empty(*x.shape[:2], *last.size)
        for part in self._parts(x):
            # The activation's input is computed again: at the high rate it is four times as large as x.
            gate = self.first(_inside(x[part]))
            slopes = torch.where(gate > 0, 1.0, self.slope).to(x.dtype)
            if self.clamp is not None:
                slopes.mul_(F.leaky_relu_(gate, self.slope).abs_() <= self.clamp / self.gain)
            between = first(_inside(given[part])).mul_(slopes)
            torch.mul(last(between).transpose(0, 1), self.gain, out=out[part])
        return out

    def _parts(self, x: Tensor) -> Iterator[tuple[int, slice]]:
        height, width = self.first.size
        count = max(1, CACHED // (height * width))
        for image in range(x.shape[0]):
            for start in range(0, x.shape[1], count):
                yield image, slice(start, start + count)


def _inside(channels: Tensor) -> Tensor:
    """[channels, height, width] to contiguous [height, channels, width]."""
    return channels.transpose(0, 1).contiguous()


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, between: Between) -> Tensor:
        ctx.save_for_backward(x)
        ctx.between = between
        return between.value(x)

    @staticmethod
    def backward(ctx, cotangent: Tensor):
        (x,) = ctx.saved_tensors
        return _Linear.apply(x, cotangent, ctx.between, True), None


class _Linear(torch.autograd.Function):
    """The derivative at x or its transposed map: linear in ``given``. It depends on x by steps alone."""

    @staticmethod
    def forward(ctx, x: Tensor, given: Tensor, between: Between, transposed: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.between, ctx.transposed = between, transposed
        return between.transposed(x, given) if transposed else between.derivative(x, given)

    @staticmethod
    def backward(ctx, cotangent: Tensor):
        (x,) = ctx.saved_tensors
        return None, _Linear.apply(x, cotangent, ctx.between, not ctx.transposed), None, None
