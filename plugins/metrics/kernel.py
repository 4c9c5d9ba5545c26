"""Metric ``kid``: the kernel Inception distance, by torch-fidelity's estimator."""

from typing import Any

import numpy as np

from plugins.features.published import needs_torch_fidelity
from plugins.metrics.frechet import named
from registry import Count, UserError
from stylenat.evaluation.accumulators import Rows
from stylenat.interfaces import Features, Measured


class KID:
    """Kernel Inception distance (arXiv 1801.01401): the squared maximum mean discrepancy with the kernel
    (x·y / dim + 1)³, unbiased, hence below 0 for sets that are alike. On other features than Inception's, ``kid_NAME``.

    The mean over random subsets, with their standard deviation as its spread. There is none where the subsets cannot
    differ: a single one, or each holding all images of both sets.

    Args:
        features: ``@features.inception()``, the default, or another embedding.
        subsets: how many; subset_size: images of each set in one, or all there are where there are fewer.
        seed: of the subsets.
    """

    def __init__(
        self, features: Features | None = None, subsets: Count = 100, subset_size: Count = 1000, seed: int = 2020
    ) -> None:
        from plugins.features.inception import Inception

        self.needs = features or Inception()
        self.name = named("kid", self.needs, "inception")
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    def check(self) -> None:
        """Raises UserError when torch-fidelity or the extractor's weights are missing."""
        needs_torch_fidelity(f"metric.{self.name}")
        if hasattr(self.needs, "check"):
            self.needs.check()

    def protocol(self) -> dict[str, Any]:
        return {
            "version": 1, "kernel": "polynomial, degree 3, gamma 1 / dim, coefficient 1", "estimator": "unbiased",
            "subsets": self.subsets, "subset_size": self.subset_size, "seed": self.seed,
        }  # fmt: skip

    def accumulator(self) -> Rows:
        return Rows()

    def compare(self, real: Rows, fake: Rows) -> Measured:
        from torch_fidelity.metric_kid import kernel_mmd

        generated, reals = fake.all().numpy(), real.all().numpy()
        size = min(self.subset_size, len(generated), len(reals))
        if size < 2:
            raise UserError(f"{self.name} needs at least 2 images of each set")
        # As kid_features_to_metric draws them; that needs all features in float64 at once.
        random = np.random.RandomState(self.seed)
        distances = []
        for _ in range(self.subsets):
            drawn = [rows[random.choice(len(rows), size, replace=False)] for rows in (generated, reals)]
            # In float64: the kernel's sums cancel to a thousandth of themselves.
            distances.append(kernel_mmd(*(rows.astype(np.float64) for rows in drawn)))
        differ = self.subsets > 1 and size < max(len(generated), len(reals))
        return Measured(float(np.mean(distances)), float(np.std(distances)) if differ else None)
