"""Backend ``flex``: PyTorch's FlexAttention, compiled for CUDA, with the bias as a score modification."""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

SMALLEST_HEAD = 16
"""FlexAttention's compiled kernels take no narrower heads."""


class Flex:
    """Backend ``flex``: each residue class of the dilation is an image of its own in the batch.

    Differentiable once, bias included; a second derivative (path-length regularisation) needs ``tiled``.

    Args:
        eager: runs uncompiled on any device, in memory quadratic in a class, to check exactness.
    """

    name = "flex"

    def __init__(self, eager: bool = False) -> None:
        self.eager = eager

    def unsupported(self, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> str | None:
        if self.eager:
            return None
        if q.device.type != "cuda":
            return f"it is compiled for CUDA, and the tensors are on {q.device.type}"
        if q.shape[-1] < SMALLEST_HEAD:
            return f"its kernels need a head_dim of at least {SMALLEST_HEAD}, not {q.shape[-1]}"
        if q.dtype == torch.float64:
            return "its kernels take no float64"
        return None

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        kernel_size: int,
        dilation: int,
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        from torch.nn.attention.flex_attention import flex_attention  # 150 MB: all of PyTorch's compiler.

        batch, height, width = q.shape[:3]
        mask = block_mask(batch, height, width, kernel_size, dilation, q.device)
        score = None if bias is None else _biased(bias, -(-width // dilation), kernel_size)
        attend = flex_attention if self.eager else _compiled()
        out = attend(*(_to_classes(t, dilation) for t in (q, k, v)), score_mod=score, block_mask=mask, scale=scale)
        return _from_classes(out, batch, height, width, dilation)


@cache
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _to_classes(x: Tensor, dilation: int) -> Tensor:
    """[batch, height, width, heads, dim] to [batch * residues, heads, class height * class width, dim], padded."""
    d, (height, width) = dilation, x.shape[1:3]
    x = F.pad(x, (0, 0, 0, 0, 0, -width % d, 0, -height % d))
    x = x.unflatten(2, (-1, d)).unflatten(1, (-1, d))  # [batch, class y, d, class x, d, heads, dim]
    return x.permute(0, 2, 4, 5, 1, 3, 6).flatten(4, 5).flatten(0, 2)


def _from_classes(x: Tensor, batch: int, height: int, width: int, dilation: int) -> Tensor:
    """The inverse of ``_to_classes``, padding cut off."""
    d = dilation
    x = x.unflatten(2, (-(-height // d), -(-width // d))).unflatten(0, (batch, d, d))
    x = x.permute(0, 4, 1, 5, 2, 3, 6)  # [batch, class y, d, class x, d, heads, dim]
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def _biased(bias: Tensor, class_width: int, kernel_size: int) -> Callable[..., Tensor]:
    """A score modification that adds the bias of the key's offset from the query."""
    largest = 2 * kernel_size - 2

    def add(score: Tensor, b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        # Clamped for the masked keys, whose scores are computed all the same.
        y = (key // class_width - query // class_width + kernel_size - 1).clamp(0, largest)
        x = (key % class_width - query % class_width + kernel_size - 1).clamp(0, largest)
        return score + bias[head, y, x]

    return add


@lru_cache(maxsize=64)
def block_mask(
    batch: int, height: int, width: int, kernel_size: int, dilation: int, device: torch.device
) -> "BlockMask":
    """Which keys a query sees (``stylenat.attention.window``), as FlexAttention wants it."""
    from torch.nn.attention.flex_attention import create_block_mask

    d = dilation
    class_height, class_width = -(-height // d), -(-width // d)
    ragged = bool(height % d or width % d)

    def start(place: Tensor, size: Tensor | int) -> Tensor:
        return (place - kernel_size // 2).clamp(min=0).minimum(torch.as_tensor(size - kernel_size, device=place.device))

    def seen(b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        # Where the side does not divide by the dilation, the later residues' classes are one shorter.
        rows = (height - b // d % d + d - 1) // d if ragged else class_height
        columns = (width - b % d + d - 1) // d if ragged else class_width
        first_y, first_x = start(query // class_width, rows), start(query % class_width, columns)
        y, x = key // class_width - first_y, key % class_width - first_x
        return (y >= 0) & (y < kernel_size) & (x >= 0) & (x < kernel_size)

    tokens = class_height * class_width
    return create_block_mask(seen, batch * d * d if ragged else None, None, tokens, tokens, device=device)
