"""Baselines: metrics of images of known quality, to compare a result with."""

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from registry import UserError
from stylenat.evaluation.collect import Collection, collect_images
from stylenat.evaluation.evaluate import Evaluator, measured, metric_protocol
from stylenat.evaluation.failures import attempted, lines_of
from stylenat.interfaces import Metric
from stylenat.ranks import any_of_ranks, rank

BLUR_SIGMA = 2.0
"""Pixels; of the blurred images, which every metric should find clearly worse than real ones."""

MOST = 10_000
"""Real images that baselines are computed from, at most: the first ones."""

HALVES, BLURRED, MEAN = "real half, other half", f"reals blurred, {BLUR_SIGMA:g} px", "the mean image"
VERSION = 1
"""Of what the baselines are; values of other versions are not found again."""

Values = dict[str, dict[str, float]]


def baselines(evaluator: Evaluator) -> Values:
    """Values by metric, by the name of the baseline. Metrics of the generator itself have no baselines.

    They are kept with the statistics of the real set: runs with equal images and metrics compute them once, also when
    they ask at the same time.

    Raises:
        UserError: fewer than four real images, so that no halves can be compared.
    """
    real = evaluator.real
    if real.count < 4:
        raise UserError(f"{real.dataset.describe()} has {real.count} images; evaluation needs at least 4")
    if (found := _kept(evaluator)) is not None:
        return found
    of_all = real.collection()  # Before: it takes its turn for itself.
    with real.in_turn():
        if (found := _kept(evaluator)) is not None:
            return found
        values, failed = _computed(evaluator, of_all)
        for line in lines_of(list(dict.fromkeys(failed))):
            evaluator.say(f"baselines: {line}")
        if (key := _key(evaluator)) is not None and real.cache is not None and not failed and rank() == 0:
            names = [[baseline, name] for baseline, named in values.items() for name in named]
            numbers = [value for named in values.values() for value in named.values()]
            real.cache.save(key, {"values": torch.tensor(numbers, dtype=torch.float64)}, {"names": names})
    return values


def _key(evaluator: Evaluator) -> dict[str, Any] | None:
    """What the values depend on; None where a part of it is not known."""
    metrics = [metric for metric in evaluator.metrics if not _of_generator(metric)]
    parts = [part for metric in metrics for part in (metric, getattr(metric, "needs", None)) if part is not None]
    if not all(hasattr(part, "protocol") for part in parts):
        return None
    protocols, _ = attempted(lambda: json.dumps([metric_protocol(metric) for metric in metrics]))
    return protocols and {"baselines": VERSION, "most": MOST, "metrics": json.loads(protocols), **evaluator.real.key()}


def _kept(evaluator: Evaluator) -> Values | None:
    """All values, where every process finds them."""
    key, cache = _key(evaluator), evaluator.real.cache
    entry = None if key is None or cache is None else cache.load(key, 2**20, _must_be_values)
    if any_of_ranks(entry is None) or entry is None:
        return None
    tensors, notes = entry
    found: Values = {baseline: {} for baseline in (HALVES, BLURRED, MEAN)}
    for (baseline, name), value in zip(notes["names"], tensors["values"].tolist(), strict=True):
        found[baseline][name] = value
    return found


def _must_be_values(tensors: dict[str, Tensor], notes: Any) -> None:
    """Raises KeyError, TypeError or ValueError for what is no entry of ours."""
    values, names = tensors["values"], notes["names"]
    if values.dtype != torch.float64 or values.shape != (len(names),) or not values.isfinite().all():
        raise ValueError("they are not finite numbers, one for each name")
    for baseline, name in names:
        if baseline not in (HALVES, BLURRED, MEAN) or not isinstance(name, str):
            raise ValueError("a name is not one of a baseline and a metric")


def _computed(evaluator: Evaluator, real: Collection) -> tuple[Values, list[tuple[str, str]]]:
    """The values, ``real`` being all images; and (metric, reason) of what has none."""
    dataset, device = evaluator.real.dataset, evaluator.device
    count = min(evaluator.real.count, MOST)
    mean = (sum(dataset[i].double() for i in range(count)) / count).round().to(torch.uint8)
    failed: list[tuple[str, str]] = []

    def collected(image: Callable[[int], Tensor], images: int) -> Collection:
        found = Collection(evaluator.metrics)
        streams = [stream for stream in found.streams.values() if not stream.of_generator]
        collect_images(streams, image, images, device, to_the_end=False, batch=evaluator.batch)
        return found

    def compared(one: Collection, other: Collection) -> dict[str, float]:
        named: dict[str, float] = {}
        for metric, found in zip(evaluator.metrics, measured(evaluator.metrics, one, other), strict=True):
            if _of_generator(metric):
                continue
            if isinstance(found, str):
                failed.append((metric.name, found))
            else:
                named |= {name: value.value for name, value in found.items() if math.isfinite(value.value)}
        return named

    even, odd = (collected(lambda i, first=first: dataset[2 * i + first], count // 2) for first in (0, 1))
    values = {
        HALVES: compared(even, odd),
        BLURRED: compared(real, collected(lambda i: _blurred(dataset[i]), count)),
        MEAN: compared(real, collected(lambda i: mean, count)),
    }
    return values, failed


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
