"""Resampling filters (upfirdn), and convolutions at another resolution. All resampling of images and features is here.

Each is one grouped convolution, or one for each axis of a separable filter: twice differentiable on every device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Factor = int | tuple[int, int]
"""Of both axes, or (x, y)."""
Padding = int | Sequence[int]
"""Pixels on every side, (x, y), or (left, right, top, bottom). A negative number crops."""

BINOMIAL = (1.0, 3.0, 3.0, 1.0)
"""The taps of StyleGAN2 and its successors."""
SEPARABLE = 8
"""Taps from which a filter is applied along one axis after the other."""


def filter_taps(taps: Sequence[float] | None = BINOMIAL) -> Tensor:
    """Taps that sum to 1: [height, width], or [length] of a separable filter with ``SEPARABLE`` taps or more; None for
    the identity [1, 1]."""
    found = torch.tensor([1.0] if taps is None else taps, dtype=torch.float32)
    found = found / found.sum()
    return torch.outer(found, found) if found.ndim == 1 and len(found) < SEPARABLE else found


def upfirdn(
    x: Tensor,
    taps: Tensor,
    up: Factor = 1,
    down: Factor = 1,
    padding: Padding = 0,
    gain: float = 1.0,
    correlate: bool = False,
) -> Tensor:
    """Inserts up - 1 zeros after each sample, pads, convolves with the taps, keeps every down-th sample.

    Args:
        x: [batch, channels, height, width].
        taps: [height, width], or [length] for both axes in turn, scaled by the root of ``gain`` each.
        padding: of the upsampled image, with zeros.
        correlate: uses the taps as they are; a convolution flips them.

    Returns [batch, channels, (height * up + padding - taps) // down + 1, the same of the width].
    """
    (up_x, up_y), (down_x, down_y), (left, right, top, bottom) = _pair(up), _pair(down), sides(padding)
    taps = taps.to(x.dtype) if gain == 1 else taps.to(x.dtype) * gain ** (taps.ndim / 2)
    if taps.ndim == 1:
        x = _filtered(x, taps[None], (up_x, 1), (down_x, 1), (left, right, 0, 0), correlate)
        return _filtered(x, taps[:, None], (1, up_y), (1, down_y), (0, 0, top, bottom), correlate)
    return _filtered(x, taps, (up_x, up_y), (down_x, down_y), (left, right, top, bottom), correlate)


def _filtered(
    x: Tensor, taps: Tensor, up: tuple[int, int], down: tuple[int, int], padding: Sequence[int], correlate: bool
) -> Tensor:
    channels, (height, width), (left, right, top, bottom) = x.shape[1], taps.shape, padding
    if up == (1, 1):
        kernel = (taps if correlate else taps.flip((0, 1))).expand(channels, 1, height, width)
        x, pad = _padded(x, padding)
        return F.conv2d(x, kernel, stride=down[::-1], padding=pad, groups=channels)
    # A transposed convolution inserts the zeros, without those at the end, and gives everything that the taps reach.
    kernel = (taps.flip((0, 1)) if correlate else taps).expand(channels, 1, height, width)
    crop = width - 1 - left, width - up[0] - right, height - 1 - top, height - up[1] - bottom
    x_crop, y_crop = max(min(crop[:2]), 0), max(min(crop[2:]), 0)
    x = F.conv_transpose2d(x, kernel, stride=up[::-1], padding=(y_crop, x_crop), groups=channels)
    rest = x_crop - crop[0], x_crop - crop[1], y_crop - crop[2], y_crop - crop[3]
    x = F.pad(x, rest) if any(rest) else x
    return x if down == (1, 1) else x[:, :, :: down[1], :: down[0]]


def upsample(x: Tensor, taps: Tensor, up: Factor = 2, padding: Padding = 0) -> Tensor:
    """[batch, channels, height, width] to ``up`` times the side; a constant keeps its value inside."""
    (up_x, up_y), (width, height) = _pair(up), _extent(taps)
    wide = (width + up_x - 1) // 2, (width - up_x) // 2, (height + up_y - 1) // 2, (height - up_y) // 2
    return upfirdn(x, taps, up, padding=_sum(wide, padding), gain=up_x * up_y)


def downsample(x: Tensor, taps: Tensor, down: Factor = 2, padding: Padding = 0) -> Tensor:
    """[batch, channels, height, width] to 1 / ``down`` of the side."""
    (down_x, down_y), (width, height) = _pair(down), _extent(taps)
    wide = (width - down_x + 1) // 2, (width - down_x) // 2, (height - down_y + 1) // 2, (height - down_y) // 2
    return upfirdn(x, taps, down=down, padding=_sum(wide, padding))


def blur(x: Tensor, taps: Tensor, padding: Padding = 0, gain: float = 1.0, correlate: bool = False) -> Tensor:
    """[batch, channels, height, width], filtered at the same size."""
    width, height = _extent(taps)
    wide = width // 2, (width - 1) // 2, height // 2, (height - 1) // 2
    return upfirdn(x, taps, padding=_sum(wide, padding), gain=gain, correlate=correlate)


def convolve(
    x: Tensor,
    weight: Tensor,
    taps: Tensor,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    correlate: bool = True,
) -> Tensor:
    """A convolution of the upsampled, filtered and padded image, or of the filtered image with a stride.

    Args:
        x: [batch, in, height, width]; weight: [out, in / groups, side, side].
        padding: of the upsampled image; what the filters need is added to it.
        correlate: as ``F.conv2d``; False flips the weight, as StyleGAN2's upsampling layers do.
    """
    side, (width, height) = weight.shape[-1], _extent(taps)
    wide = list(sides(padding))
    for factor, before, after in ((up, up - 1, -up), (down, 1 - down, -down)):
        if factor > 1:
            wide = _sum(
                wide, ((width + before) // 2, (width + after) // 2, (height + before) // 2, (height + after) // 2)
            )
    if up == 1:
        if down > 1:
            x = upfirdn(x, taps, down=down if side == 1 else 1, padding=wide)
            stride, wide = 1 if side == 1 else down, [0, 0, 0, 0]
        else:
            stride = 1
        x, pad = _padded(x, wide)
        return F.conv2d(x, weight if correlate else weight.flip((2, 3)), stride=stride, padding=pad, groups=groups)
    if side == 1 and down == 1:
        return upfirdn(F.conv2d(x, weight, groups=groups), taps, up, padding=wide, gain=up**2)
    out, within = weight.shape[0] // groups, weight.shape[1]
    swapped = weight.view(groups, out, within, side, side).transpose(1, 2).reshape(-1, out, side, side)
    x = F.conv_transpose2d(x, swapped.flip((2, 3)) if correlate else swapped, stride=up, groups=groups)
    x = upfirdn(x, taps, padding=_sum(wide, (1 - side, up - side, 1 - side, up - side)), gain=up**2)
    return x if down == 1 else upfirdn(x, taps, down=down)


def blur_kernel() -> Tensor:
    """The [1, 3, 3, 1] binomial filter in two dimensions, summing to 1: [4, 4]. Exact in half precision, too."""
    return filter_taps(BINOMIAL)


class UpsampleImage(nn.Module):
    """[batch, channels, height, width] to twice the side, by zero insertion and the binomial filter."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", blur_kernel(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return upsample(images, self.kernel)


class Blur(nn.Module):
    """The binomial filter on [batch, channels, height, width], zero-padded."""

    def __init__(self, padding: int, stride: int = 1) -> None:
        super().__init__()
        self.padding, self.stride = padding, stride
        self.register_buffer("kernel", blur_kernel(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # The filter is symmetric: it need not be flipped.
        return upfirdn(x, self.kernel, down=self.stride, padding=self.padding, correlate=True)


def _pair(factor: Factor) -> tuple[int, int]:
    return (factor, factor) if isinstance(factor, int) else (factor[0], factor[1])


def sides(padding: Padding) -> tuple[int, int, int, int]:
    """(left, right, top, bottom)."""
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if len(padding) == 2:
        return padding[0], padding[0], padding[1], padding[1]
    return padding[0], padding[1], padding[2], padding[3]


def _sum(some: Padding, others: Padding) -> list[int]:
    return [a + b for a, b in zip(sides(some), sides(others), strict=True)]


def _extent(taps: Tensor) -> tuple[int, int]:
    """(width, height)."""
    return taps.shape[-1], taps.shape[0]


def _padded(x: Tensor, padding: Sequence[int]) -> tuple[Tensor, tuple[int, int]]:
    """The image and the (y, x) padding that is left to the convolution: none if the sides differ or crop."""
    left, right, top, bottom = padding
    if left == right >= 0 and top == bottom >= 0:
        return x, (top, left)
    return F.pad(x, [left, right, top, bottom]), (0, 0)
