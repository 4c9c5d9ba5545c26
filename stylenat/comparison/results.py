"""Runs to variants: spread over seeds, and what may be ranked against what."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from registry import UserError
from registry.wording import did_you_mean, listed
from stylenat.comparison.groups import At, Group
from stylenat.comparison.measures import Measure, labelled, protocol_notes
from stylenat.comparison.paired import CHOSEN, METHOD, Paired, corrected, paired, what_n_can_show
from stylenat.comparison.parameters import WATCHING, telling
from stylenat.comparison.runs import RunResults
from stylenat.comparison.status import FAILED, FINISHED, NOT_BEGUN


@dataclass(frozen=True)
class Standing:
    """Where a variant stands among those it may be ranked with, by one metric's final values.

    Attributes:
        best: the best mean, or the same model as the variant that has it.
        reference: whether the others are compared with it.
        paired: the comparison with the reference; None for the reference and for what is the same model.
    """

    best: bool = False
    reference: bool = False
    paired: Paired | None = None


@dataclass(frozen=True)
class Comparison:
    """All variants side by side, in the order given.

    Attributes:
        metrics: labels of the columns, one protocol each; measures: the same with metric and protocol.
        columns: parameters that differ. repeated: runs that count once, left_out: results that do not, a line each.
        baseline: the variant that the others are compared with; None for the best of each metric.
        at: the point of training that is compared; None for the end of finished runs.
    """

    name: str
    groups: tuple[Group, ...]
    metrics: tuple[str, ...]
    columns: tuple[str, ...]
    repeated: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    left_out: tuple[str, ...] = ()
    baseline: str | None = None
    at: At | None = None

    def standing(self, metric: str) -> dict[str, Standing]:
        """By variant. One that may be ranked with no other has no entry."""
        found: dict[str, Standing] = {}
        classes: dict[str, list[Group]] = {}
        for group in self.groups:
            key = group.rankable(metric)
            if key is not None:
                classes.setdefault(key, []).append(group)
        for members in classes.values():
            if len(members) > 1:
                found |= self._standing(members, metric)
        return found

    def _standing(self, members: Sequence[Group], metric: str) -> dict[str, Standing]:
        means = {group.name: spread.mean for group in members if (spread := group.final(metric))}
        models = {group.name: group.model or group.name for group in members}
        choose = max if members[0].finals(metric)[0].higher_is_better else min
        best = choose(means, key=means.__getitem__)
        reference = self.baseline if self.baseline in means else best if self.baseline is None else None
        values = {group.name: group.by_seed(metric) for group in members}
        tests = {
            name: paired(values[name], values[reference])
            for name in means
            if reference is not None and models[name] != models[reference]
        }
        tests = corrected(tests)
        return {name: Standing(models[name] == models[best], name == reference, tests.get(name)) for name in means}

    def higher_is_better(self, metric: str) -> bool:
        """As its results' protocols say, also those of results that are null."""
        results = (result for group in self.groups for run in group.runs for result in run.results)
        return any(result.higher_is_better for result in results if result.name == metric)

    def notes(self) -> list[str]:
        """What a reader must know before reading a rank into the numbers; one line each."""
        return [
            *self.repeated,
            *self.left_out,
            *protocol_notes([measure for measure in self.measures if measure.label in self.metrics]),
            *self._model_notes(),
            *self._status_notes(),
            *self._length_notes(),
            *self._process_notes(),
            *self._seed_notes(),
            *self.statistics(),
        ]

    def statistics(self) -> list[str]:
        """How the variants were compared and what that can show, a sentence for each number of seeds."""
        sentences: dict[str, list[str]] = {}
        for metric in self.metrics:
            tests = [standing.paired for standing in self.standing(metric).values() if standing.paired]
            for n in sorted({test.n for test in tests}):
                sentences.setdefault(what_n_can_show(n, len(tests)), []).append(metric)
        whom = "the best mean of each metric" if self.baseline is None else self.baseline
        lines = [f"{', '.join(metrics)}: {text}" for text, metrics in sentences.items()]
        if lines:
            if self.baseline is None:
                lines.insert(0, f"{CHOSEN}; --baseline NAME names one beforehand")
            lines.insert(
                0, f"differences are from {whom}, paired by seed, with Student's t interval at 95 %; p: {METHOD}"
            )
        return lines

    def _model_notes(self) -> list[str]:
        names: dict[str, list[str]] = {}
        for group in self.groups:
            names.setdefault(group.model, []).append(group.name)
        return [
            f"{', '.join(same)} are the same model (equal head groups, parameter shapes and settings): what differs "
            "between them is no effect, and they are not ranked against each other"
            for model, same in names.items()
            if model and len(same) > 1
        ]

    def _status_notes(self) -> list[str]:
        lines = []
        for run in (run for group in self.groups for run in group.runs):
            if run.status.word not in (FINISHED, NOT_BEGUN):
                reason = f": {run.status.reason}" if run.status.word == FAILED else ""
                lines.append(f"{run.directory} {run.status} of {run.iterations:,}{reason}")
            if run.skipped:
                counts = ", ".join(f"{name} {count}" for name, count in sorted(run.skipped.items()))
                lines.append(f"{run.directory} skipped steps whose loss or gradient was not finite: {counts}")
        absent = [str(run.directory) for group in self.groups for run in group.runs if run.status.word == NOT_BEGUN]
        if absent:
            lines.append(f"not begun: {', '.join(absent)}")
        left = [group.name for group in self.groups if len(group.ranked) < len(group.runs)]
        if left:
            wanted = "have no evaluation at " + str(self.at) if self.at else "are not finished"
            lines.append(
                f"runs of {', '.join(left)} {wanted}: only the others count"
                + ("" if self.at else "; --at ITERATION compares all at a point that they have in common")
            )
        return lines

    def _length_notes(self) -> list[str]:
        lengths: dict[str, list[str]] = {}
        for metric in self.metrics:
            seen = {group.name: {result.images for result in group.finals(metric)} for group in self.groups}
            if len(set().union(*seen.values())) > 1 or any(None in images for images in seen.values()):
                text = "; ".join(f"{name} {_counts(images)}" for name, images in seen.items() if images)
                lengths.setdefault(text, []).append(metric)
        return [f"{', '.join(metrics)}: ranked only at equal images seen: {text}" for text, metrics in lengths.items()]

    def _process_notes(self) -> list[str]:
        """Runs on several processes, or on other devices, differ by more than the last bits after some iterations."""
        machines = {group.name: set().union(*(run.processes for run in group.runs)) for group in self.groups}
        if len(set().union(*machines.values())) < 2:
            return []
        text = "; ".join(
            f"{name} {' and '.join(f'{count} on {device}' for count, device in sorted(found))}"
            for name, found in machines.items()
            if found
        )
        return [
            f"trained with different numbers of processes or devices ({text}): sums in another order round otherwise, "
            "and training amplifies that, so part of a difference may come from it"
        ]

    def _seed_notes(self) -> list[str]:
        seeds = {group.name: sorted(run.seed for run in group.ranked) for group in self.groups}
        lines = []
        if len({tuple(numbers) for numbers in seeds.values()}) > 1:
            lines.append(
                f"seeds differ: {'; '.join(f'{name} {numbers}' for name, numbers in seeds.items())}; variants are "
                "compared over the seeds that both have"
            )
        alone = [name for name, numbers in seeds.items() if len(numbers) == 1]
        if alone:
            lines.append(f"one seed alone ({', '.join(alone)}): how much of a difference is chance cannot be known")
        return lines


