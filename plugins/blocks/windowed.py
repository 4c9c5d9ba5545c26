"""Block ``attention``: self-attention over all tokens where that is affordable, within windows above."""

from torch import Tensor, nn
from torch.nn import functional as F

from plugins.blocks.swin import from_windows, shifted_window_mask, to_windows, within_windows
from registry import AttentionSite, Count, Finite, Positive, UserError
from stylenat.attention.hydra import FullAttention
from stylenat.attention.shown import weights_of, window_axis
from stylenat.interfaces import Shown
from stylenat.networks.layers import AdaIN
from stylenat.networks.widths import Width


class WindowAttention(FullAttention):
    """Self-attention within windows; with ``shift``, within windows moved by half their side.

    A window as large as the map is full self-attention. The bias table is the window's own,
    [heads, 2 * window - 1, 2 * window - 1], indexed by key minus query offset.
    """

    def __init__(
        self, site: AttentionSite, window: int, shift: bool, qkv_bias: bool = True, scale: float | None = None
    ) -> None:
        super().__init__(site.channels, site.num_heads, window, qkv_bias, scale)
        self.resolution, self.window = site.resolution, window
        self.shift = window // 2 if shift and window < site.resolution else 0
        mask = shifted_window_mask(site.resolution, window) if self.shift else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, height, width, channels] to the same."""
        if self.window == self.resolution:
            return super().forward(x)
        batch = x.shape[0]
        x = to_windows(x.roll((-self.shift, -self.shift), dims=(1, 2)), self.window)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3).unbind(2)
        bias = self.relative_position_bias.flatten(1)[:, self.index]  # [heads, query, key]
        out = self.proj(within_windows(self.scale * q, k, v, bias, self.mask, batch))
        return from_windows(out, self.window, self.resolution).roll((self.shift, self.shift), dims=(1, 2))

    def shown(self, qkv: Tensor, queries: Tensor) -> list[Shown]:
        """See ``interfaces.ShowsAttention``."""
        if self.window == self.resolution:
            return super().shown(qkv, queries)
        q, k, _ = self._heads(qkv).unbind(3)
        on_axis = window_axis(self.resolution, self.window, self.shift)
        weights = weights_of(q, k, queries, self.scale, self.relative_position_bias, on_axis)
        return [Shown(f"w{self.window} s{self.shift}", weights)]

    def describe(self, resolution: int) -> str:
        """The layer's heads and what they see of a map of this side."""
        if self.window == resolution:
            return super().describe(resolution)
        share = 100 * (self.window / resolution) ** 2
        shifted = f" shifted by {self.shift}" if self.shift else ""
        return f"{self.num_heads} x window {self.window} ({share:.3g}%){shifted}"


class AttentionBlock(nn.Module):
    """``x + attention(AdaIN(x, w))``, then ``x + mlp(AdaIN(x, w))``: block ``hydra`` with nothing left out of sight.

    Memory and time of full attention grow with the fourth power of the side, hence windows above a stated
    resolution, shifted in the second block (Swin Transformer, arXiv 2103.14030, section 3.2).

    Args:
        site: where the block sits; style_dim: length of w. Both are supplied by the generator.
        full_resolution: every token sees every other up to here.
        window: side of the windows above.
        mlp_ratio: width of the MLP's hidden layer over the block's.
        qkv_bias: of the qkv projection; qk_scale: of the logits, head_dim ** -0.5 by default.
        gamma_bias: AdaIN's initial factor; style_gain: scales its initial dependence on w.
    """

    def __init__(
        self,
        *,
        site: AttentionSite,
        style_dim: int,
        full_resolution: Count = 32,
        window: Count = 8,
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
            raise UserError(
                f"block.attention.window = {window} does not divide {side}x{side}; use 8, or another power of 2"
            )
        self.norm1 = AdaIN(channels, style_dim, gamma_bias, style_gain)
        self.attention = WindowAttention(site, window, site.block == 1, qkv_bias, qk_scale)
        self.norm2 = AdaIN(channels, style_dim, gamma_bias, style_gain)
        self.expand = nn.Linear(channels, mlp_ratio * channels)
        self.contract = nn.Linear(mlp_ratio * channels, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: [batch, height, width, channels]; style: [batch, style_dim]."""
        x = x + self.attention(self.norm1(x, style))
        return x + self.contract(F.gelu(self.expand(self.norm2(x, style))))

    def describe(self) -> str:
        """The heads and what they see, for the dry run's table."""
        return self.attention.describe(self.attention.resolution)
