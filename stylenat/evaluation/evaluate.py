"""Metrics of a generator against a data set, each value with the protocol it was measured by."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends.cpu import get_cpu_capability as cpu_capability

from registry import UserError
from stylenat.evaluation.cache import StatisticsCache
from stylenat.evaluation.collect import Collection, Progress, collect_generated, described
from stylenat.evaluation.failures import attempted, lines_of, say
from stylenat.evaluation.protocol import make_protocol
from stylenat.evaluation.real import RealSet
from stylenat.evaluation.unfinished import Unfinished
from stylenat.interfaces import Dataset, Measured, Metric, Sampler
from stylenat.random_streams import BLOCK
from stylenat.ranks import known_to_all, world_size
from stylenat.reused_memory import given_back

ENOUGH = 10_000
"""Images below which distances between sets are biased enough to warn (arXiv 1911.07023)."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: value by name, NaN (null in files) for what could not be measured.
        spread: one standard deviation, intervals: 95 %, for those that know theirs.
        protocol: plain data, see ``stylenat.evaluation.protocol``.
        failed: why a value could not be measured, by name.
    """

    metrics: dict[str, float]
    spread: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    protocol: dict[str, Any]
    failed: dict[str, str] = field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        """All but the values, ready for JSON: what the hook ``metrics_evaluated`` is given beside them."""
        intervals = {name: list(bounds) for name, bounds in self.intervals.items()}
        return {"spread": dict(self.spread), "intervals": intervals, "protocol": self.protocol}

    def better(self, name: str, one: float, other: float) -> float:
        """The better of two values of a metric."""
        higher = self.protocol["metrics"][name]["better"] == "higher"
        return max(one, other) if higher else min(one, other)


class MissingWeights(UserError):
    """Raised by a metric's ``check()``: what its extractor needs is not here; the other metrics go on."""


def fitting(metrics: Sequence[Metric], generator: nn.Module, say: Callable[[str], None]) -> list[Metric]:
    """The metrics that this generator can have; ``say`` is called with a line for each that is left out.

    Asked before a training, and before weights of extractors are.

    Raises:
        UserError: there are metrics, and it can have none of them.
    """
    left, reasons = [], []
    for metric in metrics:
        try:
            if hasattr(metric, "check_generator"):
                metric.check_generator(generator)
            left.append(metric)
        except UserError as error:
            reasons.append((", ".join(getattr(metric, "names", (metric.name,))), error))
    if reasons and not left:
        raise reasons[0][1]
    for names, error in reasons:
        say(f"{names} left out: {error}")
    return left


def usable(metrics: Sequence[Metric], say: Callable[[str], None]) -> list[Metric]:
    """The metrics that can be measured here; ``say`` is called with a line for each that is left out.

    Raises:
        UserError: weights that were given are damaged or another network's; or no metric is left.
    """
    left, reasons = [], []
    for metric in metrics:
        try:
            if hasattr(metric, "check"):
                metric.check()
            left.append(metric)
        except MissingWeights as error:
            reasons.append((metric.name, error))
    if reasons and not left:
        raise reasons[0][1]
    for reason in dict.fromkeys(str(error) for _, error in reasons):
        names = ", ".join(name for name, error in reasons if str(error) == reason)
        say(f"{names} left out: {reason}")
    return left


def check_images(metrics: Sequence[Metric], dataset: Dataset, generated: int, real: int | None = None) -> None:
    """Asks each metric whether it can be measured with so many images.

    Args:
        generated: images an evaluation.
        real: of the data set, its first ones; None for all. One that cannot be opened, as in a dry run without data, is
            not counted.

    Raises:
        UserError: it cannot.
    """
    asked = [metric for metric in metrics if hasattr(metric, "check_images")]
    if asked and real is None:
        try:
            real = len(dataset)
        except UserError:
            real = None
    for metric in asked:
        metric.check_images(real, generated)


