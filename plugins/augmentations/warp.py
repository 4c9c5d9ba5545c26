"""One affine warp per image, twice differentiable to the image, low-passed where it minifies."""

import torch
from torch import Tensor
from torch.nn import functional as F

BILINEAR, REFLECTION = 0, 2


class _Warp(torch.autograd.Function):
    """Bilinear sampling. It is linear in the image, so its derivative is its adjoint and the adjoint's is itself.

    PyTorch differentiates ``grid_sample`` once only; R1 needs a second time.
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
        # The image's values do not matter to its own gradient, only its shape.
        images = grad.new_empty(1).expand(shape)
        wanted = (True, False)
        return torch.ops.aten.grid_sampler_2d_backward(grad, images, grid, BILINEAR, REFLECTION, False, wanted)[0]

    @staticmethod
    def backward(ctx, grad: Tensor):
        (grid,) = ctx.saved_tensors
        return _Warp.apply(grad, grid), None, None


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Resamples [batch, channels, side, side], reflecting at the borders.

    Where the matrix minifies by a factor f > 1, the result is mixed from the image and its half-size copy, in the
    proportion log2(f) (a trilinear mip map, exact up to f = 2 and as blurred as there beyond).

    Args:
        matrices: [batch, 2, 3], from output to input coordinates, both in [-1, 1].
    """
    matrices = matrices.to(images)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    fine = _Warp.apply(images, grid)
    level = torch.linalg.det(matrices[:, :, :2]).abs().log2().div(2).clamp(0, 1)[:, None, None, None]
    if not bool((level > 1e-6).any()):
        return fine
    return torch.lerp(fine, _Warp.apply(F.avg_pool2d(images, 2), grid), level)
