"""The contracts of kinds ``features`` and ``metric``."""

import torch

from registry import UserError
from stylenat.interfaces import Features, Metric
from stylenat.testing.contract import CannotCheck, pictures, require, require_close, require_tensor, untouched


def check_features(features: Features, resolution: int = 32) -> None:
    """Embeds a batch whole and in parts.

    Raises:
        ContractError: not float32 [batch, dim], a gradient, an image's features that depend on its batch or on the
            call, inputs edited, randomness.
        CannotCheck: its ``check()`` refuses, for want of weights for instance.
    """
    _check_ready(features)
    images = pictures(6, resolution)
    with untouched(images=images):
        whole = features(images)
        again = features(images)
    require_tensor(whole, (6, features.dim), torch.float32, "its features")
    require(not whole.requires_grad, "its features must carry no gradient; use torch.no_grad()")
    require(torch.equal(whole, again), "the same images give other features at the second call")
    parts = torch.cat([features(images[:2]), features(images[2:])])
    require_close(parts, whole, 1e-4, "an image's features depend on the others in its batch")


def check_metric(metric: Metric, resolution: int = 32) -> None:
    """Compares a set of images with itself and with another.

    Raises:
        ContractError: no finite float, a value that changes when measured again, that is the same for any two
            sets, or accumulators that share what they collected; images edited, randomness.
        CannotCheck: its ``check()`` refuses, for want of weights for instance.
    """
    _check_ready(metric)
    real, other = pictures(48, resolution), 255 - pictures(48, resolution, seed=1) // 2

    def value(fake: torch.Tensor) -> float:
        accumulators = metric.accumulator(), metric.accumulator()
        require(accumulators[0] is not accumulators[1], "accumulator() must return a new one each time")
        # Interleaved, so that two accumulators that share anything show it.
        for i in range(0, 48, 16):
            for accumulator, images in zip(accumulators, (real, fake), strict=True):
                batch = images[i : i + 16].clone()
                with untouched(images=batch):
                    accumulator.update(batch)
        with untouched():
            found = metric.compare(*accumulators)
        require(isinstance(found, float), f"compare() must return a float; got {type(found).__name__}")
        require(abs(found) < float("inf"), f"compare() gave {found}")
        return found

    same, different = value(real), value(other)
    require(value(other) == different, "the same images give another value at the second measurement")
    require(same != different, f"it gives {same} for the real images themselves and for quite different ones")


def _check_ready(plugin: Features | Metric) -> None:
    require(isinstance(getattr(plugin, "name", None), str) and bool(plugin.name), "it needs a name, a string")
    if hasattr(plugin, "check"):
        try:
            plugin.check()
        except UserError as error:
            raise CannotCheck(str(error)) from error
