"""Metric ``inception_score``, by torch-fidelity's formula."""

from typing import Any

import numpy as np
import torch

from plugins.features.inception import Inception
from plugins.features.published import needs_torch_fidelity
from registry import Count, UserError
from stylenat.evaluation.accumulators import Rows
from stylenat.interfaces import Features, Measured


class InceptionScore:
    """Inception score (arXiv 1606.03498): the mean over splits, their deviation as its spread. Higher is better.

    Looks at generated images alone. Uses the features that ``fid`` does, so it costs no second pass.

    Args:
        features: ``@features.inception()``; an embedding needs ``logits(features)`` to serve.
        splits: parts that the score is averaged over; seed: of their shuffling.
    """

    name = "inception_score"
    higher_is_better = True
    uses_real = False

    def __init__(self, features: Features | None = None, splits: Count = 10, seed: int = 2020) -> None:
        self.needs = features or Inception()
        if not hasattr(self.needs, "logits"):
            raise UserError(
                f"metric.inception_score needs features with logits, as inception; {self.needs.name} has none"
            )
        self.splits, self.seed = splits, seed

    def check(self) -> None:
        """Raises UserError when torch-fidelity or the extractor's weights are missing."""
        needs_torch_fidelity(f"metric.{self.name}")
        if hasattr(self.needs, "check"):
            self.needs.check()

    def check_images(self, real: int | None, generated: int) -> None:
        """Raises UserError unless every split can have an image."""
        if generated < self.splits:
            raise UserError(
                f"metric.inception_score.splits = {self.splits} needs as many generated images; there are {generated}"
            )

    def protocol(self) -> dict[str, Any]:
        return {"version": 1, "splits": self.splits, "shuffled": True, "seed": self.seed, "logits": "without bias"}

    def accumulator(self) -> Rows:
        return Rows()

    def compare(self, real: Rows, fake: Rows) -> Measured:
        from torch_fidelity.metric_isc import isc_features_to_metric

        features = fake.all()
        count = len(features)
        self.check_images(None, count)
        # As isc_features_to_metric divides them; that needs the logits of all images in float64 three times at once.
        order = torch.from_numpy(np.random.RandomState(self.seed).permutation(count))
        scores = []
        for i in range(self.splits):
            split = features[order[i * count // self.splits : (i + 1) * count // self.splits]]
            found = isc_features_to_metric(self.needs.logits(split.to(fake.device)), splits=1, shuffle=False)
            scores.append(found["inception_score_mean"])
        return Measured(float(np.mean(scores)), float(np.std(scores)) if self.splits > 1 else None)
