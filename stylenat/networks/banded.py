"""Resampling by long filters as products with small banded matrices, for a CPU: several times as fast as convolutions
of single channels. ``resampling.upfirdn`` is the definition. No graph is kept here.

A filter along an axis is one small matrix, the same for every tile of the axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

TILE = 32
"""Samples of a tile at its higher rate, at least. More do more useless products, fewer have more overhead."""
NEGLIGIBLE = 1e-7
"""Of the largest singular value of a filter, which is a sum of products of filters along the axes."""


@dataclass(frozen=True)
class Axis:
    """out[down * 0 ...] of a filter along one axis: ``out[n] = sum_i taps[up * i + low - down * n] * x[i]``.

    Attributes:
        taps: as a correlation has them; up or down: factor, the other is 1; low: zeros before the upsampled samples.
    """

    taps: tuple[float, ...]
    up: int
    down: int
    low: int

    @property
    def adjoint(self) -> "Axis":
        """Its transposed matrix."""
        return Axis(self.taps[::-1], self.down, self.up, len(self.taps) - 1 - self.low)


@lru_cache(maxsize=1024)
def _tile(axis: Axis, dtype: torch.dtype) -> tuple[Tensor, int, int]:
    """The matrix [outputs, inputs] of a tile, the input that its first column takes in the first tile, and the inputs
    from tile to tile. Shared: do not write to it."""
    step = max(TILE // axis.up, axis.down)
    step -= step % axis.down
    outputs = step * axis.up // axis.down
    first = math.ceil(-axis.low / axis.up)
    last = (axis.down * (outputs - 1) + len(axis.taps) - 1 - axis.low) // axis.up
    index = axis.up * torch.arange(first, last + 1) + axis.low - axis.down * torch.arange(outputs)[:, None]
    taps = torch.tensor(axis.taps, dtype=dtype)
    inside = (index >= 0) & (index < len(taps))
    return torch.where(inside, taps[index.clamp(0, len(taps) - 1)], 0.0), first, step


@dataclass(frozen=True)
class Resampling:
    """Images [height, channels, width] filtered along both axes, and summed over pairs of filters.

    Attributes:
        pairs: the filters along y and x; size: (height, width) of the result.
    """

    pairs: tuple[tuple[Axis, Axis], ...]
    size: tuple[int, int]

    def adjoint(self, size: tuple[int, int]) -> "Resampling":
        """Its transposed map, back to images of this size."""
        return Resampling(tuple((y.adjoint, x.adjoint) for y, x in self.pairs), size)

    def __call__(self, images: Tensor) -> Tensor:
        """Contiguous [height, channels, width] to [size[0], channels, size[1]]."""
        before, channels, width = images.shape
        height, after = self.size
        # Products along y are the faster ones: they are made where the images are large.
        shrinks = height < before
        half = images.new_empty(height if shrinks else before, channels, width if shrinks else after)
        out = images.new_empty(height, channels, after)
        for number, (along_y, along_x) in enumerate(self.pairs):
            if shrinks:
                _rows(along_y, images, half, add=False)
                _columns(along_x, half, out, add=number > 0)
            else:
                _columns(along_x, images, half, add=False)
                _rows(along_y, half, out, add=number > 0)
        return out


@lru_cache(maxsize=256)
def separated(taps: tuple[float, ...], side: int) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
    """Filters along y and x that add up to these taps of [side, side]; of side 1, [length] for both axes."""
    if side == 1:
        return ((taps, taps),)
    left, sizes, right = torch.linalg.svd(torch.tensor(taps, dtype=torch.float64).view(side, -1))
    kept = int((sizes > sizes[0] * NEGLIGIBLE).sum())
    roots = sizes[:kept].sqrt()
    along_y, along_x = left[:, :kept].t() * roots[:, None], right[:kept] * roots[:, None]
    return tuple((tuple(y), tuple(x)) for y, x in zip(along_y.tolist(), along_x.tolist(), strict=True))


def resampling(
    taps: Tensor,
    size: tuple[int, int],
    up: int = 1,
    down: int = 1,
    padding: Sequence[int] = (0, 0, 0, 0),
    gain: float = 1.0,
    correlate: bool = False,
) -> Resampling:
    """``resampling.upfirdn`` with these arguments, of images of this (height, width). ``up`` or ``down`` is 1."""
    left, right, top, bottom = padding
    wide = taps.shape[-1]
    flat = tuple(taps.flatten().tolist())
    root = math.sqrt(gain)
    pairs = []
    for pair in separated(flat, 1 if taps.ndim == 1 else len(taps)):
        y, x = (tuple(root * tap for tap in (filter if correlate else filter[::-1])) for filter in pair)
        pairs.append((Axis(y, up, down, top), Axis(x, up, down, left)))
    tall = wide if taps.ndim == 1 else len(taps)
    height = (size[0] * up + top + bottom - tall) // down + 1
    width = (size[1] * up + left + right - wide) // down + 1
    return Resampling(tuple(pairs), (height, width))


def _rows(axis: Axis, x: Tensor, out: Tensor, add: bool) -> None:
    """Along the first dimension, from x to out, which differ in this one."""
    x, out = x.flatten(1), out.flatten(1)
    matrix, first, step = _tile(axis, x.dtype)
    for start in range(0, len(out), len(matrix)):
        part = out[start : start + len(matrix)]
        low, high = max(first, 0), min(first + matrix.shape[1], len(x))
        tile = matrix[: len(part), low - first : max(high, low) - first]
        torch.addmm(part, tile, x[low : max(high, low)], beta=int(add), out=part)
        first += step


def _columns(axis: Axis, x: Tensor, out: Tensor, add: bool) -> None:
    """Along the last dimension."""
    x, out = x.flatten(0, 1), out.flatten(0, 1)
    matrix, first, step = _tile(axis, x.dtype)
    for start in range(0, out.shape[1], len(matrix)):
        part = out[:, start : start + len(matrix)]
        low, high = max(first, 0), min(first + matrix.shape[1], x.shape[1])
        tile = matrix[: part.shape[1], low - first : max(high, low) - first]
        torch.addmm(part, x[:, low : max(high, low)], tile.t(), beta=int(add), out=part)
        first += step
