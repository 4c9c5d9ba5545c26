"""The contracts of kinds ``features`` and ``metric``."""

import json
from collections.abc import Mapping

import torch

from registry import UserError
from stylenat.interfaces import Features, Measured, Metric
from stylenat.testing.contract import CannotCheck, noise, pictures, require, require_close, require_tensor, untouched


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
    if hasattr(features, "protocol"):
        _require_plain(features.protocol(), "protocol()")
    parts = torch.cat([features(images[:2]), features(images[2:])])
    require_close(parts, whole, 1e-4, "an image's features depend on the others in its batch")


def check_metric(metric: Metric, resolution: int = 32) -> None:
    """Compares a set of images with itself and with another; a metric of the generator, two toy generators.

    Raises:
        ContractError: no finite numbers, values that change when measured again, that are the same for any two sets,
            or accumulators that share what they collected; images edited, randomness.
        CannotCheck: its ``check()`` refuses, for want of weights for instance.
    """
    _check_ready(metric)
    require(metric.accumulator() is not metric.accumulator(), "accumulator() must return a new one each time")
    if hasattr(metric, "protocol"):
        _require_plain(metric.protocol(), "protocol()")
    needs = getattr(metric, "needs", None)
    real, other = pictures(48, resolution), 255 - pictures(48, resolution, seed=1) // 2

    def vectors(images: torch.Tensor, start: int) -> torch.Tensor:
        if needs is None:
            return images[start : start + 16].clone()
        if hasattr(needs, "along"):
            return needs.along(_ToySampler(images), start, 16)
        return needs(images[start : start + 16])

    def value(fake: torch.Tensor) -> dict[str, float]:
        accumulators = metric.accumulator(), metric.accumulator()
        # Interleaved, so that two accumulators that share anything show it.
        for start in range(0, 48, 16):
            for accumulator, images in zip(accumulators, (real, fake), strict=True):
                batch = vectors(images, start)
                with untouched(images=batch):
                    accumulator.update(batch)
        with untouched():
            found = metric.compare(*accumulators)
        named = found if isinstance(found, Mapping) else {metric.name: found}
        require(bool(named), "compare() gave no value")
        expected = tuple(getattr(metric, "names", named))
        require(set(expected) == set(named), f"names = {expected} are not the names of its values, {tuple(named)}")
        for name, one in named.items():
            plain = one.value if isinstance(one, Measured) else one
            require(isinstance(name, str), f"compare() must name its values with text; got {name!r}")
            require(isinstance(plain, float), f"compare() must return a float; got {type(plain).__name__}")
            require(abs(plain) < float("inf"), f"compare() gave {plain}")
        return {name: one.value if isinstance(one, Measured) else one for name, one in named.items()}

    same, different = value(real), value(other)
    require(value(other) == different, "the same images give another value at the second measurement")
    require(same != different, f"it gives {same} for the real images themselves and for quite different ones")


class _ToySampler:
    """A generator whose styles say how much of a fixed picture there is."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images

    def __call__(self, start: int, count: int) -> torch.Tensor:
        return self.pixels(self.styles(self.latents(start, count))).round().clamp(0, 255).to(torch.uint8)

    def latents(self, start: int, count: int) -> torch.Tensor:
        return torch.stack([noise(8, seed=i) for i in range(start, start + count)])

    def labels(self, start: int, count: int) -> None:
        """It has no classes."""

    def styles(self, latents: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return latents

    def pixels(self, styles: torch.Tensor, transform: torch.Tensor | None = None) -> torch.Tensor:
        # Whatever the transform: the worst of equivariances.
        return self._images[: len(styles)].float() * styles.sigmoid()[:, :1, None, None]


def _require_plain(protocol: object, what: str) -> None:
    try:
        plain = json.loads(json.dumps(protocol)) == protocol
    except (TypeError, ValueError):
        plain = False
    require(isinstance(protocol, dict) and plain, f"{what} must return a dictionary that JSON can hold as it is")


def _check_ready(plugin: Features | Metric) -> None:
    require(isinstance(getattr(plugin, "name", None), str) and bool(plugin.name), "it needs a name, a string")
    if hasattr(plugin, "check"):
        try:
            plugin.check()
        except UserError as error:
            raise CannotCheck(str(error)) from error
