"""Fréchet distances: the same formula on two feature spaces, under names that nobody can mix up."""

from torch import Tensor

from plugins.features.inception import Inception
from plugins.features.random_convolution import RandomConvolution
from stylenat.evaluation.frechet import GaussianStatistics, frechet_distance
from stylenat.interfaces import Features


class _Statistics:
    """Accumulates the features' Gaussian statistics."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self.gaussian = GaussianStatistics(features.dim)

    def update(self, images: Tensor) -> None:
        self.gaussian.update(self._features(images))


class _Frechet:
    name = ""

    def __init__(self, features: Features) -> None:
        self.features = features

    def accumulator(self) -> _Statistics:
        return _Statistics(self.features)

    def compare(self, real: _Statistics, fake: _Statistics) -> float:
        return frechet_distance(*real.gaussian.mean_and_covariance(), *fake.gaussian.mean_and_covariance())


class FrechetRandomFeatures(_Frechet):
    """Fréchet distance on a fixed random network. NOT FID: comparable within one data set and resolution only.

    Args:
        features: another embedding instead of ``random_convolution``.
    """

    name = "frechet_random_features"

    def __init__(self, features: Features | None = None) -> None:
        super().__init__(features or RandomConvolution())


class FID(_Frechet):
    """Fréchet Inception distance (arXiv 1706.08500).

    Args:
        features: ``@features.inception()`` with weights bound.
    """

    name = "fid"

    def __init__(self, features: Features | None = None) -> None:
        super().__init__(features or Inception())

    def check(self) -> None:
        """Raises UserError when the extractor's weights are missing."""
        if hasattr(self.features, "check"):
            self.features.check()
