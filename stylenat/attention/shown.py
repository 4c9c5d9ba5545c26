"""What the heads of attention layers look at: weights of chosen queries over the map, and their statistics.

Layers compute attention without keeping its weights. Here they are computed again for a few queries, from the
projections that the layer was given. Layers take part through ``interfaces.ShowsAttention``.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylenat.attention.dense import axis, softmax
from stylenat.interfaces import Shown


@functools.lru_cache(maxsize=64)
def neighborhood_axis(size: int, kernel_size: int, dilation: int) -> tuple[Tensor, Tensor]:
    """Of a neighborhood: whether a key is seen, and its index in the bias table, [query, key] on one axis."""
    return axis(size, kernel_size, dilation)


def full_axis(size: int) -> tuple[Tensor, Tensor]:
    """Of attention to all tokens: as ``neighborhood_axis``."""
    return window_axis(size, size, 0)


def window_axis(size: int, window: int, shift: int) -> tuple[Tensor, Tensor]:
    """Of windows that are moved by ``shift`` tokens around the edge, where what meets is masked (arXiv 2103.14030,
    section 3.2): as ``neighborhood_axis``."""
    place = (torch.arange(size) - shift) % size
    same = place[:, None] // window == place[None, :] // window
    if shift:
        band = (place >= size - window).long() + (place >= size - window // 2).long()
        same &= band[:, None] == band[None, :]
    offset = place[None, :] % window - place[:, None] % window + window - 1
    return same, offset.masked_fill(~same, 0)


def strided_axis(size: int, stride: int) -> tuple[Tensor, Tensor]:
    """Of attention to all tokens that are multiples of ``stride`` away, without a bias table: as
    ``neighborhood_axis``."""
    position = torch.arange(size) % stride
    seen = position[:, None] == position[None, :]
    return seen, torch.zeros_like(seen, dtype=torch.long)


def weights_of(
    q: Tensor, k: Tensor, queries: Tensor, scale: float, bias: Tensor | None, on_axis: tuple[Tensor, Tensor]
) -> Tensor:
    """Attention weights [batch, heads, queries, height, width] of some queries of a square map.

    Args:
        q, k: [batch, height, width, heads, head_dim]; queries: int64 [queries, 2], row and column.
        bias: [heads, span, span], added to the logits; None for none.
        on_axis: what a query sees on one axis, and the bias table's index, [query, key] each; the same for rows and
            columns.
    """
    seen, offset = (t.to(q.device) for t in on_axis)
    y, x = queries.to(q.device).unbind(1)
    batch, height, width, heads, _ = k.shape
    logits = scale * torch.einsum("bqhd,byxhd->bhqyx", q[:, y, x], k)
    if bias is not None:
        logits = logits + bias[:, offset[y][:, :, None], offset[x][:, None, :]]
    logits = logits.masked_fill(~(seen[y][:, :, None] & seen[x][:, None, :]), -torch.inf)
    return softmax(logits.flatten(3)).view(batch, heads, len(y), height, width)


@dataclass(frozen=True)
class Statistics:
    """Of a group of heads in one layer, mean over its heads, the queries and the batch.

    Attributes:
        distance: mean distance of the keys from the query, weighted by attention, in tokens of the map.
        entropy: of the weights, in nats: e to its power is the number of keys that share the attention.
        keys: that are looked at by a query, at most: with a weight above 0.
    """

    distance: float
    entropy: float
    keys: int


def statistics(weights: Tensor, queries: Tensor) -> Statistics:
    """Of weights [batch, heads, queries, height, width] of these queries [queries, 2]."""
    height, width = weights.shape[-2:]
    y, x = queries.to(weights.device).float().unbind(1)
    rows, columns = (torch.arange(n, device=weights.device, dtype=torch.float32) for n in (height, width))
    distance = torch.hypot(rows[:, None] - y[:, None, None], columns - x[:, None, None])
    entropy = -torch.special.xlogy(weights, weights).sum((-2, -1))
    return Statistics(
        float((weights * distance).sum((-2, -1)).mean()),
        float(entropy.mean()),
        int((weights > 0).sum((-2, -1)).max()),
    )


def shows_attention(module: nn.Module) -> bool:
    """Whether it implements ``interfaces.ShowsAttention``."""
    return hasattr(module, "shown") and hasattr(module, "qkv")


def spread_queries(side: int, most: int) -> Tensor:
    """Positions on a regular grid of a map, int64 [queries, 2], all of them where there are no more than ``most``."""
    count = min(side, max(1, int(most**0.5)))
    places = ((torch.arange(count) + 0.5) * side / count).long()
    return torch.cartesian_prod(places, places).view(-1, 2)


@contextmanager
def observed(generator: nn.Module, queries: Callable[[int], Tensor]) -> Iterator[dict[str, list[list[Shown]]]]:
    """A context in which the generator's calls are recorded: the layer's name to what each of its calls shows.

    Args:
        queries: from a map's side to positions [queries, 2].
    """
    found: dict[str, list[list[Shown]]] = {}
    within: set[nn.Module] = set()
    handles: list[Any] = []
    patched: list[tuple[nn.Module, str]] = []

    def record(name: str, layer: Any, qkv: Tensor) -> None:
        with torch.no_grad():
            found.setdefault(name, []).append(layer.shown(qkv, queries(qkv.shape[1])))

    def watch(name: str, layer: Any) -> None:
        def entered(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            with torch.no_grad():
                record(name, layer, layer.qkv(inputs[0]))
            within.add(layer)

        handles.append(layer.register_forward_pre_hook(entered))
        handles.append(layer.register_forward_hook(lambda *_: within.discard(layer)))
        # A block may project by itself and call one of these alone. Without a graph it may overwrite its input.
        method = next((name for name in ("attended", "attend") if hasattr(layer, name)), None)
        if method is not None:
            inner = getattr(layer, method)

            def attending(qkv: Tensor) -> Tensor:
                if layer not in within:
                    record(name, layer, qkv)
                return inner(qkv)

            setattr(layer, method, attending)
            patched.append((layer, method))

    for name, module in generator.named_modules():
        if shows_attention(module):
            watch(name, module)
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
        for layer, method in patched:
            delattr(layer, method)
