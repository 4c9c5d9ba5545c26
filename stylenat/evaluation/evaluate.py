"""Metrics of a generator against a data set, in one pass over generated images, beside their yardsticks."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from registry import UserError
from stylenat.interfaces import Accumulator, Dataset, Metric

Generate = Callable[[int, int], Tensor]
BLUR_SIGMA = 2.0
"""Pixels; of the yardstick that a metric should find clearly worse than real images."""


class RealStatistics:
    """What the metrics need of the real set, gathered on first use."""

    def __init__(self, dataset: Dataset, metrics: Sequence[Metric], batch_size: int) -> None:
        self._dataset, self._metrics, self._batch_size = dataset, metrics, batch_size
        self._accumulators: list[Accumulator] | None = None

    def accumulators(self) -> list[Accumulator]:
        """One for each metric."""
        if self._accumulators is None:
            batches = real_batches(self._dataset, range(len(self._dataset)), self._batch_size)
            self._accumulators = accumulate(self._metrics, batches)
        return self._accumulators


def real_batches(dataset: Dataset, indices: Sequence[int], batch_size: int) -> Iterator[Tensor]:
    """uint8 batches of the images with these indices, in order."""
    for start in range(0, len(indices), batch_size):
        yield torch.stack([dataset[i] for i in indices[start : start + batch_size]])


def accumulate(metrics: Sequence[Metric], batches: Iterator[Tensor]) -> list[Accumulator]:
    """One accumulator for each metric, fed every batch once."""
    accumulators = [metric.accumulator() for metric in metrics]
    for images in batches:
        for accumulator in accumulators:
            accumulator.update(images)
    return accumulators


def compare(metrics: Sequence[Metric], real: list[Accumulator], fake: list[Accumulator]) -> dict[str, float]:
    """Each metric's value by its name."""
    return {m.name: m.compare(r, f) for m, r, f in zip(metrics, real, fake, strict=True)}


def evaluate(
    generate: Generate,
    dataset: Dataset,
    metrics: Sequence[Metric],
    num_samples: int,
    batch_size: int,
    real_statistics: RealStatistics | None = None,
) -> dict[str, float]:
    """Every metric's value by its name.

    Args:
        generate: (start, count) to uint8 images of those sample indices.
        real_statistics: of the same data set and metrics, when they are kept from an earlier call.
    """
    if not metrics:
        return {}
    real = (real_statistics or RealStatistics(dataset, metrics, batch_size)).accumulators()
    starts = range(0, num_samples, batch_size)
    fakes = (generate(start, min(batch_size, num_samples - start)) for start in starts)
    return compare(metrics, real, accumulate(metrics, fakes))


def yardsticks(
    dataset: Dataset, metrics: Sequence[Metric], batch_size: int, real_statistics: RealStatistics
) -> dict[str, dict[str, float]]:
    """What the metrics say of images whose quality one knows, by name: the scale on which to read a result.

    Raises:
        UserError: fewer than four real images, of which no halves can be compared.
    """
    count = len(dataset)
    if count < 4:
        raise UserError(f"{dataset.describe()} has {count} images; evaluation needs at least 4")

    def reals(indices: Sequence[int]) -> Iterator[Tensor]:
        return real_batches(dataset, indices, batch_size)

    real = real_statistics.accumulators()
    halves = [accumulate(metrics, reals(range(start, count, 2))) for start in (0, 1)]
    blurred = accumulate(metrics, (_blurred(images) for images in reals(range(count))))
    total = sum(images.double().sum(dim=0) for images in reals(range(count)))
    mean = (total / count).round().to(torch.uint8)
    constant = accumulate(metrics, (mean.expand(len(images), -1, -1, -1) for images in reals(range(count))))
    return {
        "real half, other half": compare(metrics, halves[0], halves[1]),
        f"reals blurred, {BLUR_SIGMA:g} px": compare(metrics, real, blurred),
        "the mean image": compare(metrics, real, constant),
    }


def _blurred(images: Tensor) -> Tensor:
    from kornia.filters import gaussian_blur2d  # Here, or every run would wait for it before its first iteration.

    # The kernel reaches three sigma where the image is large enough to reflect it.
    reach = min(int(3 * BLUR_SIGMA), images.shape[-1] - 1)
    size = (2 * reach + 1, 2 * reach + 1)
    blurred = gaussian_blur2d(images.float(), size, (BLUR_SIGMA, BLUR_SIGMA), border_type="reflect")
    return blurred.round().clamp(0, 255).to(torch.uint8)