class Evaluator:
    """Metrics against one real set, whose statistics are gathered once, on first use.

    A metric that raises, or whose value or features are not finite, has the value NaN, which a line explains; the
    others go on. What is not the metric's own fault is raised: requests to stop, memory that ran out, lost processes.

    Args:
        device: where features are computed, the generator's; the CPU for ``mps``, which has no float64.
        cache: where the real set's statistics last; None for nowhere.
        real_samples: only so many of the first real images; None for all.
        say: called with a line for what could not be measured; by default process 0 prints it on stderr.
        batch: images that are embedded at once.
        kept_as: what the generated images and the vectors depend on beside the weights, the sampler and the data, plain
            values: then a pass that is interrupted goes on with the vectors that it kept in the cache. None: it
            begins again.
    """

    def __init__(
        self,
        dataset: Dataset,
        metrics: Sequence[Metric],
        device: torch.device | str = "cpu",
        cache: StatisticsCache | None = None,
        real_samples: int | None = None,
        say: Callable[[str], None] = say,
        batch: int = BLOCK,
        kept_as: Mapping[str, Any] | None = None,
    ) -> None:
        self.metrics, self.device, self.say, self.batch = metrics, torch.device(device), say, batch
        self._cache = None if cache is None or kept_as is None else cache.unfinished()
        self._kept_as = kept_as
        if self.device.type == "mps":
            self.device = torch.device("cpu")
        self.real = RealSet(dataset, metrics, self.device, cache, real_samples, batch)
        self._names: dict[int, tuple[str, ...]] = {}

    def evaluate(
        self,
        generate: Sampler | Callable[[int, int], Tensor],
        num_samples: int,
        progress: Progress | None = None,
        real_progress: Progress | None = None,
    ) -> Evaluation:
        """Every metric's values, the same in every process.

        Args:
            generate: (start, count) to uint8 images of those sample indices; metrics of the generator itself need a
                ``Sampler``. Images that are not finite (``NotFinite``) have no metrics.

        Raises:
            UserError: fewer real images than asked for, or two metrics that give one name.
        """
        if not self.metrics:
            return Evaluation({}, {}, {}, make_protocol({}, {}, {}, {}))
        generated = generated_protocol(generate, num_samples)
        of_real, of_generated = self._unfinished(generate, generated)
        real = self.real.collection(real_progress, of_real)
        fake = collect_generated(self.metrics, generate, num_samples, self.device, progress, self.batch, of_generated)
        found = self._compared(real, fake, generated)
        for unfinished, collection in ((of_real, real), (of_generated, fake)):
            if unfinished is not None:
                unfinished.remove(collection.streams)
        return found

    def _unfinished(self, generate: Any, generated: Mapping[str, Any]) -> tuple[Unfinished | None, Unfinished | None]:
        """Of the real and of the generated images; None where nothing is kept, or where it is not known of what."""
        if self._cache is None:
            return None, None
        computed = {
            "batch": self.batch, "processes": world_size(), "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_capability(),
            "torch": torch.__version__, "as": self._kept_as,
        }  # fmt: skip
        of_real = of_generated = None
        if (real := self.real.unread()) is not None:
            of_real = Unfinished(self._cache, {"real": real, **computed}, images=False)
        if hasattr(generate, "generator"):
            key = {"generated": generated, "weights": digest_of(generate.generator), **computed}
            of_generated = Unfinished(self._cache, key, images=True)
        return of_real, of_generated

    @torch.no_grad()
    def embed(self, images: Tensor) -> None:
        """Embeds uint8 [count, 3, height, width] at once for every metric that needs it, to see what that takes."""
        for metric in self.metrics:
            if callable(needs := getattr(metric, "needs", None)):
                needs(images.to(self.device))

    def _compared(self, real: Collection, fake: Collection, generated: Mapping[str, Any]) -> Evaluation:
        metrics, spread, intervals, protocols, failed = {}, {}, {}, {}, {}
        for number, (metric, found) in enumerate(zip(self.metrics, measured(self.metrics, real, fake), strict=True)):
            own, problem = attempted(lambda metric=metric: metric_protocol(metric))
            if problem is not None:
                found = problem
            if isinstance(found, str):
                names = self._names.get(number, getattr(metric, "names", (metric.name,)))
                failed.update(dict.fromkeys(names, found))
                found = dict.fromkeys(names, Measured(math.nan))
            self._names[number] = tuple(found)
            for name, value in found.items():
                if name in metrics:
                    raise UserError(f"two metrics give a value called {name!r}; keep one of them")
                metrics[name], protocols[name] = value.value, own or _bare_protocol(metric)
                if not math.isfinite(value.value):
                    failed.setdefault(name, "its value is not finite")
                    metrics[name] = math.nan
                    continue
                if value.spread is not None:
                    spread[name] = value.spread
                if value.interval is not None:
                    intervals[name] = value.interval
        for line in lines_of(list(failed.items())):
            self.say(line)
        machine = {"device": self.device.type, "processes": world_size(), "threads": torch.get_num_threads()}
        protocol = make_protocol(protocols, generated, self.real.protocol(), machine)
        return Evaluation(metrics, spread, intervals, protocol, failed)


