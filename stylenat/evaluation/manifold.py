"""Distances between the manifolds that two sets of features span, in bounded memory.

Blocks of rows are compared with all columns at once; no matrix of distances is ever whole.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from registry import UserError

BLOCK_BYTES = 2**26
"""Of one block of distances."""


def distances(rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    """[some, columns] Euclidean distances of blocks of rows [rows, dim] to columns [columns, dim], in order."""
    for part in rows.split(_height(columns)):
        yield torch.cdist(part, columns)


def radii(features: Tensor, k: int) -> Tensor:
    """[count]: of each vector, the distance to its k-th nearest other. Raises UserError for too few vectors."""
    if len(features) <= k:
        raise UserError(f"the {k}-th nearest neighbour needs more than {k} images; there are {len(features)}")
    # The nearest of all is the vector itself.
    return torch.cat([block.kthvalue(k + 1, dim=1).values for block in distances(features, features)])


def precision_and_recall(real: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    """Shares of generated images on the real manifold, and the reverse (arXiv 1904.06991, equations 1 and 2).

    Args:
        real, fake: [count, dim].
    """
    around_real, around_fake = radii(real, k), radii(fake, k)
    covered = torch.zeros(len(real), dtype=torch.bool)
    precise = 0
    for block, own in zip(distances(fake, real), around_fake.split(_height(real)), strict=True):
        precise += int((block <= around_real).any(dim=1).sum())
        covered |= (block <= own[:, None]).any(dim=0)
    return precise / len(fake), float(covered.double().mean())


def density_and_coverage(real: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    """How many real neighbourhoods hold a generated image, on average over k, and the share of them that hold any
    (arXiv 2002.09797, equations 4 and 5).

    Args:
        real, fake: [count, dim].
    """
    around = radii(real, k)
    held, nearest = 0, torch.full((len(real),), torch.inf)
    for block in distances(fake, real):
        held += int((block < around).sum())
        nearest = torch.minimum(nearest, block.min(dim=0).values)
    return held / (k * len(fake)), float((nearest < around).double().mean())


def _height(columns: Tensor) -> int:
    return max(1, BLOCK_BYTES // (4 * len(columns)))
