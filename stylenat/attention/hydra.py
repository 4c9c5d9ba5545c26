"""HydraAttention: one attention layer whose heads look at different neighborhoods (StyleNAT, section 3.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from registry import AttentionSite, HeadGroup, UserError
from stylenat.attention.dense import softmax
from stylenat.attention.op import Backend, candidates, choose, neighborhood_attention
from stylenat.attention.shown import full_axis, neighborhood_axis, weights_of
from stylenat.interfaces import Shown


def checked_groups(groups: list[HeadGroup], site: AttentionSite, source: str) -> list[HeadGroup]:
    """The groups, if they can stand at the site. Raises UserError naming ``source`` and the rule that is broken."""
    where = f"{source} at {site.resolution}x{site.resolution}"
    if not isinstance(groups, list | tuple) or not all(isinstance(g, HeadGroup) for g in groups):
        raise UserError(f"{where}: it must return a list of registry.HeadGroup; got {groups!r}")
    if any(g.num_heads < 1 for g in groups) or sum(g.num_heads for g in groups) != site.num_heads:
        raise UserError(
            f"{where}: its groups have {[g.num_heads for g in groups]} heads, which must be positive and add up to "
            f"the layer's {site.num_heads}"
        )
    for g in groups:
        if g.kernel_size < 3 or g.kernel_size % 2 == 0 or g.dilation < 1:
            raise UserError(f"{where}: {g} needs an odd kernel_size of at least 3 and a dilation of at least 1")
        if g.kernel_size * g.dilation > site.resolution:
            raise UserError(
                f"{where}: kernel_size x dilation = {g.kernel_size} x {g.dilation} = {g.kernel_size * g.dilation} "
                f"exceeds the resolution; use a smaller kernel or dilation there"
            )
    return groups


class _Attention(nn.Module):
    """The projections that every attention layer here has in common."""

    def __init__(self, channels: int, num_heads: int, qkv_bias: bool, scale: float | None) -> None:
        super().__init__()
        if channels % num_heads:
            raise UserError(f"{num_heads} heads do not divide {channels} channels; change the channels or the heads")
        self.num_heads = num_heads
        self.scale = (channels // num_heads) ** -0.5 if scale is None else scale
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, height, width, channels] to the same."""
        return self.proj(self.attended(self._heads(self.qkv(x))).flatten(3))

    def attended(self, qkv: Tensor) -> Tensor:
        """From q, k and v [batch, height, width, 3, heads, head_dim] to what the heads see, [batch, height, width,
        heads, head_dim], before the last projection. Without a graph it may overwrite them."""
        raise NotImplementedError

    def _heads(self, qkv: Tensor) -> Tensor:
        """[batch, height, width, 3 * channels] to [batch, height, width, 3, heads, head_dim], a view."""
        return qkv if qkv.ndim == 6 else qkv.unflatten(-1, (3, self.num_heads, -1))


