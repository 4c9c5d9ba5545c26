"""Runs to variants: spread over seeds, and what may be ranked against what."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry import UserError
from registry.wording import did_you_mean, listed
from stylenat.comparison.parameters import WATCHING, telling
from stylenat.comparison.runs import RunResults
from stylenat.evaluation.protocol import Result, compared, differences

SIGNIFICANCE = 0.05


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
        deviation = "" if self.deviation is None else f" ± {self.deviation:.2g}"
        return f"{self.mean:.4g}{deviation}"


@dataclass(frozen=True)
class Group:
    """The runs of one variant, which differ in their seeds alone."""

    name: str
    runs: tuple[RunResults, ...]

    @property
    def settings(self) -> Mapping[str, str]:
        return self.runs[0].settings

    def finals(self, metric: str) -> list[Result]:
        """The last result of each run that has one."""
        return [found[-1] for run in self.runs if (found := run.of(metric))]

    def final(self, metric: str) -> Spread | None:
        values = tuple(result.value for result in self.finals(metric) if result.value is not None)
        return Spread(values) if values else None

    def best(self, metric: str) -> Spread | None:
        """Of each run the best of all its evaluations: flattered by their number, and by chance."""
        values = []
        for run in self.runs:
            found = run.of(metric)
            if found:
                choose = max if found[-1].higher_is_better else min
                values.append(choose(result.value for result in found if result.value is not None))
        return Spread(tuple(values)) if values else None

    def rate(self) -> Spread | None:
        values = tuple(run.images_per_second for run in self.runs if run.images_per_second is not None)
        return Spread(values) if values else None

    def protocol(self, metric: str) -> str | None:
        """What the final results were measured by, as a key to compare; None where it is not known or not one."""
        keys = {
            None if result.protocol is None else json.dumps(compared(result.protocol), sort_keys=True, default=str)
            for result in self.finals(metric)
        }
        return keys.pop() if len(keys) == 1 else None


@dataclass(frozen=True)
class Standing:
    """Where a variant stands among those it may be ranked with, by one metric's final values.

    ``best``: the best mean; ``close``: not told apart from the best by Welch's t-test over seeds, at 5 %.
    """

    best: bool = False
    close: bool = False


@dataclass(frozen=True)
class Comparison:
    """All variants side by side, in the order given."""

    name: str
    groups: tuple[Group, ...]
    metrics: tuple[str, ...]
    columns: tuple[str, ...]

    def standing(self, metric: str) -> dict[str, Standing]:
        """By variant. One that may be ranked with no other has no entry."""
        found: dict[str, Standing] = {}
        classes: dict[str, list[Group]] = {}
        for group in self.groups:
            key = group.protocol(metric)
            if key is not None:
                classes.setdefault(key, []).append(group)
        for members in classes.values():
            if len(members) < 2:
                continue
            spreads = {group.name: spread for group in members if (spread := group.final(metric))}
            choose = max if members[0].finals(metric)[0].higher_is_better else min
            best = choose(spreads, key=lambda name: spreads[name].mean)
            for name, spread in spreads.items():
                found[name] = Standing(name == best, name != best and not _told_apart(spread, spreads[best]))
        return found

    def notes(self) -> list[str]:
        """What a reader must know before reading a rank into the numbers; one line each."""
        return [*self._protocol_notes(), *self._budget_notes(), *self._seed_notes()]

    def _protocol_notes(self) -> list[str]:
        lines: dict[str, list[str]] = {}
        for metric in self.metrics:
            results = [(group.name, result) for group in self.groups for result in group.finals(metric)]
            bare = sorted({name for name, result in results if result.protocol is None})
            if bare:
                text = f"not ranked: no protocol is recorded for {', '.join(bare)} (an older version measured them)"
                lines.setdefault(text, []).append(metric)
            known = [(name, result) for name, result in results if result.protocol is not None]
            others = {
                str(difference): name for name, result in known[1:] for difference in differences(known[0][1], result)
            }
            if others:
                first = known[0][0]
                text = "; ".join(f"{difference} ({first} and {name})" for difference, name in others.items())
                lines.setdefault(f"ranked only among equals, protocols differ in {text}", []).append(metric)
        return [f"{', '.join(metrics)}: {text}" for text, metrics in lines.items()]

    def _budget_notes(self) -> list[str]:
        unfinished = [run for group in self.groups for run in group.runs if run.step < run.iterations]
        lines = [f"{run.directory} is at iteration {run.step:,} of {run.iterations:,}" for run in unfinished]
        images = {result.images for group in self.groups for run in group.runs for result in run.results[-1:]}
        if len(images) > 1 and not unfinished:
            lines.append(f"training differs in length: {listed(f'{count:,}' for count in images if count)} images")
        return lines

    def _seed_notes(self) -> list[str]:
        seeds = {group.name: sorted(run.seed for run in group.runs) for group in self.groups}
        lines = []
        if len({tuple(numbers) for numbers in seeds.values()}) > 1:
            lines.append(f"seeds differ: {'; '.join(f'{name} {numbers}' for name, numbers in seeds.items())}")
        alone = [name for name, numbers in seeds.items() if len(numbers) == 1]
        if alone:
            lines.append(f"one seed alone ({', '.join(alone)}): how much of a difference is chance cannot be told")
        return lines


def _told_apart(spread: Spread, best: Spread) -> bool:
    """Welch's t-test; without a spread there is nothing to judge by, and the numbers stand as they are."""
    if spread.deviation is None or best.deviation is None:
        return True
    if spread.deviation == best.deviation == 0:
        return spread.mean != best.mean
    from scipy.stats import ttest_ind

    p = float(ttest_ind(spread.values, best.values, equal_var=False).pvalue)
    return math.isfinite(p) and p < SIGNIFICANCE


def compared_runs(
    runs: Sequence[RunResults], name: str, metrics: Sequence[str] = (), order: Sequence[str] = ()
) -> Comparison:
    """Groups runs into variants: by an ablation's label, or by all settings but the seed and who watches.

    Args:
        metrics: which to show, the first to plot against cost; all by default. order: of the variants' names.

    Raises:
        UserError: a metric that no run has.
    """
    groups: dict[str, list[RunResults]] = {}
    columns = telling([run.settings for run in runs])
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    keys = sorted(groups, key=lambda key: order.index(key) if key in order else len(order))
    known = list(dict.fromkeys(result.name for run in runs for result in run.results))
    for metric in metrics:
        if metric not in known:
            guess = did_you_mean(metric, known) or "."
            raise UserError(f"no run has a metric {metric!r}{guess} There are {listed(known)}")
    names = _names(keys, groups)
    return Comparison(
        name,
        tuple(Group(names[key], tuple(sorted(groups[key], key=lambda run: run.seed))) for key in keys),
        tuple(metrics or known),
        tuple(columns),
    )


def _key(run: RunResults) -> str:
    if "variant" in run.labels:
        return str(run.labels["variant"])
    return json.dumps({name: text for name, text in run.settings.items() if not name.startswith(WATCHING)})


def _names(keys: Sequence[str], groups: Mapping[str, list[RunResults]]) -> dict[str, str]:
    """A variant's label; without one its folder's name, less the seed of several."""
    names: dict[str, str] = {}
    for key in keys:
        first = groups[key][0]
        name = str(first.labels.get("variant", first.directory.name))
        while name in names.values():
            name += "'"
        names[key] = name
    return names
