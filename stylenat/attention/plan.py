"""How an image is cut into query tiles and key halos, worked out once per shape and cached.

A dilation d leaves d x d residue classes that never mix; each is a smaller image with dilation 1. Each class is
cut into tiles of queries; all keys that a tile's queries may see lie in one rectangular halo. Borders, ragged
classes and padding then differ in nothing but the additive table of their tile, of which few are distinct.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from stylenat.attention.window import window_start

# Classes up to this side are one tile (no halo to gather); larger ones are cut into tiles of about TILE.
WHOLE = 16
TILE = 8
# Below this many table entries every tile gets its own copy of the table: one pass instead of one a pattern.
EXPANDED_TABLE = 2**18


@dataclass(frozen=True)
class Axis:
    """One axis: ``tiles`` tiles of ``tile`` queries and ``halo`` keys in each of ``dilation`` classes.

    ``starts[tile]``: the halo's first key in its class. ``pattern[residue, tile]``: which of the distinct
    ``offsets`` [patterns, tile, halo] holds; an offset is the index in the bias table, -1 for an unseen key.
    """

    tiles: int
    tile: int
    halo: int
    starts: Tensor
    pattern: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class Plan:
    """Both axes joined. Tiles are numbered over (residue y, residue x, tile y, tile x).

    Attributes:
        keys: [tiles, halo y * halo x], each key's place among (residue y, residue x, class y, class x); None
            when each tile's halo is its whole class, in order.
        one_hot_y, one_hot_x: [patterns, tile, halo, 2k-1], the selection of the bias table.
        mask: [patterns y * patterns x, queries, keys], 0 where seen, else -inf.
        pattern: [tiles], which of the joined patterns a tile has.
        groups: one (tiles, pattern) per distinct pattern; tiles is None for all of them.
        expanded: the table is copied for every tile and there is one group.
    """

    y: Axis
    x: Axis
    dilation: int
    keys: Tensor | None
    one_hot_y: Tensor
    one_hot_x: Tensor
    mask: Tensor
    pattern: Tensor
    groups: list[tuple[Tensor | None, int]]
    expanded: bool


def _axis(size: int, kernel_size: int, dilation: int) -> Axis:
    longest = -(-size // dilation)
    tiles = 1 if longest <= WHOLE else -(-longest // TILE)
    tile = -(-longest // tiles)
    tiles = -(-longest // tile)
    class_size = [-(-(size - r) // dilation) for r in range(dilation)]

    def window_of(residue: int, place: int) -> int:
        return window_start(place * dilation + residue, size, kernel_size, dilation)

    # The two kinds of class (the longest, and where the side does not divide by the dilation one shorter).
    kinds = {n: r for r, n in enumerate(class_size)}
    first, last = [], []
    for t in range(tiles):
        begins = [window_of(r, p) for n, r in kinds.items() for p in range(t * tile, min((t + 1) * tile, n))]
        first.append(min(begins))
        last.append(max(begins) + kernel_size)
    halo = min(max(b - a for a, b in zip(first, last, strict=True)), tiles * tile)
    if tiles == 1:
        halo = tile
    starts = [min(a, tiles * tile - halo) for a in first]

    distinct: dict[tuple, int] = {}
    pattern = torch.zeros(dilation, tiles, dtype=torch.long)
    for n, representative in kinds.items():
        for t in range(tiles):
            rows = []
            for p in range(t * tile, (t + 1) * tile):
                if p >= n:  # A padding query: sees anything, is thrown away.
                    rows.append((0,) * halo)
                    continue
                begin = window_of(representative, p)
                places = range(starts[t], starts[t] + halo)
                rows.append(
                    tuple(key - p + kernel_size - 1 if begin <= key < begin + kernel_size else -1 for key in places)
                )
            number = distinct.setdefault(tuple(rows), len(distinct))
            for r in range(dilation):
                if class_size[r] == n:
                    pattern[r, t] = number
    return Axis(tiles, tile, halo, torch.tensor(starts), pattern, torch.tensor(list(distinct)))


def _one_hot(offsets: Tensor, span: int, dtype: torch.dtype) -> Tensor:
    return (offsets[..., None] == torch.arange(span)).to(dtype)


@lru_cache(maxsize=256)
def plan(height: int, width: int, kernel_size: int, dilation: int, device: torch.device, dtype: torch.dtype) -> Plan:
    """The plan for one shape. Memory: a few times the table of one tile a pattern; nothing grows with heads."""
    y, x = _axis(height, kernel_size, dilation), _axis(width, kernel_size, dilation)
    d, span = dilation, 2 * kernel_size - 1
    side_y, side_x = y.tiles * y.tile, x.tiles * x.tile

    keys = None
    if y.tiles * x.tiles > 1:
        place_y = (y.starts[:, None] + torch.arange(y.halo))[None, None, :, None, :, None]
        place_x = (x.starts[:, None] + torch.arange(x.halo))[None, None, None, :, None, :]
        residue_y = torch.arange(d)[:, None, None, None, None, None]
        residue_x = torch.arange(d)[None, :, None, None, None, None]
        keys = ((residue_y * d + residue_x) * side_y + place_y) * side_x + place_x
        keys = keys.reshape(d * d * y.tiles * x.tiles, y.halo * x.halo).to(device)

    hidden = (y.offsets < 0)[:, None, :, None, :, None] | (x.offsets < 0)[None, :, None, :, None, :]
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
    mask = mask.reshape(-1, y.tile * x.tile, y.halo * x.halo)

    number = y.pattern[:, None, :, None] * len(x.offsets) + x.pattern[None, :, None, :]
    number = number.reshape(-1)
    expanded = len(mask) > 1 and number.numel() * mask[0].numel() <= EXPANDED_TABLE
    if expanded or len(mask) == 1:
        groups: list[tuple[Tensor | None, int]] = [(None, 0)]
    else:
        groups = [((number == p).nonzero()[:, 0].to(device), int(p)) for p in number.unique()]
    return Plan(
        y,
        x,
        d,
        keys,
        _one_hot(y.offsets, span, dtype).to(device),
        _one_hot(x.offsets, span, dtype).to(device),
        mask.to(device),
        number.to(device),
        groups,
        expanded,
    )
