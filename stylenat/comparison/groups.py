"""Variants as groups of runs: their values over seeds, and the point of training that is compared."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from stylenat.comparison.runs import RunResults
from stylenat.evaluation.protocol import Result, compared


@dataclass(frozen=True)
class Spread:
    """A number over seeds: mean, sample standard deviation (None of one value), the values."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if self.deviation is None:
            return f"{self.mean:.4g}"
        return f"{self.mean:.4g} ± {self.deviation:{'.0f' if self.deviation >= 100 else '.2g'}}"


@dataclass(frozen=True)
class At:
    """A common point of training: ``number`` of ``iterations``, or of real ``images`` seen."""

    number: int
    unit: str

    def __str__(self) -> str:
        return (
            f"{self.unit.removesuffix('s')} {self.number:,}" if self.unit == "iterations" else f"{self.number:,} images"
        )

    def reached(self, result: Result) -> int | None:
        return result.step if self.unit == "iterations" else result.images


@dataclass(frozen=True)
class Group:
    """The runs of one variant, which differ in their seeds alone."""

    name: str
    runs: tuple[RunResults, ...]

    @property
    def settings(self) -> Mapping[str, str]:
        return self.runs[0].settings

    @property
    def model(self) -> str:
        return self.runs[0].model

    @property
    def ranked(self) -> tuple[RunResults, ...]:
        """The runs whose last results count: finished ones, or those that have the point that is compared."""
        return tuple(run for run in self.runs if run.ranked)

    def status(self) -> str:
        """``3 finished``, or ``2 finished, 1 failed``."""
        words = [run.status.word for run in self.runs]
        return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))

    def finals(self, metric: str) -> list[Result]:
        """The result at most images seen of each run that counts and has one."""
        return [found[-1] for run in self.ranked if (found := run.of(metric))]

    def by_seed(self, metric: str) -> dict[int, float]:
        """The final values of the runs that count."""
        finals = {run.seed: found[-1].value for run in self.ranked if (found := run.of(metric))}
        return {seed: value for seed, value in finals.items() if value is not None}

    def final(self, metric: str) -> Spread | None:
        values = tuple(self.by_seed(metric).values())
        return Spread(values) if values else None

    def last(self, metric: str) -> Spread | None:
        """The last values of all runs, also of those that do not count."""
        values = tuple(found[-1].value for run in self.runs if (found := run.of(metric)) if found[-1].value is not None)
        return Spread(values) if values else None

    def best(self, metric: str) -> Spread | None:
        """Of each run that counts the best of all its evaluations: flattered by their number, and by chance."""
        values = []
        for run in self.ranked:
            found = run.of(metric)
            if found:
                choose = max if found[-1].higher_is_better else min
                values.append(choose(result.value for result in found if result.value is not None))
        return Spread(tuple(values)) if values else None

    def rankable(self, metric: str) -> str | None:
        """What others must share to be ranked with it, as a key: the final results' protocol and images seen.

        None where these are not known, or differ between the runs.
        """
        keys = {
            json.dumps([result.images, compared(result.protocol)], sort_keys=True, default=str)
            if result.protocol is not None and result.images is not None
            else None
            for result in self.finals(metric)
        }
        return keys.pop() if len(keys) == 1 else None
