"""The Fréchet distance between two Gaussians (arXiv 1706.08500), from float64 statistics."""

from collections.abc import Mapping

import torch
from torch import Tensor

from registry import UserError

PENDING = 256
"""Rows that are summed at once: the outer products of few are all memory traffic."""


class GaussianStatistics:
    """Mean and covariance of feature vectors, summed in float64 on the features' device, in bounded memory."""

    shared_as = "gaussian"

    def __init__(self) -> None:
        self._count = 0
        self._sum = torch.empty(0, dtype=torch.float64)
        self._outer = torch.empty(0, 0, dtype=torch.float64)
        self._pending: list[Tensor] = []
        self._waiting = 0

    def update(self, features: Tensor) -> None:
        """features: [batch, dim]. The sums' bits depend on the rows' order and on how they are cut into batches."""
        self._pending.append(features.detach().double())
        self._waiting += len(features)
        if self._waiting >= PENDING:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        rows = torch.cat(self._pending)
        if not self._count:
            self._sum = rows.new_zeros(rows.shape[1])
            self._outer = rows.new_zeros(rows.shape[1], rows.shape[1])
        self._sum += rows.sum(dim=0)
        self._outer.addmm_(rows.t(), rows)
        self._count += len(rows)
        self._pending, self._waiting = [], 0

    @property
    def count(self) -> int:
        return self._count + self._waiting

    def mean(self) -> Tensor:
        """[dim] on the CPU."""
        self._flush()
        return (self._sum / self._count).cpu()

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """[dim] and [dim, dim], unbiased, on the features' device. Raises UserError for fewer than two rows."""
        self._flush()
        if self._count < 2:
            raise UserError(f"a covariance needs at least 2 images; there are {self._count}")
        mean = self._sum / self._count
        covariance = (self._outer - self._count * torch.outer(mean, mean)) / (self._count - 1)
        return mean, covariance

    def state_dict(self) -> dict[str, Tensor]:
        self._flush()
        return {"count": torch.tensor(self._count), "sum": self._sum.cpu(), "outer": self._outer.cpu()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError, TypeError or KeyError for tensors that are not such a state."""
        count, total, outer = int(state["count"]), state["sum"], state["outer"]
        if count < 0 or total.ndim != 1 or outer.shape != (len(total), len(total)):
            raise ValueError(f"{count} vectors with sums of shapes {list(total.shape)} and {list(outer.shape)}")
        if {total.dtype, outer.dtype} != {torch.float64}:
            raise TypeError(f"sums in {total.dtype} and {outer.dtype}, not in float64")
        self._count, self._sum, self._outer = count, total, outer


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    """|mean1 - mean2|² + tr(C1 + C2 - 2 (C1 C2)^½), by symmetric eigendecomposition: no complex parts.

    tr (C1 C2)^½ is the sum of the roots of the eigenvalues of F' C2 F, symmetric and positive semi-definite, for any F
    with F F' = C1; eigenvalues that rounding or rank deficiency (fewer images than dimensions) pushes below 0 count as
    0. There the distance is that of the degenerate Gaussians, as exact as elsewhere. It is computed on the device of
    the second Gaussian: the real set's may come from a file.
    """
    mean1, covariance1 = mean1.to(mean2.device), covariance1.to(mean2.device)
    factor = _factor(covariance1)
    product = torch.linalg.eigvalsh(factor.t() @ covariance2 @ factor).clamp_min(0).sqrt().sum()
    trace = covariance1.trace() + covariance2.trace() - 2 * product
    return float((mean1 - mean2).square().sum() + trace)


def _factor(covariance: Tensor) -> Tensor:
    """F with F F' = covariance: Cholesky's, a tenth of the work of eigenvectors, which a singular matrix has not."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()
