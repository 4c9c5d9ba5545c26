"""One affine warp an image, twice differentiable to the image and low-passed where it minifies."""

import numpy as np
import torch
from torch import Tensor

from plugins.augmentations.affine import minification
from stylenat.devices import constant, sent_like
from stylenat.networks.resampling import upfirdn

BILINEAR, REFLECTION = 0, 2
LOW_PASSES = ("mip", "sym6")

# Daubechies' least asymmetric wavelet with six vanishing moments, low-pass, of unit energy.
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263748278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
LEAD = 5
"""Taps of SYM6 before the one that is nearest to its centre of mass."""


class _Warp(torch.autograd.Function):
    """Bilinear sampling. It is linear in the image, so its derivative is its adjoint and the adjoint's is itself.

    PyTorch, and with it Kornia, differentiates ``grid_sample`` once only; R1 needs a second time.
    """

    @staticmethod
    def forward(ctx, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return torch.grid_sampler_2d(images, grid, BILINEAR, REFLECTION, False)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (grid,) = ctx.saved_tensors
        return _WarpAdjoint.apply(grad, grid, ctx.shape), None


class _WarpAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        if torch.are_deterministic_algorithms_enabled():
            return _adjoint(grad, grid, shape)
        # The image's values do not matter to its own gradient, only its shape.
        images = grad.new_empty(1).expand(shape)
        wanted = (True, False)
        return torch.ops.aten.grid_sampler_2d_backward(grad, images, grid, BILINEAR, REFLECTION, False, wanted)[0]

    @staticmethod
    def backward(ctx, grad: Tensor):
        (grid,) = ctx.saved_tensors
        return _Warp.apply(grad, grid), None, None


def sampled(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples of [batch, channels, height, width], reflected at the borders and twice differentiable.

    Args:
        grid: [batch, rows, columns, 2], x and y in [-1, 1] between the outer edges of the border pixels.
    """
    return _Warp.apply(images, grid)


def _adjoint(grad: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
    """``grid_sampler_2d_backward`` to the image, summed in a fixed order on every device; slower."""
    batch, channels, height, width = shape
    places, shares = [], []
    for size, coordinate in ((width, grid[..., 0]), (height, grid[..., 1])):
        place = ((coordinate + 1) * size - 1) / 2
        # Reflected about the outer edges of the first and the last pixel.
        turned = (place + 0.5).abs() % (2 * size)
        place = (torch.where(turned > size, 2 * size - turned, turned) - 0.5).clamp(0, size - 1)
        low = place.floor()
        share = place - low
        places.append([low.long(), (low.long() + 1).clamp(max=size - 1)])
        shares.append([1 - share, share])
    image = torch.arange(batch, device=grad.device).view(-1, 1, 1)
    out = grad.new_zeros(batch * height * width, channels)
    values = grad.movedim(1, 3)
    for x, x_share in zip(places[0], shares[0], strict=True):
        for y, y_share in zip(places[1], shares[1], strict=True):
            where = ((image * height + y) * width + x).flatten()
            part = (values * (x_share * y_share)[..., None]).flatten(0, 2)
            out.index_put_((where,), part, accumulate=True)
    return out.view(batch, height, width, channels).movedim(3, 1)


def warp(images: Tensor, maps: np.ndarray, low_pass: str = "mip") -> Tensor:
    """Resamples [batch, channels, side, side], reflecting at the borders.

    Args:
        maps: [batch, 2, 3], from output to input coordinates, both in [-1, 1].
        low_pass: ``mip`` or ``sym6``, see below.
    """
    return _sym6(images, maps) if low_pass == "sym6" else _mip(images, maps)


def _grid(maps: Tensor, side: int) -> Tensor:
    """Where each output pixel lies in the input, [batch, side, side, 2]: ``affine_grid``, which is ten times slower."""
    place = (torch.arange(side, device=maps.device, dtype=maps.dtype) * 2 + (1 - side)) / side
    x, y, offset = maps[:, None].unbind(dim=3)  # each [batch, 1, 2]
    along_x = torch.addcmul(offset, x, place[:, None])
    along_y = y * place[:, None]
    return along_x[:, None] + along_y[:, :, None]


def _half_size(images: Tensor) -> Tensor:
    """Means of 2x2 pixels, several times faster than ``avg_pool2d`` forward and backward on a CPU."""
    images = images[:, :, ::2] + images[:, :, 1::2]
    return (images[..., ::2] + images[..., 1::2]) * 0.25


def _mip(images: Tensor, maps: np.ndarray) -> Tensor:
    """A trilinear mip map of two levels: an image that is minified by a factor f > 1 is mixed from the image and its
    half-size copy, in the proportion log2(f) of the latter: exact up to f = 2 and as blurred as there beyond.

    f is the largest over all directions, as in graphics: nothing aliases, and a stretched image is a little too soft
    along its other axis.
    """
    levels = np.log2(minification(maps)).clip(0, 1)
    maps_there, level = sent_like(images, maps, levels)
    grid = _grid(maps_there, images.shape[-1])
    fine = _Warp.apply(images, grid)
    if levels.max() < 1e-6:  # Blits and enlargements, which must stay exact.
        return fine
    return torch.lerp(fine, _Warp.apply(_half_size(images), grid), level[:, None, None, None])


def _sym6(images: Tensor, maps: np.ndarray) -> Tensor:
    """StyleGAN2-ADA's: upsamples by the wavelet, warps at twice the side, downsamples by the wavelet's mirror image.

    The wavelet is orthonormal, so the identity stays the identity. It is not quite symmetric: the warp is taken about
    its centre of mass, or a flip would move the image by 0.4 pixels.
    """
    side = images.shape[-1]
    taps = constant(SYM6, images.dtype, images.device)
    place = torch.arange(-3, side + 3, device=images.device)
    place = torch.where(place < 0, -1 - place, torch.where(place < side, place, 2 * side - 1 - place))
    extended = images[:, :, :, place][:, :, place]
    large = upfirdn(extended, taps, up=2, padding=(0, -1, 0, -1), gain=2)

    centre = sum(i * tap for i, tap in enumerate(SYM6)) / sum(SYM6)
    offset = np.full(2, (centre - LEAD - 0.5) / side)
    moved = maps.copy()
    moved[:, :, 2] += offset - maps[:, :, :2] @ offset
    # The downsampling's taps reach beyond the border: that much more is resampled.
    wide = 2 * side + 2 * LEAD
    moved[:, :, :2] *= wide / (2 * side)
    (moved_there,) = sent_like(images, moved)
    return upfirdn(_Warp.apply(large, _grid(moved_there, wide)), taps, down=2, gain=0.5, correlate=True)
