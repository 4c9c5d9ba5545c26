"""Block ``swin``: StyleSwin's double attention (arXiv 2112.10762, section 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import AttentionSite, Count, Finite, Positive, UserError
from stylenat.attention.shown import weights_of, window_axis
from stylenat.interfaces import Shown
from stylenat.networks.layers import AdaIN
from stylenat.networks.widths import Width


def shifted_window_mask(resolution: int, window: int) -> Tensor:
    """[windows, window², window²]: -100 where, after the cyclic shift, query and key come from different edges."""
    # A shifted window holds rows from before the seam and, wrapped around, from after it.
    place = torch.arange(resolution)
    band = (place >= resolution - window).long() + (place >= resolution - window // 2).long()
    region = (3 * band[:, None] + band[None, :])[None, :, :, None]
    region = to_windows(region, window)[:, :, 0]
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, -100.0)


def to_windows(x: Tensor, window: int) -> Tensor:
    """[batch, height, width, channels] to [batch * windows, window², channels], windows row by row."""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return x.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def from_windows(x: Tensor, window: int, resolution: int) -> Tensor:
    """The inverse of ``to_windows`` for a square map."""
    per_side = resolution // window
    x = x.view(-1, per_side, per_side, window, window, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, resolution, resolution, x.shape[-1])


def within_windows(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, batch: int) -> Tensor:
    """Attention of every window to itself.

    Args:
        q, k, v: [batch * windows, heads, tokens, head_dim], q already scaled; bias: [heads, tokens, tokens].
        mask: [windows, tokens, tokens], added to the logits; None for none.

    Returns:
        [batch * windows, tokens, heads * head_dim].
    """
    if mask is not None:
        bias = (bias + mask[:, None].to(bias.dtype)).repeat(batch, 1, 1, 1)
    weights = (q @ k.transpose(-2, -1) + bias).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


class DoubleAttention(nn.Module):
    """The first half of the heads attends within windows, the second within windows shifted by half their side.

    Args:
        window: side of the windows; a window as large as the map is not shifted.
        scale: of the logits; head_dim ** -0.5 by default.
    """

    def __init__(self, site: AttentionSite, window: int, qkv_bias: bool, scale: float | None) -> None:
        super().__init__()
        channels, heads = site.channels, site.num_heads
        if heads % 2 or channels % heads:
            raise UserError(
                f"block.swin at {site.resolution}x{site.resolution} needs an even number of heads that divides its "
                f"{channels} channels; got {heads}"
            )
        self.resolution, self.window, self.num_heads = site.resolution, window, heads
        self.shift = window // 2 if window < site.resolution else 0
        self.scale = (channels // heads) ** -0.5 if scale is None else scale
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        span = 2 * window - 1
        # Two tables of [heads / 2, span, span], indexed by key minus query offset as everywhere here.
        self.relative_position_bias = nn.ParameterList(
            nn.Parameter(nn.init.trunc_normal_(torch.empty(heads // 2, span, span), std=0.02)) for _ in range(2)
        )
        place = torch.arange(window)
        offset = place[None, :] - place[:, None] + window - 1  # [query, key]
        index = offset[:, None, :, None] * span + offset[None, :, None, :]
        self.register_buffer("index", index.reshape(window**2, window**2), persistent=False)
        mask = shifted_window_mask(site.resolution, window) if self.shift else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, height, width, channels] to the same."""
        half = x.shape[-1] // 2
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        straight = self._attend(0, [t[..., :half] for t in (q, k, v)])
        to, back = (-self.shift, -self.shift), (self.shift, self.shift)
        shifted = self._attend(1, [t[..., half:].roll(to, dims=(1, 2)) for t in (q, k, v)], self.mask)
        return self.proj(torch.cat([straight, shifted.roll(back, dims=(1, 2))], dim=-1))

    def shown(self, qkv: Tensor, queries: Tensor) -> list[Shown]:
        """See ``interfaces.ShowsAttention``."""
        q, k, _ = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(3)
        half, found = self.num_heads // 2, []
        for table, shift in enumerate((0, self.shift)):
            own = slice(table * half, (table + 1) * half)
            on_axis = window_axis(self.resolution, self.window, shift)
            bias = self.relative_position_bias[table]
            label = f"w{self.window} s{shift}" if self.window < self.resolution else "full"
            found.append(Shown(label, weights_of(q[:, :, :, own], k[:, :, :, own], queries, self.scale, bias, on_axis)))
        return found

    def describe(self) -> str:
        """The layer's heads and what they see."""
        half, share = self.num_heads // 2, 100 * (self.window / self.resolution) ** 2
        if not self.shift:
            return f"{self.num_heads} heads over all tokens (100%)"
        return f"{half} x window {self.window} ({share:.3g}%)  {half} x window {self.window} shifted by {self.shift}"

    def _attend(self, table: int, qkv: list[Tensor], mask: Tensor | None = None) -> Tensor:
        """Attention within windows: q, k, v and the result are [batch, height, width, channels / 2]."""
        heads, batch = self.num_heads // 2, qkv[0].shape[0]
        q, k, v = (to_windows(t, self.window).unflatten(-1, (heads, -1)).transpose(1, 2) for t in qkv)
        bias = self.relative_position_bias[table].flatten(1)[:, self.index]  # [heads, query, key]
        return from_windows(within_windows(self.scale * q, k, v, bias, mask, batch), self.window, self.resolution)


class SwinBlock(nn.Module):
    """``x + double_attention(AdaIN(x, w))``, then ``x + mlp(AdaIN(x, w))``.

    Args:
        site: where the block sits; style_dim: length of w. Both are supplied by the generator.
        window: side of the windows above ``full_resolution``; up to there a window is the whole map.
        mlp_ratio: width of the MLP's hidden layer over the block's.
        qkv_bias: of the qkv projection; qk_scale: of the logits, head_dim ** -0.5 by default.
        gamma_bias: AdaIN's initial factor; style_gain: scales its initial dependence on w.
    """

    def __init__(
        self,
        *,
        site: AttentionSite,
        style_dim: int,
        window: Count = 8,
        full_resolution: Count = 8,
        mlp_ratio: Width = 4,
        qkv_bias: bool = True,
        qk_scale: Positive | None = None,
        gamma_bias: Finite = 0.0,
        style_gain: Finite = 1.0,
    ) -> None:
        super().__init__()
        side, channels = site.resolution, site.channels
        window = side if side <= full_resolution else window
        if not 1 < window <= side or side % window:
            raise UserError(f"block.swin.window = {window} does not divide {side}x{side}; use 8, or another power of 2")
        self.norm1 = AdaIN(channels, style_dim, gamma_bias, style_gain)
        self.attention = DoubleAttention(site, window, qkv_bias, qk_scale)
        self.norm2 = AdaIN(channels, style_dim, gamma_bias, style_gain)
        self.expand = nn.Linear(channels, mlp_ratio * channels)
        self.contract = nn.Linear(mlp_ratio * channels, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: [batch, height, width, channels]; style: [batch, style_dim]."""
        x = x + self.attention(self.norm1(x, style))
        return x + self.contract(F.gelu(self.expand(self.norm2(x, style))))

    def describe(self) -> str:
        """The heads and what they see, for the dry run's table."""
        return self.attention.describe()
