"""Fréchet distances: the same formula on different feature spaces, under distinct names."""

from typing import Any

import torch
from torch import Tensor

from plugins.features.random_convolution import RandomConvolution
from registry import CountOrZero
from stylenat.evaluation.accumulators import Rows
from stylenat.evaluation.frechet import GaussianStatistics, frechet_distance
from stylenat.interfaces import Features, Measured


class Frechet:
    """Fréchet distance between the Gaussians of two sets' features.

    Args:
        name: of the value; features: what is embedded in; bootstrap: resamplings for the interval, 0 for none.
    """

    def __init__(self, name: str, features: Features, bootstrap: int = 0, seed: int = 0) -> None:
        self.name, self.needs = name, features
        self.bootstrap, self.seed = bootstrap, seed

    def check(self) -> None:
        """Raises UserError when the extractor's weights are missing."""
        if hasattr(self.needs, "check"):
            self.needs.check()

    def protocol(self) -> dict[str, Any]:
        return {"version": 1, "covariance": "unbiased"}

    def accumulator(self) -> GaussianStatistics | Rows:
        return Rows() if self.bootstrap else GaussianStatistics()

    def compare(self, real: GaussianStatistics | Rows, fake: GaussianStatistics | Rows) -> Measured:
        device = fake.device if isinstance(fake, Rows) else None
        reference = _gaussian(real, device).mean_and_covariance()
        value = frechet_distance(*reference, *_gaussian(fake, device).mean_and_covariance())
        if self.bootstrap < 2:  # One resampling has no spread.
            return Measured(value)
        spread = self._spread(reference, fake.all().to(fake.device))
        return Measured(value, spread, (value - 1.96 * spread, value + 1.96 * spread))

    def _spread(self, reference: tuple[Tensor, Tensor], rows: Tensor) -> float:
        """Standard deviation over resamplings, with replacement, of the generated images.

        Their mean is not used: it carries the bias of few images twice. The real set counts as given.
        """
        random = torch.Generator().manual_seed(self.seed)
        found = []
        for _ in range(self.bootstrap):
            drawn = GaussianStatistics()
            for part in torch.randint(len(rows), (len(rows),), generator=random).to(rows.device).split(1024):
                drawn.update(rows[part])
            found.append(frechet_distance(*reference, *drawn.mean_and_covariance()))
        return float(torch.tensor(found, dtype=torch.float64).std())


def _gaussian(collected: GaussianStatistics | Rows, device: torch.device | None) -> GaussianStatistics:
    if isinstance(collected, GaussianStatistics):
        return collected
    statistics = GaussianStatistics()
    for part in collected.all().to(device).split(16):  # As it is streamed without a bootstrap, to the same bits.
        statistics.update(part)
    return statistics


class FrechetRandomFeatures(Frechet):
    """Fréchet distance on a fixed random network. NOT FID: comparable within one data set and resolution only.

    Args:
        features: another embedding instead of ``random_convolution``; bootstrap, seed: as of ``fid``.
    """

    def __init__(self, features: Features | None = None, bootstrap: CountOrZero = 0, seed: int = 0) -> None:
        super().__init__("frechet_random_features", features or RandomConvolution(), bootstrap, seed)


class FID(Frechet):
    """Fréchet Inception distance (arXiv 1706.08500). On other features than Inception's, ``fid_NAME``.

    Args:
        features: ``@features.inception()``, the default, or another embedding.
        bootstrap: resamplings of the generated images for the interval and the spread, 2 at least. Each costs about
            what the distance itself does.
        seed: of the resamplings.
    """

    def __init__(self, features: Features | None = None, bootstrap: CountOrZero = 0, seed: int = 0) -> None:
        from plugins.features.inception import Inception

        features = features or Inception()
        super().__init__(named("fid", features, "inception"), features, bootstrap, seed)


class FDDinov2(Frechet):
    """Fréchet distance on DINOv2's features (arXiv 2306.04675). On other features, ``fd_NAME``.

    Args:
        features: ``@features.dinov2()``, the default; bootstrap, seed: as of ``fid``.
    """

    def __init__(self, features: Features | None = None, bootstrap: CountOrZero = 0, seed: int = 0) -> None:
        from plugins.features.dinov2 import Dinov2

        features = features or Dinov2()
        super().__init__("fd_dinov2" if features.name == "dinov2" else f"fd_{features.name}", features, bootstrap, seed)


def named(metric: str, features: Features, published: str) -> str:
    """The metric's name on the features that the field means by it; with the features' name on any other."""
    return metric if features.name == published else f"{metric}_{features.name}"
