"""The Fréchet distance between two Gaussians (arXiv 1706.08500), from float64 statistics."""

import torch
from torch import Tensor


class GaussianStatistics:
    """Mean and covariance of feature vectors, summed in float64 in bounded memory."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self._sum = torch.zeros(dim, dtype=torch.float64)
        self._outer = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """features: [batch, dim]."""
        features = features.detach().cpu().double()
        self.count += len(features)
        self._sum += features.sum(dim=0)
        self._outer += features.t() @ features

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """[dim] and [dim, dim], unbiased."""
        mean = self._sum / self.count
        covariance = (self._outer - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return mean, covariance


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    """|mean1 - mean2|² + tr(C1 + C2 - 2 (C1 C2)^½), by symmetric eigendecomposition: no complex parts.

    tr (C1 C2)^½ is the sum of the roots of the eigenvalues of C1^½ C2 C1^½, which is symmetric and positive
    semi-definite; eigenvalues that rounding or rank deficiency pushes below 0 count as 0.
    """
    values, vectors = torch.linalg.eigh(covariance1)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.t()
    product = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp_min(0).sqrt().sum()
    trace = covariance1.trace() + covariance2.trace() - 2 * product
    return float((mean1 - mean2).square().sum() + trace)
