"""Metrics ``precision_recall`` and ``density_coverage``: quality and variety apart, by nearest neighbours."""

from typing import Any

from plugins.metrics.frechet import named
from registry import Count, UserError
from stylenat.evaluation.accumulators import Rows, both
from stylenat.evaluation.manifold import density_and_coverage, precision_and_recall
from stylenat.interfaces import Features


class _Neighbours:
    higher_is_better = True
    selector: str

    def __init__(self, name: str, values: tuple[str, str], features: Features | None, k: int) -> None:
        from plugins.features.inception import Inception

        self.needs = features or Inception()
        self.name, self.k = named(name, self.needs, "inception"), k
        self.names = tuple(named(value, self.needs, "inception") for value in values)

    def check(self) -> None:
        """Raises UserError when the extractor's weights are missing."""
        if hasattr(self.needs, "check"):
            self.needs.check()

    def check_images(self, real: int | None, generated: int) -> None:
        """Raises UserError unless every image can have ``k`` neighbours in its set."""
        for count, what in ((real, "real"), (generated, "generated")):
            if count is not None and count <= self.k:
                raise UserError(
                    f"{self.selector}.k = {self.k} needs more than {self.k} images of each set; there are {count} "
                    f"{what} ones: bind a smaller k, or more images"
                )

    def protocol(self) -> dict[str, Any]:
        return {"version": 2, "k": self.k}  # 1: distances were rounded to float32.

    def accumulator(self) -> Rows:
        return Rows()


class PrecisionRecall(_Neighbours):
    """Improved precision and recall (arXiv 1904.06991): ``precision``, ``recall``. Higher is better.

    Args:
        features: ``@features.inception()``, the default; the paper uses VGG16. On other features than Inception's the
            values are called ``precision_NAME``, ``recall_NAME``.
        k: neighbours.
    """

    selector = "metric.precision_recall"

    def __init__(self, features: Features | None = None, k: Count = 3) -> None:
        super().__init__("precision_recall", ("precision", "recall"), features, k)

    def compare(self, real: Rows, fake: Rows) -> dict[str, float]:
        return dict(zip(self.names, precision_and_recall(*both(real, fake), self.k), strict=True))


class DensityCoverage(_Neighbours):
    """Density and coverage (arXiv 2002.09797): ``density``, ``coverage``. Higher is better; density may pass 1.

    Args:
        features: as of ``precision_recall``; k: neighbours.
    """

    selector = "metric.density_coverage"

    def __init__(self, features: Features | None = None, k: Count = 5) -> None:
        super().__init__("density_coverage", ("density", "coverage"), features, k)

    def compare(self, real: Rows, fake: Rows) -> dict[str, float]:
        return dict(zip(self.names, density_and_coverage(*both(real, fake), self.k), strict=True))
