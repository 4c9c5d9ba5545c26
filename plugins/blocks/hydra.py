"""Block ``hydra``: AdaIN, HydraAttention, AdaIN, MLP (StyleNAT, section 3)."""

import torch
from torch import Tensor, nn

from registry import AttentionSite, Finite, Positive
from stylenat.attention.hydra import FullAttention, HydraAttention, checked_groups
from stylenat.attention.op import Backend
from stylenat.interfaces import Partition
from stylenat.networks.layers import AdaIN
from stylenat.networks.mlp import mlp
from stylenat.networks.pieces import Scratch, as_map, as_tokens, assembled, linear, part, plus_linear, with_residual
from stylenat.networks.widths import Width


class HydraBlock(nn.Module):
    """``x + attention(AdaIN(x, w))``, then ``x + mlp(AdaIN(x, w))``.

    Args:
        site: where the block sits; style_dim: length of w. Both are supplied by the generator.
        partition: splits the heads into groups; called at every resolution except 4x4, which has full attention.
        mlp_ratio: width of the MLP's hidden layer over the block's.
        qkv_bias: of the qkv projection; qk_scale: of the logits, head_dim ** -0.5 by default.
        backend: of the attention op; a list is asked before the bundled ones; None picks by capability.
        gamma_bias: AdaIN's initial factor; style_gain: scales its initial dependence on w.
    """

    def __init__(
        self,
        *,
        site: AttentionSite,
        style_dim: int,
        partition: Partition,
        mlp_ratio: Width = 4,
        qkv_bias: bool = True,
        qk_scale: Positive | None = None,
        backend: Backend = None,
        gamma_bias: Finite = 0.0,
        style_gain: Finite = 1.0,
    ) -> None:
        super().__init__()
        channels, heads = site.channels, site.num_heads
        self.resolution = site.resolution
        self.norm1 = AdaIN(channels, style_dim, gamma_bias, style_gain)
        if site.resolution == 4:
            self.attention: nn.Module = FullAttention(channels, heads, 4, qkv_bias, qk_scale)
        else:
            groups = checked_groups(partition(site), site, f"partition {type(partition).__name__}")
            self.attention = HydraAttention(channels, heads, groups, qkv_bias, qk_scale, backend)
        self.norm2 = AdaIN(channels, style_dim, gamma_bias, style_gain)
        self.expand = nn.Linear(channels, mlp_ratio * channels)
        self.contract = nn.Linear(mlp_ratio * channels, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: [batch, height, width, channels]; style: [batch, style_dim]."""
        tokens = as_tokens(x)
        normalised, qkv = self.norm1.of(tokens, style), self.attention.qkv
        projections = assembled(
            lambda samples, some, out: linear(qkv, normalised(samples, some), out),
            tokens,
            (*tokens.shape[:-1], qkv.out_features),
            qkv.out_features,
            shared=True,
        )
        heads = projections.view(*x.shape[:3], 3, self.attention.num_heads, -1)
        attended, proj = self.attention.attended(heads).reshape(tokens.shape), self.attention.proj
        tokens = assembled(
            lambda samples, some, out: plus_linear(
                part(tokens, samples, some), proj, part(attended, samples, some), out
            ),
            tokens,
            tokens.shape,
            proj.out_features,
        )
        renormalised, scratch = self.norm2.of(tokens, style), Scratch()
        tokens = with_residual(
            lambda samples, some, out: mlp(renormalised(samples, some), self.expand, self.contract, out, scratch),
            tokens,
            self.expand.out_features,
        )
        return as_map(tokens, x)

    def attention_backends(self, dtype: torch.dtype) -> set[str]:
        """Those that its attention takes, in this precision; none at 4x4. Raises UserError where one cannot be used."""
        attention = self.attention
        return attention.backends(self.resolution, dtype) if isinstance(attention, HydraAttention) else set()

    def lower_precision(self) -> None:
        """The weights of its products become bfloat16, for maps of bfloat16 without a graph."""
        for layer in (self.attention.qkv, self.attention.proj, self.expand, self.contract):
            layer.bfloat16()

    def describe(self) -> str:
        """The heads and their neighborhoods, for the dry run's table."""
        return self.attention.describe(self.resolution)
