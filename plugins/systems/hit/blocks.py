"""The parts of the HiT generator (arXiv 2106.07631, section 3): multi-axis attention, cross-attention, MLPs.

Features are [batch, height, width, channels]; blocked features are [batch, blocks, pixels, channels].
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylenat.attention.shown import strided_axis, weights_of, window_axis
from stylenat.interfaces import Shown
from stylenat.networks.batch_norm import BatchNorm
from stylenat.networks.mlp import mlp

TOKENS = 16
"""Latent tokens that every pixel attends to."""
MLP_RATIO = 4

NormName = Literal["batch", "layer"]
AttentionName = Literal["multi_query", "multi_head"]
Norm = Callable[[int], nn.Module]
"""Makes the norm of so many channels."""


def norm_of(name: NormName, group: int | None) -> Norm:
    """TensorFlow's settings, which the published models were trained with."""
    if name == "layer":
        return partial(nn.LayerNorm, eps=1e-6)
    return partial(BatchNorm, group=group, eps=1e-3, momentum=0.01)


def initialised(*shape: int) -> nn.Parameter:
    """Truncated normal, 0.02, cut at two deviations (the law of TensorFlow's initialiser)."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02, a=-0.04, b=0.04))


def linear(in_features: int, out_features: int) -> nn.Linear:
    layer = nn.Linear(in_features, out_features)
    layer.weight = initialised(out_features, in_features)
    nn.init.zeros_(layer.bias)
    return layer


def blocked(x: Tensor, side: int) -> Tensor:
    """[batch, height, width, channels] to [batch, blocks, side², channels]; blocks and pixels are in rows."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    return x.transpose(2, 3).reshape(batch, -1, side * side, channels)


def unblocked(x: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``blocked``."""
    batch, _, pixels, channels = x.shape
    side = round(pixels**0.5)
    x = x.view(batch, height // side, width // side, side, side, channels)
    return x.transpose(2, 3).reshape(batch, height, width, channels)


def shuffled(x: Tensor) -> Tensor:
    """[batch, height, width, 4 channels] to twice the side: TensorFlow's depth_to_space.

    The channel is (dy * 2 + dx) * channels + c; PyTorch's PixelShuffle has c outermost.
    """
    batch, height, width, channels = x.shape
    x = x.view(batch, height, width, 2, 2, channels // 4).transpose(2, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def doubled(x: Tensor) -> Tensor:
    """[batch, height, width, channels] to twice the side, each pixel four times."""
    batch, height, width, channels = x.shape
    x = x[:, :, None, :, None].expand(batch, height, 2, width, 2, channels)
    return x.reshape(batch, 2 * height, 2 * width, channels)


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention.

    q, result: [batch, queries, heads, width]; k, v: [batch, keys, heads or 1, width].
    """
    if k.shape[2] == 1:  # All heads share keys: they are more queries of one head.
        out = F.scaled_dot_product_attention(q.flatten(1, 2)[:, None], k.transpose(1, 2), v.transpose(1, 2))
        return out.view(q.shape)
    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)


