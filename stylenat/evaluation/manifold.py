"""Which vectors lie in the neighbourhoods of others: what precision, recall, density and coverage count.

The results are those of float64 distances between all pairs, each from the differences of its coordinates, and no
matrix of distances is ever held as a whole. Almost all pairs are decided by a matrix product in float64, whose error is
bounded (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); only what that bound leaves open is
computed from differences. The product alone loses what is small against the vectors: tight clusters, duplicates.
Everything is computed on the vectors' device.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from registry import UserError

TILE = 1024
"""Rows and columns of distances that are computed at once: 8 MiB in float64."""
GATHERED_BYTES = 2**25
SPARE = 4
"""Neighbours beyond the k-th whose distances are computed as well, so that rounding cannot hide the k-th."""


@dataclass(frozen=True)
class Tile:
    """Some rows against some columns.

    Attributes:
        rows, columns: which; x [rows, dim], y [columns, dim]: their vectors, float64.
        least: [rows, columns], a lower bound of each squared distance; least + ``margin``, a number, is an upper bound.
    """

    rows: slice
    columns: slice
    x: Tensor
    y: Tensor
    least: Tensor
    margin: Tensor

    def within(self, radius: Tensor, strictly: bool = False) -> Tensor:
        """bool [rows, columns]: which distances are at most (``strictly``: less than) a radius that broadcasts."""
        bound = radius.square()
        inside, possibly = self.least < bound - self.margin, self.least <= bound
        if not torch.equal(inside, possibly):
            doubt = inside ^ possibly
            rows, columns = doubt.any(dim=1).nonzero(), doubt.any(dim=0).nonzero()[:, 0]
            exact = _exact(self.x[rows[:, 0]], self.y[columns])
            limit = radius.expand(len(self.x), len(self.y))[rows, columns]
            inside[rows, columns] = exact < limit if strictly else exact <= limit
        return inside


def tiles(rows: Tensor, columns: Tensor, upper: bool = False) -> Iterator[Tile]:
    """All pairs of [rows, dim] and [columns, dim]; ``upper``: without the tiles below the diagonal.

    Raises:
        UserError: a vector is not finite.
    """
    # Around their mean, products do not lose what is small against it.
    centre = columns.mean(dim=0, dtype=torch.float64)
    # Of |x|² + |y|² - 2xy, of the distance from differences, and of the radius that is a root squared, together.
    error = 2 * (rows.shape[1] + 8) * torch.finfo(torch.float64).eps
    xx, yy = _squares(rows, centre), _squares(columns, centre)
    if not (xx.sum() + yy.sum()).isfinite():
        raise UserError("some features are not finite, so they have no distances")
    for i in range(0, len(rows), TILE):
        x, x2 = rows[i : i + TILE].double(), xx[i : i + TILE]
        left = torch.cat([2 * (centre - x), (1 - error) * x2, torch.ones_like(x2)], dim=1)
        for j in range(i if upper else 0, len(columns), TILE):
            y, y2 = columns[j : j + TILE].double(), yy[j : j + TILE]
            right = torch.cat([y - centre, torch.ones_like(y2), (1 - error) * y2], dim=1)
            margin = 2 * error * (x2.max() + y2.max())
            yield Tile(slice(i, i + len(x)), slice(j, j + len(y)), x, y, left @ right.T, margin)


def _squares(vectors: Tensor, centre: Tensor) -> Tensor:
    """float64 [count, 1]: the squared lengths of vectors [count, dim] from the centre."""
    return torch.cat([(part.double() - centre).square().sum(dim=1, keepdim=True) for part in vectors.split(TILE)])


def radii(features: Tensor, k: int) -> Tensor:
    """float64 [count]: of each vector [count, dim], the distance to its k-th nearest other.

    Raises:
        UserError: too few vectors, or one that is not finite.
    """
    count = len(features)
    if count <= k:
        raise UserError(f"the {k}-th nearest neighbour needs more than {k} images; there are {count}")
    width = min(k + SPARE, count - 1)
    least = torch.full((count, width), torch.inf, dtype=torch.float64, device=features.device)
    places = torch.zeros(count, width, dtype=torch.int64, device=features.device)

    def keep(rows: slice, bounds: Tensor, columns: slice) -> None:
        """Merges the smallest of bounds [rows, columns] into the candidates."""
        smallest, found = bounds.topk(min(width, bounds.shape[1]), largest=False)
        smallest, found = torch.cat([least[rows], smallest], 1), torch.cat([places[rows], found + columns.start], 1)
        least[rows], order = smallest.topk(width, largest=False)
        places[rows] = found.gather(1, order)

    for tile in tiles(features, features, upper=True):
        if tile.rows == tile.columns:
            tile.least.fill_diagonal_(torch.inf)  # No vector is its own neighbour.
        else:
            keep(tile.columns, tile.least.T.contiguous(), tile.rows)
        keep(tile.rows, tile.least, tile.columns)

    parts = torch.arange(count, device=features.device).split(max(1, GATHERED_BYTES // (8 * width * features.shape[1])))
    exact = torch.cat([_direct(features[i, None].double(), features[places[i]].double())[:, 0] for i in parts])
    found = exact.kthvalue(k, dim=1).values
    # A vector that is no candidate is at least as far as the last candidate's bound.
    if width < count - 1:
        for rows in (found.square() > least[:, -1]).nonzero()[:, 0].split(TILE):
            found[rows] = _kth_of_all(features, rows, k)
    return found


def _kth_of_all(features: Tensor, rows: Tensor, k: int) -> Tensor:
    """[rows]: as ``radii``, of the vectors number ``rows``, from differences to all vectors."""
    x = features[rows].double()
    nearest = x.new_empty(len(rows), 0)
    for j in range(0, len(features), TILE):
        exact = _exact(x, features[j : j + TILE].double())
        own = (rows >= j) & (rows < j + TILE)
        exact[own.nonzero()[:, 0], rows[own] - j] = torch.inf
        nearest = torch.cat([nearest, exact], dim=1)
        nearest = nearest.topk(min(k, nearest.shape[1]), largest=False).values
    return nearest.amax(dim=1)


def _exact(x: Tensor, y: Tensor) -> Tensor:
    """float64 [rows, columns] from differences. Equal vectors, as a collapsed generator's, are compared once."""
    one, of_rows = x.unique(dim=0, return_inverse=True)
    other, of_columns = y.unique(dim=0, return_inverse=True)
    return _direct(one, other)[of_rows][:, of_columns]


