"""Runs to variants: spread over seeds, and what may be ranked against what."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence, Set
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
        """The result at most images seen of each run that has one."""
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


@dataclass(frozen=True)
class Standing:
    """Where a variant stands among those it may be ranked with, by one metric's final values.

    ``best``: the best mean; ``close``: not distinguished from the best by Welch's t-test over seeds, at 5 %.
    """

    best: bool = False
    close: bool = False


@dataclass(frozen=True)
class Comparison:
    """All variants side by side, in the order given. ``repeated``: runs that count once, a line each."""

    name: str
    groups: tuple[Group, ...]
    metrics: tuple[str, ...]
    columns: tuple[str, ...]
    repeated: tuple[str, ...] = ()

    def standing(self, metric: str) -> dict[str, Standing]:
        """By variant. One that may be ranked with no other has no entry."""
        found: dict[str, Standing] = {}
        classes: dict[str, list[Group]] = {}
        for group in self.groups:
            key = group.rankable(metric)
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

    def higher_is_better(self, metric: str) -> bool:
        """As its results' protocols say, also those of results that are null."""
        results = (result for group in self.groups for run in group.runs for result in run.results)
        return any(result.higher_is_better for result in results if result.name == metric)

    def notes(self) -> list[str]:
        """What a reader must know before reading a rank into the numbers; one line each."""
        return [*self.repeated, *self._protocol_notes(), *self._length_notes(), *self._seed_notes()]

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
                lines.setdefault(f"ranked only within equal protocols; they differ in {text}", []).append(metric)
        return [f"{', '.join(metrics)}: {text}" for text, metrics in lines.items()]

    def _length_notes(self) -> list[str]:
        unfinished = [run for group in self.groups for run in group.runs if run.step < run.iterations]
        lines = [f"{run.directory} is at iteration {run.step:,} of {run.iterations:,}" for run in unfinished]
        lengths: dict[str, list[str]] = {}
        for metric in self.metrics:
            seen = {group.name: {result.images for result in group.finals(metric)} for group in self.groups}
            if len(set().union(*seen.values())) > 1 or any(None in images for images in seen.values()):
                text = "; ".join(f"{name} {_counts(images)}" for name, images in seen.items() if images)
                lengths.setdefault(text, []).append(metric)
        return lines + [
            f"{', '.join(metrics)}: ranked only at equal images seen: {text}" for text, metrics in lengths.items()
        ]

    def _seed_notes(self) -> list[str]:
        seeds = {group.name: sorted(run.seed for run in group.runs) for group in self.groups}
        lines = []
        if len({tuple(numbers) for numbers in seeds.values()}) > 1:
            lines.append(f"seeds differ: {'; '.join(f'{name} {numbers}' for name, numbers in seeds.items())}")
        alone = [name for name, numbers in seeds.items() if len(numbers) == 1]
        if alone:
            lines.append(f"only one seed ({', '.join(alone)}): the uncertainty of differences is unknown")
        return lines


def _counts(images: Set[int | None]) -> str:
    known = [f"{count:,}" for count in sorted(count for count in images if count is not None)]
    return " and ".join([*known, *(["an unknown number"] if None in images else [])])


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
    """Groups runs into variants: equal in all settings but the seed and who watches, and in an ablation's label.

    Runs of one variant and one seed are one run; the newest counts.

    Args:
        metrics: which to show, the first to plot against cost; all by default. order: of the variants' names.

    Raises:
        UserError: a metric that no run has.
    """
    columns = telling([run.settings for run in runs])
    # One path may have held several sets of images; a run that does not say which goes with the first of its settings.
    images: dict[Key, str] = {}
    for run in runs:
        images[_key(run)] = images.get(_key(run)) or run.real_images
    copies: dict[tuple[Key, int], list[RunResults]] = {}
    for run in runs:
        key = _key(run, run.real_images or images[_key(run)])
        copies.setdefault((key, run.seed), []).append(run)
    groups: dict[Key, list[RunResults]] = {}
    repeated = []
    for (key, seed), same in copies.items():
        newest = max(same, key=lambda run: run.ended)
        groups.setdefault(key, []).append(newest)
        if len(same) > 1:
            others = ", ".join(str(run.directory) for run in same if run is not newest)
            repeated.append(f"{newest.directory} counts, not {others}: equal config and seed {seed} are one run")
    keys = sorted(groups, key=lambda key: order.index(key[0]) if key[0] in order else len(order))
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
        tuple(repeated),
    )


Key = tuple[str | None, str, str]
"""An ablation's label, where there is one, the settings, and a checksum of the real images."""


def _key(run: RunResults, images: str = "") -> Key:
    label = run.labels.get("variant")
    settings = {name: text for name, text in sorted(run.settings.items()) if not name.startswith(WATCHING)}
    return None if label is None else str(label), json.dumps(settings), images


def _names(keys: Sequence[Key], groups: Mapping[Key, list[RunResults]]) -> dict[Key, str]:
    """A variant's label; without one its first folder's name."""
    names: dict[Key, str] = {}
    for key in keys:
        name = key[0] or groups[key][0].directory.name
        while name in names.values():
            name += "'"
        names[key] = name
    return names