class Attention(nn.Module):
    """Multi-query attention, in which all heads share one head of keys and values, or multi-head attention.

    Args:
        channels: of queries and result; context: of what keys and values are made from.
        heads: each ``channels // heads`` wide.
    """

    def __init__(self, channels: int, context: int, heads: int, kind: AttentionName) -> None:
        super().__init__()
        self.heads, self.width = heads, channels // heads
        self.shared_heads = 1 if kind == "multi_query" else heads
        self.query = linear(channels, heads * self.width)
        self.key = linear(context, self.shared_heads * self.width)
        self.value = linear(context, self.shared_heads * self.width)
        self.output = linear(heads * self.width, channels)

    def projected(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of x [..., channels], keys and values of the context, each [..., heads, head width]."""
        q = self.query(x).unflatten(-1, (self.heads, self.width))
        k, v = (f(context).unflatten(-1, (self.shared_heads, self.width)) for f in (self.key, self.value))
        return q, k, v


class CrossAttention(Attention):
    """Every pixel attends to the latent tokens."""

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x: [batch, ..., channels]; tokens: [batch, tokens, context]."""
        q, k, v = self.projected(x.flatten(1, -2), tokens)
        return self.output(attended(q, k, v).flatten(2)).view(x.shape)

    def describe(self) -> str:
        return f"{self.heads} heads to {TOKENS} latent tokens"


class MultiAxisAttention(Attention):
    """The first half of the heads attends within a block, the second across blocks (section 3.2).

    Args:
        side: of a block in pixels.
    """

    def __init__(self, channels: int, heads: int, kind: AttentionName, side: int) -> None:
        super().__init__(channels, channels, heads, kind)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """[batch, blocks, pixels, channels] to the same shape."""
        regional, dilated = self.axes(*self.projected(x, x))
        inside = attended(*regional).view(*x.shape[:3], -1)
        across = attended(*dilated).view(x.shape[0], x.shape[2], x.shape[1], -1).transpose(1, 2)
        return self.output(torch.cat([inside, across], dim=3))

    def axes(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """q, k, v [batch, blocks, pixels, heads, width] of the two halves, as ``attended`` takes them: batch x blocks
        of pixels, and batch x pixels of blocks."""
        half = self.heads // 2

        def part(tensor: Tensor, heads: slice) -> Tensor:
            return tensor if tensor.shape[3] == 1 else tensor[:, :, :, heads]

        regional = [part(t, slice(0, half)).flatten(0, 1) for t in (q, k, v)]
        dilated = [part(t, slice(half, None)).transpose(1, 2).flatten(0, 1) for t in (q, k, v)]
        return regional, dilated

    def qkv(self, x: Tensor) -> Tensor:
        """See ``interfaces.ShowsAttention``: queries, keys and values of all heads one behind the other, of a square
        map."""
        side = self.side * round(x.shape[1] ** 0.5)
        return unblocked(torch.cat([t.flatten(3) for t in self.projected(x, x)], dim=3), side, side)

    def shown(self, qkv: Tensor, queries: Tensor) -> list[Shown]:
        """See ``interfaces.ShowsAttention``."""
        heads, half, size = qkv.unflatten(-1, (-1, self.width)), self.heads // 2, qkv.shape[1]
        q, k = heads[..., : self.heads, :], heads[..., self.heads : self.heads + self.shared_heads, :]
        k = k.expand_as(q)  # The one head that multi-query attention has.
        axes = {
            f"{self.side}x{self.side} blocks": window_axis(size, self.side, 0),
            f"stride {self.side}": strided_axis(size, self.side),
        }
        found = []
        for number, (label, on_axis) in enumerate(axes.items()):
            own = slice(number * half, (number + 1) * half)
            weights = weights_of(q[..., own, :], k[..., own, :], queries, self.width**-0.5, None, on_axis)
            found.append(Shown(label, weights))
        return found

    def describe(self) -> str:
        half, side = self.heads // 2, self.side
        return f"{half} heads in {side}x{side} blocks, {half} across blocks (stride {side})"


class MLP(nn.Module):
    """``x + mlp(norm(x))``."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.expand = linear(channels, MLP_RATIO * channels)
        self.contract = linear(MLP_RATIO * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + mlp(self.norm(x), self.expand, self.contract)


class CrossBlock(nn.Module):
    """Cross-attention to the latent tokens, which are not normalised again, and an MLP, each with a residual."""

    def __init__(self, channels: int, context: int, heads: int, kind: AttentionName, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.attention = CrossAttention(channels, context, heads, kind)
        self.mlp = MLP(channels, norm)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.mlp(x + self.attention(self.norm(x), tokens))

    def describe(self) -> str:
        return self.attention.describe()


class SelfBlock(nn.Module):
    """Multi-axis attention and an MLP, each with a residual.

    Args:
        side: of a block in pixels.
    """

    def __init__(self, channels: int, heads: int, kind: AttentionName, norm: Norm, side: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.attention = MultiAxisAttention(channels, heads, kind, side)
        self.mlp = MLP(channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x + self.attention(self.norm(x)))

    def describe(self) -> str:
        return self.attention.describe()