def _counts(images: Set[int | None]) -> str:
    known = [f"{count:,}" for count in sorted(count for count in images if count is not None)]
    return " and ".join([*known, *(["an unknown number"] if None in images else [])])


def compared_runs(
    runs: Sequence[RunResults],
    name: str,
    metrics: Sequence[str] = (),
    order: Sequence[str] = (),
    *,
    at: At | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Groups runs into variants: equal in all settings but the seed and who watches, and in an ablation's label.

    Runs of one variant and one seed are one run; the newest counts.

    Args:
        metrics: which to show, the first to plot against cost; all by default. A metric's name means all of its
            columns. order: of the variants' names.
        at: the point of training to compare; by default the end, of finished runs alone.
        baseline: the variant that the others are compared with; the best of each metric by default.

    Raises:
        UserError: a metric or variant that there is not, or a point that no run has.
    """
    runs, measures, left_out = labelled(runs)
    if at is not None:
        points = {at.reached(result) for run in runs for result in run.results} - {None}
        if at.number not in points:
            known = ", ".join(map(str, sorted(points))) or "none"
            raise UserError(f"no run has an evaluation at {at}; there are {known}")
    runs = [_counted(run, at) for run in runs]
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
    names = _names(keys, groups)
    if baseline is not None and baseline not in names.values():
        guess = did_you_mean(baseline, names.values()) or "."
        raise UserError(f"no variant is called {baseline!r}{guess} There are {listed(names.values())}")
    return Comparison(
        name,
        tuple(Group(names[key], tuple(sorted(groups[key], key=lambda run: run.seed))) for key in keys),
        _chosen(metrics, measures),
        tuple(columns),
        tuple(repeated),
        tuple(measures),
        tuple(left_out),
        baseline,
        at,
    )


def _chosen(metrics: Sequence[str], measures: Sequence[Measure]) -> tuple[str, ...]:
    """Labels of columns. Raises UserError for a name that is neither a label nor a metric."""
    if not metrics:
        return tuple(measure.label for measure in measures)
    chosen: list[str] = []
    for metric in metrics:
        labels = [measure.label for measure in measures if metric in (measure.label, measure.name)]
        if not labels:
            known = [measure.label for measure in measures]
            guess = did_you_mean(metric, known) or "."
            raise UserError(f"no run has a metric {metric!r}{guess} There are {listed(known)}")
        chosen += labels
    return tuple(dict.fromkeys(chosen))


def _counted(run: RunResults, at: At | None) -> RunResults:
    """With results up to the point that is compared, and whether they count."""
    if at is None:
        return replace(run, ranked=run.status.word == FINISHED)
    reached = [(at.reached(result), result) for result in run.results]
    there = {result.name for point, result in reached if point == at.number}
    results = tuple(
        result
        for point, result in reached
        if point is not None and point <= at.number and (not there or result.name in there)
    )
    return replace(run, results=results, ranked=bool(there))


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