class HydraAttention(_Attention):
    """Neighborhood attention with one kernel size and dilation per group of heads.

    Args:
        channels: width; num_heads: heads, dividing it.
        groups: consecutive heads with their neighborhoods, adding up to ``num_heads``.
        qkv_bias: whether the qkv projection has a bias.
        scale: of the logits; head_dim ** -0.5 by default.
        backend: as in ``neighborhood_attention``.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        groups: list[HeadGroup],
        qkv_bias: bool = True,
        scale: float | None = None,
        backend: Backend = None,
    ) -> None:
        super().__init__(channels, num_heads, qkv_bias, scale)
        self.groups = list(groups)
        candidates(backend)  # A name that does not exist is refused here, where its line in the gin file is known.
        self.backend = backend
        self._calls = _calls(self.groups)
        # Indices are kept where the layer is: a list of numbers would be sent to a GPU at every call.
        for i, call in enumerate(self._calls):
            self.register_buffer(f"heads_{i}", None if call.consecutive else torch.tensor(call.heads), persistent=False)
        order = [head for call in self._calls for head in call.heads]
        back = None if order == sorted(order) else torch.tensor(sorted(range(num_heads), key=order.__getitem__))
        self.register_buffer("back", back, persistent=False)
        self.relative_position_bias = nn.ParameterList(
            nn.Parameter(nn.init.trunc_normal_(torch.empty(g.num_heads, span, span), std=0.02))
            for g in self.groups
            for span in [2 * g.kernel_size - 1]
        )

    def describe(self, resolution: int) -> str:
        """The groups, and the share of a map of this side that a window of each spans: ``4 x k7 d2 (66%)``."""
        return "  ".join(
            f"{g.num_heads} x k{g.kernel_size} d{g.dilation} ({100 * (extent / resolution) ** 2:.3g}%)"
            for g in self.groups
            for extent in [(g.kernel_size - 1) * g.dilation + 1]
        )

    def backends(self, resolution: int, dtype: torch.dtype) -> set[str]:
        """The names of the backends that maps of this side take, in this precision, where the layer is.

        Raises:
            UserError: the one that is named cannot be used there.
        """
        table = self.relative_position_bias[0]
        shape = (1, resolution, resolution, self.num_heads, self.qkv.in_features // self.num_heads)
        q = torch.empty(shape, dtype=dtype, device=table.device)
        return {choose(self.backend, q, call.kernel_size, call.dilation, table).name for call in self._calls}

    def attended(self, qkv: Tensor) -> Tensor:
        first, table, q = self.groups[0], self.relative_position_bias[0], qkv[:, :, :, 0]
        backend = choose(self.backend, q, first.kernel_size, first.dilation, table)
        takes_all = all(backend.unsupported(q, c.kernel_size, c.dilation, table) is None for c in self._calls[1:])
        if hasattr(backend, "grouped") and takes_all:  # Every group into one output, and into one gradient.
            return backend.grouped(qkv, self.groups, list(self.relative_position_bias), self.scale)
        q, k, v = qkv.unbind(3)
        out = []
        for i, call in enumerate(self._calls):
            tables = [self.relative_position_bias[i] for i in call.groups]
            out.append(
                neighborhood_attention(
                    *(self._selected(t, i) for t in (q, k, v)),
                    kernel_size=call.kernel_size,
                    dilation=call.dilation,
                    bias=torch.cat(tables) if len(tables) > 1 else tables[0],
                    scale=self.scale,
                    backend=self.backend,
                )
            )
        heads = torch.cat(out, dim=3) if len(out) > 1 else out[0]
        return heads if self.back is None else heads.index_select(3, self.back)

    def shown(self, qkv: Tensor, queries: Tensor) -> list[Shown]:
        """See ``interfaces.ShowsAttention``."""
        q, k, _ = self._heads(qkv).unbind(3)
        found, head = [], 0
        for group, bias in zip(self.groups, self.relative_position_bias, strict=True):
            own = slice(head, head := head + group.num_heads)
            on_axis = neighborhood_axis(qkv.shape[1], group.kernel_size, group.dilation)
            weights = weights_of(q[:, :, :, own], k[:, :, :, own], queries, self.scale, bias, on_axis)
            found.append(Shown(f"k{group.kernel_size} d{group.dilation}", weights))
        return found

    def _selected(self, t: Tensor, number: int) -> Tensor:
        """The heads of one call: a view where they are consecutive, else a copy."""
        call, index = self._calls[number], getattr(self, f"heads_{number}")
        return t[:, :, :, call.heads[0] : call.heads[-1] + 1] if index is None else t.index_select(3, index)


@dataclass(frozen=True)
class _Call:
    """One call of the op: the groups that share a neighborhood, and their heads."""

    kernel_size: int
    dilation: int
    groups: tuple[int, ...]
    heads: tuple[int, ...]

    @property
    def consecutive(self) -> bool:
        return self.heads[-1] + 1 - self.heads[0] == len(self.heads)


def _calls(groups: list[HeadGroup]) -> list[_Call]:
    """Groups merged by (kernel size, dilation), in the order of their first heads."""
    members: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    head = 0
    for i, g in enumerate(groups):
        indices, heads = members.setdefault((g.kernel_size, g.dilation), ([], []))
        indices.append(i)
        heads += range(head, head + g.num_heads)
        head += g.num_heads
    return [_Call(*key, tuple(indices), tuple(heads)) for key, (indices, heads) in members.items()]


class FullAttention(_Attention):
    """Self-attention over all tokens of a small map, with a bias for every offset: the 4x4 level's attention.

    Args:
        resolution: side of the map; the bias table is [heads, 2 * resolution - 1, 2 * resolution - 1].
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        resolution: int,
        qkv_bias: bool = True,
        scale: float | None = None,
    ) -> None:
        super().__init__(channels, num_heads, qkv_bias, scale)
        span = 2 * resolution - 1
        self.relative_position_bias = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_heads, span, span), std=0.02))
        place = torch.arange(resolution)
        offset = place[None, :] - place[:, None] + resolution - 1  # [query, key]: key minus query
        index = offset[:, None, :, None] * span + offset[None, :, None, :]
        self.register_buffer("index", index.reshape(resolution**2, resolution**2), persistent=False)

    def describe(self, resolution: int) -> str:
        """``4 heads over all tokens (100%)``."""
        return f"{self.num_heads} heads over all tokens (100%)"

    def attended(self, qkv: Tensor) -> Tensor:
        batch, height, width, _, heads, head_dim = qkv.shape
        # [batch * heads, tokens, head_dim]: few tokens, so that on a GPU the number of operations is what counts.
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5).reshape(3, batch * heads, height * width, head_dim).unbind(0)
        bias = self.relative_position_bias.flatten(1)[:, self.index].repeat(batch, 1, 1).to(q.dtype)
        weights = softmax(torch.baddbmm(bias, q, k.transpose(1, 2), alpha=self.scale))
        return torch.bmm(weights, v).view(batch, heads, height, width, head_dim).permute(0, 2, 3, 1, 4)

    def shown(self, qkv: Tensor, queries: Tensor) -> list[Shown]:
        """See ``interfaces.ShowsAttention``."""
        q, k, _ = self._heads(qkv).unbind(3)
        bias = self.relative_position_bias
        return [Shown("full", weights_of(q, k, queries, self.scale, bias, full_axis(qkv.shape[1])))]