def _direct(x: Tensor, y: Tensor) -> Tensor:
    """A pair's distance has the same bits wherever the pair stands, so that ties are ties."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def precision_and_recall(real: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    """Shares of generated images on the real manifold, and the reverse (arXiv 1904.06991, equations 1 and 2).

    Args:
        real, fake: [count, dim] on one device.

    Raises:
        UserError: too few vectors, or one that is not finite.
    """
    around_real, around_fake = radii(real, k), radii(fake, k)
    precise, covered = (around.new_zeros(len(around), dtype=torch.bool) for around in (around_fake, around_real))
    for tile in tiles(fake, real):
        precise[tile.rows] |= _any(tile.within(around_real[tile.columns]), 1)
        covered[tile.columns] |= _any(tile.within(around_fake[tile.rows, None]), 0)
    return float(precise.double().mean()), float(covered.double().mean())


def density_and_coverage(real: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    """How many real neighbourhoods hold a generated image, on average over k, and the share of them that hold any
    (arXiv 2002.09797, equations 4 and 5; their border is outside, as in the authors' code).

    Args:
        real, fake: [count, dim] on one device.

    Raises:
        UserError: too few vectors, or one that is not finite.
    """
    around = radii(real, k)
    held = torch.zeros((), dtype=torch.int64, device=around.device)
    covered = around.new_zeros(len(real), dtype=torch.bool)
    for tile in tiles(fake, real):
        inside = tile.within(around[tile.columns], strictly=True)
        held += inside.count_nonzero()
        covered[tile.columns] |= _any(inside, 0)
    return int(held) / (k * len(fake)), float(covered.double().mean())


def _any(marks: Tensor, dim: int) -> Tensor:
    """``marks.any(dim)`` of bools, which takes PyTorch thirty times as long."""
    return marks.view(torch.uint8).amax(dim).bool()
