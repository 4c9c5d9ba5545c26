"""Backend ``tiled``: exact neighborhood attention in plain PyTorch, on any device, linear in the image.

Every tile of queries meets its halo of keys in one dense product; what a query must not see, and its bias, is
one small additive table. The backward recomputes the weights tile by tile, so that only the inputs are kept.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from stylenat.attention.plan import Plan, plan

# Logits in flight at once: they should stay in cache between the two products.
CHUNK = 2**18


class Tiled:
    """Backend ``tiled``; half precision is computed in float32. Twice differentiable.

    Extra memory: the inputs once more in tile order (and their gradients in the backward), plus one table a
    distinct tile and ``CHUNK`` logits. The second derivative alone goes through an unchunked path that keeps all
    tiles' logits: about (tile + kernel)² / tile² x tile² of them a token and head.
    """

    name = "tiled"

    def unsupported(self, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> str | None:
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
        with torch.autocast(q.device.type, enabled=False):
            out_dtype = q.dtype
            dtype = torch.promote_types(q.dtype, torch.float32)
            q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
            shape = q.shape
            cut = plan(shape[1], shape[2], kernel_size, dilation, q.device, dtype)
            queries = _to_tiles(q * scale, cut)
            keys_values = _to_classes(torch.cat([k, v], dim=-1), cut)
            table, nothing = _table(None if bias is None else bias.to(dtype), cut)
            out = _TiledAttention.apply(queries, keys_values, table, cut)
            if nothing is not None:
                out = out.masked_fill(nothing, 0)
            return _from_tiles(out, cut, shape).to(out_dtype)


def _padded(x: Tensor, cut: Plan) -> Tensor:
    """[batch, height, width, heads, dim], zero-padded so that tiles and classes come out even."""
    d, (y, x_axis) = cut.dilation, (cut.y, cut.x)
    missing_y, missing_x = y.tiles * y.tile * d - x.shape[1], x_axis.tiles * x_axis.tile * d - x.shape[2]
    return F.pad(x, (0, 0, 0, 0, 0, missing_x, 0, missing_y)) if missing_y or missing_x else x


def _to_tiles(q: Tensor, cut: Plan) -> Tensor:
    """[batch, height, width, heads, dim] to [batch, heads, tiles, queries, dim]."""
    q, y, x, d = _padded(q, cut), cut.y, cut.x, cut.dilation
    batch, _, _, heads, dim = q.shape
    q = q.view(batch, y.tiles, y.tile, d, x.tiles, x.tile, d, heads, dim)
    return q.permute(0, 7, 3, 6, 1, 4, 2, 5, 8).reshape(batch, heads, -1, y.tile * x.tile, dim)


def _from_tiles(out: Tensor, cut: Plan, shape: torch.Size) -> Tensor:
    """The inverse of ``_to_tiles``, padding cut off."""
    y, x, d = cut.y, cut.x, cut.dilation
    batch, height, width, heads, dim = shape
    out = out.view(batch, heads, d, d, y.tiles, x.tiles, y.tile, x.tile, dim)
    out = out.permute(0, 4, 6, 2, 5, 7, 3, 1, 8).reshape(batch, y.tiles * y.tile * d, x.tiles * x.tile * d, heads, dim)
    return out[:, :height, :width]


def _to_classes(kv: Tensor, cut: Plan) -> Tensor:
    """[batch, height, width, heads, dim] to [batch, heads, residue y * residue x * class y * class x, dim]."""
    kv, d = _padded(kv, cut), cut.dilation
    batch, height, width, heads, dim = kv.shape
    kv = kv.view(batch, height // d, d, width // d, d, heads, dim)
    return kv.permute(0, 5, 2, 4, 1, 3, 6).reshape(batch, heads, height * width, dim)


def _table(bias: Tensor | None, cut: Plan) -> tuple[Tensor, Tensor | None]:
    """What is added to the logits: [heads or 1, patterns (or tiles), queries, keys].

    Returns:
        The table, and which queries see no key, since the bias masks all of theirs: [heads, tiles, queries, 1], or
        None without a bias. Their rows of the table are not masked, so that their weights are finite; their results
        must be replaced by 0.
    """
    if bias is None:
        table = cut.mask[None]
        return (table.index_select(1, cut.pattern) if cut.expanded else table), None
    masked = bias.isneginf()
    hidden = (_selected(masked.to(bias.dtype), cut) > 0) | (cut.mask < 0)
    nothing = hidden.all(-1, keepdim=True)
    table = _selected(bias.masked_fill(masked, 0), cut).masked_fill(hidden & ~nothing, -torch.inf)
    return (table.index_select(1, cut.pattern) if cut.expanded else table), nothing.index_select(1, cut.pattern)


def _selected(bias: Tensor, cut: Plan) -> Tensor:
    """Each key's entry of the bias, 0 where it is not seen: [heads, patterns, queries, keys].

    Two small products select it and, backwards, sum its gradient: no scatter. They turn an infinity into NaN.
    """
    table = torch.einsum("pqka,hab,rslb->hprqskl", cut.one_hot_y, bias, cut.one_hot_x)
    return table.reshape(len(bias), *cut.mask.shape)


def _chunks(queries: Tensor, cut: Plan) -> Iterator[tuple[slice, slice, Tensor | slice, slice]]:
    """(batch, heads, tiles, table rows) of each piece of work of at most about CHUNK logits."""
    batch, heads, tiles, tokens, _ = queries.shape
    size = tokens * cut.y.halo * cut.x.halo
    for chosen, pattern in cut.groups:
        count = tiles if chosen is None else len(chosen)
        rows = slice(None) if cut.expanded else slice(pattern, pattern + 1)
        if count * heads * size <= CHUNK:
            step = max(1, CHUNK // (count * heads * size))
            for b in range(0, batch, step):
                yield slice(b, b + step), slice(None), slice(None) if chosen is None else chosen, rows
            continue
        step = max(1, CHUNK // size)
        for b in range(batch):
            for h in range(heads):
                for t in range(0, count, step):
                    some = slice(t, t + step) if chosen is None else chosen[t : t + step]
                    yield slice(b, b + 1), slice(h, h + 1), some, some if cut.expanded else rows


def _halo(keys_values: Tensor, tiles: Tensor | slice, cut: Plan) -> tuple[Tensor, Tensor | None]:
    """[batch, heads, tiles, keys, 2 dim] of the chosen tiles, and the flat places that they came from."""
    batch, heads, _, dim = keys_values.shape
    if cut.keys is None:
        halo = keys_values.view(batch, heads, cut.dilation**2, -1, dim)
        return halo[:, :, tiles], None
    places = cut.keys[tiles]
    halo = keys_values.index_select(2, places.reshape(-1))
    return halo.view(batch, heads, *places.shape, dim), places.reshape(-1)


def _weights(queries: Tensor, keys: Tensor, table: Tensor) -> Tensor:
    return torch.matmul(queries, keys.transpose(-2, -1)).add_(table).softmax(-1)


class _TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries: Tensor, keys_values: Tensor, table: Tensor, cut: Plan) -> Tensor:
        ctx.save_for_backward(queries, keys_values, table)
        ctx.cut = cut
        out = torch.empty_like(queries)
        for b, h, tiles, rows in _chunks(queries, cut):
            halo, _ = _halo(keys_values[b, h], tiles, cut)
            keys, values = halo.chunk(2, dim=-1)
            biases = table[h if table.shape[0] > 1 else slice(None), rows]
            out[b, h, tiles] = torch.matmul(_weights(queries[b, h, tiles], keys, biases), values)
        return out

    @staticmethod
    def backward(ctx, grad_out: Tensor):
        queries, keys_values, table = ctx.saved_tensors
        if torch.is_grad_enabled():  # A second derivative is wanted: through differentiable pieces.
            out = _differentiable(queries, keys_values, table, ctx.cut)
            wanted = [t for t in (queries, keys_values, table) if t.requires_grad]
            found = iter(torch.autograd.grad(out, wanted, grad_out, create_graph=True))
            grads = [next(found) if t.requires_grad else None for t in (queries, keys_values, table)]
            return (*grads, None)
        return (*_backward(queries, keys_values, table, grad_out.contiguous(), ctx), None)


def _backward(queries: Tensor, keys_values: Tensor, table: Tensor, grad_out: Tensor, ctx):
    cut: Plan = ctx.cut
    grad_queries = torch.empty_like(queries)
    grad_keys_values = torch.zeros_like(keys_values)
    grad_table = torch.zeros_like(table) if ctx.needs_input_grad[2] else None
    for b, h, tiles, rows in _chunks(queries, cut):
        halo, places = _halo(keys_values[b, h], tiles, cut)
        keys, values = halo.chunk(2, dim=-1)
        heads = h if table.shape[0] > 1 else slice(None)
        some_queries, some_grad = queries[b, h, tiles], grad_out[b, h, tiles]
        weights = _weights(some_queries, keys, table[heads, rows])
        grad_halo = torch.empty_like(halo)
        grad_keys, grad_values = grad_halo.chunk(2, dim=-1)
        grad_values.copy_(torch.matmul(weights.transpose(-2, -1), some_grad))
        # Softmax's backward, dS = P (dP - sum(P dP)), in place.
        grad_logits = torch.matmul(some_grad, values.transpose(-2, -1)).mul_(weights)
        grad_logits -= weights.mul_(grad_logits.sum(-1, keepdim=True))
        grad_queries[b, h, tiles] = torch.matmul(grad_logits, keys)
        grad_keys.copy_(torch.matmul(grad_logits.transpose(-2, -1), some_queries))
        if places is None:
            whole = grad_keys_values.view(*keys_values.shape[:2], cut.dilation**2, -1, keys_values.shape[-1])
            whole[b, h, tiles] = grad_halo
        else:
            grad_keys_values[b, h].index_add_(2, places, grad_halo.flatten(2, 3))
        if grad_table is not None:
            shared = grad_table[heads, rows]
            shared += grad_logits.sum_to_size(1, *shared.shape)[0]
    return grad_queries, grad_keys_values, grad_table


def _differentiable(queries: Tensor, keys_values: Tensor, table: Tensor, cut: Plan) -> Tensor:
    """The forward once more, of operations that autograd can differentiate again."""
    halo, _ = _halo(keys_values, slice(None), cut)
    keys, values = halo.chunk(2, dim=-1)
    rows = table if cut.expanded or table.shape[1] == 1 else table.index_select(1, cut.pattern)
    logits = torch.matmul(queries, keys.transpose(-2, -1)) + rows
    return torch.matmul(logits.softmax(-1), values)
