"""Baselines: metrics of images of known quality, to compare a result with."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from registry import UserError
from stylenat.evaluation.collect import Collection, collect_images
from stylenat.evaluation.evaluate import Evaluator, measured
from stylenat.evaluation.failures import lines_of
from stylenat.interfaces import Metric

BLUR_SIGMA = 2.0
"""Pixels; of the blurred images, which every metric should find clearly worse than real ones."""

MOST = 10_000
"""Real images that baselines are computed from, at most: the first ones."""


def baselines(evaluator: Evaluator) -> dict[str, dict[str, float]]:
    """Values by metric, by the name of the baseline. Metrics of the generator itself have no baselines.

    Raises:
        UserError: fewer than four real images, so that no halves can be compared.
    """
    dataset, device = evaluator.real.dataset, evaluator.device
    there = evaluator.real.count
    if there < 4:
        raise UserError(f"{dataset.describe()} has {there} images; evaluation needs at least 4")
    count = min(there, MOST)
    mean = (sum(dataset[i].double() for i in range(count)) / count).round().to(torch.uint8)
    real = evaluator.real.collection()

    def collected(image: Callable[[int], Tensor], images: int) -> Collection:
        found = Collection(evaluator.metrics)
        streams = [stream for stream in found.streams.values() if not stream.of_generator]
        collect_images(streams, image, images, device, to_the_end=False, batch=evaluator.batch)
        return found

    def compared(one: Collection, other: Collection) -> dict[str, float]:
        named: dict[str, float] = {}
        failed: list[tuple[str, str]] = []
        for metric, found in zip(evaluator.metrics, measured(evaluator.metrics, one, other), strict=True):
            if _of_generator(metric):
                continue
            if isinstance(found, str):
                failed.append((metric.name, found))
            else:
                named |= {name: value.value for name, value in found.items() if math.isfinite(value.value)}
        for line in lines_of(failed):
            evaluator.say(f"baselines: {line}")
        return named

    even, odd = (collected(lambda i, first=first: dataset[2 * i + first], count // 2) for first in (0, 1))
    return {
        "real half, other half": compared(even, odd),
        f"reals blurred, {BLUR_SIGMA:g} px": compared(real, collected(lambda i: _blurred(dataset[i]), count)),
        "the mean image": compared(real, collected(lambda i: mean, count)),
    }


def _of_generator(metric: Metric) -> bool:
    return hasattr(getattr(metric, "needs", None), "along")


def _blurred(image: Tensor) -> Tensor:
    from kornia.filters import (
        gaussian_blur2d,
    )  # Imported here, so that runs do not wait for it before their first iteration.

    # The kernel reaches three sigma if the image is large enough for the reflection.
    reach = min(int(3 * BLUR_SIGMA), image.shape[-1] - 1)
    size = (2 * reach + 1, 2 * reach + 1)
    blurred = gaussian_blur2d(image[None].float(), size, (BLUR_SIGMA, BLUR_SIGMA), border_type="reflect")[0]
    return blurred.round().clamp(0, 255).to(torch.uint8)