def digest_of(network: nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers with their names."""
    whole = hashlib.sha256()
    for name, value in network.state_dict().items():
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        whole.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return whole.hexdigest()


def measured(metrics: Sequence[Metric], real: Collection, fake: Collection) -> list[dict[str, Measured] | str]:
    """Of each metric its values by name, or why there are none; what fails in one process fails in all."""
    attempts = []
    with given_back():  # A metric's arrays are of other sizes than the networks' tensors.
        for number, metric in enumerate(metrics):
            problem = fake.failure(number)
            if problem is None and getattr(metric, "uses_real", True):
                problem = real.failure(number)
            if problem is None:
                attempts.append(attempted(lambda n=number, metric=metric: values(metric, real[n], fake[n])))
            else:
                attempts.append((None, problem))
    problems = known_to_all([problem for _, problem in attempts])
    found = [values for values, _ in attempts]
    return [one or {} if problem is None else problem for one, problem in zip(found, problems, strict=True)]


def values(metric: Metric, real: Any, fake: Any) -> dict[str, Measured]:
    """A metric's values by name, whatever form it gives them in."""
    found = metric.compare(real, fake)
    named = found if isinstance(found, Mapping) else {metric.name: found}
    return {name: value if isinstance(value, Measured) else Measured(float(value)) for name, value in named.items()}


def metric_protocol(metric: Metric) -> dict[str, Any]:
    """What defines a metric's values: all of it must agree where two are to be ranked."""
    return {
        "name": metric.name,
        "better": "higher" if getattr(metric, "higher_is_better", False) else "lower",
        "uses_real": getattr(metric, "uses_real", True),
        "parameters": dict(metric.protocol()) if hasattr(metric, "protocol") else {},
        "extractor": described(getattr(metric, "needs", None)),
    }


def _bare_protocol(metric: Metric) -> dict[str, Any]:
    """Of a metric whose own protocol raises, for a value that could not be measured either."""
    return {"name": metric.name, "better": "lower", "uses_real": True, "parameters": {}, "extractor": None}


def generated_protocol(generate: Any, count: int) -> dict[str, Any]:
    """Of the generated images: what the sampler says of them, and how many."""
    return {"count": count, **(generate.protocol() if hasattr(generate, "protocol") else {})}


def warnings_for(num_samples: int) -> list[str]:
    """What a reader of the results should know."""
    if num_samples >= ENOUGH:
        return []
    return [
        f"{num_samples} generated images are few: below {ENOUGH} distances are too large, by an amount that depends on "
        "the generator (arXiv 1911.07023); compare them at equal counts only"
    ]
