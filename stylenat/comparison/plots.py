"""Curves over training, and what quality costs: figures for a paper's column and the report, with their captions."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from registry import UserError
from stylenat.comparison.foreign import figure_label
from stylenat.comparison.groups import Group
from stylenat.comparison.results import Comparison

STYLE = Path(__file__).with_name("paper.mplstyle")
COLOURS = 8
MARKERS = "osD^vPX*<"
"""One more than colours, so that no pair of the two comes twice before the seventy-third variant."""
BAND = "one standard deviation over seeds to either side"
FORMATS = ("png", "svg", "pdf")


def paper_style() -> AbstractContextManager[None]:
    """Within it, figures are made and saved at column width with embedded fonts."""
    return matplotlib.style.context(STYLE)


def curves(comparison: Comparison, metric: str) -> Figure:
    """A metric over real images seen: a line a variant, the mean over seeds, and a band of ``BAND``."""
    with paper_style():
        figure = Figure()
        axis = figure.subplots()
        for i, group in enumerate(comparison.groups):
            points = _points(group, metric)
            x = [images / 1000 for images in points]
            middle = [statistics.fmean(values) for values in points.values()]
            axis.plot(x, middle, label=figure_label(group.name), marker=_marker(i), color=_colour(i))
            if _banded(group):
                around = [statistics.stdev(values) for values in points.values()]
                low, high = ([m + sign * d for m, d in zip(middle, around, strict=True)] for sign in (-1, 1))
                axis.fill_between(x, low, high, alpha=0.15, color=_colour(i), linewidth=0)
        _scale(axis)
        axis.set_xlabel("real images seen (thousands)")
        _name(axis.set_ylabel, f"{metric} ({_better(comparison, metric)} is better)")
        _legend(figure)
    return figure


def curves_caption(comparison: Comparison, metric: str) -> str:
    band = f" The band reaches {BAND}." if any(map(_banded, comparison.groups)) else ""
    return (
        f"{metric} of the generator during training, {_better(comparison, metric)} is better: the mean over "
        f"{_seeds(comparison)}.{band}"
    )


def pareto(comparison: Comparison, metric: str, cost: str, values: Mapping[str, float], less_is_better: bool) -> Figure:
    """A metric against a cost. The line joins what nothing else beats in both; drawn where all may be ranked.

    Points of equal cost are set apart sideways, so that none hides another.

    Args:
        cost: the axis' title; values: by variant; less_is_better: of the cost.
    """
    with paper_style():
        figure = Figure()
        axis = figure.subplots()
        points: dict[str, tuple[float, float]] = {}
        keys: set[str | None] = set()
        for group in comparison.groups:
            if (final := group.final(metric)) is not None and group.name in values:
                keys.add(group.rankable(metric))
                points[group.name] = (values[group.name], final.mean)
        aside = _set_apart({name: x for name, (x, _) in points.items()})
        for i, group in enumerate(comparison.groups):
            if group.name in points:
                x, y = aside[group.name], points[group.name][1]
                look = {"fmt": _marker(i), "color": _colour(i)}  # A variant's in every figure.
                final = group.final(metric)
                around = None if final is None else final.deviation
                axis.errorbar(x, y, yerr=around, label=figure_label(group.name), elinewidth=0.8, **look)
        if len(keys) == 1 and None not in keys:
            higher = _better(comparison, metric) == "higher"
            front = sorted(front_of(points, less_is_better, not higher), key=lambda name: points[name])
            joined = [(aside[name], points[name][1]) for name in front]
            axis.plot(*zip(*joined, strict=True), color="grey", linewidth=1, zorder=0)
        _name(axis.set_xlabel, cost)
        _name(axis.set_ylabel, f"{metric} ({_better(comparison, metric)} is better)")
        _legend(figure)
        if len({x for x, _ in points.values()}) == 1:  # All alike: matplotlib would show differences of rounding.
            x = next(iter(points.values()))[0]
            axis.set_xlim(0.9 * x, 1.1 * x)
        axis.ticklabel_format(axis="x", style="plain", useOffset=False)
        axis.locator_params(axis="x", nbins=5)
    return figure


def pareto_caption(comparison: Comparison, metric: str, cost: str) -> str:
    bars = f" Bars reach {BAND}." if any(map(_banded, comparison.groups)) else ""
    return (
        f"{metric} ({_better(comparison, metric)} is better) against {cost}: the mean over {_seeds(comparison)}.{bars} "
        "The grey line, where variants may be ranked, joins those that no other beats in both. Points of equal cost "
        "are set apart sideways."
    )


def front_of(points: Mapping[str, tuple[float, float]], less_cost: bool, less_metric: bool) -> list[str]:
    """The names that no other beats in one of (cost, metric) without losing in the other."""
    turned = {
        name: (x if less_cost else -x, y if less_metric else -y)  # Less is better in both.
        for name, (x, y) in points.items()
    }
    return [
        name
        for name, (x, y) in turned.items()
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in turned.values())
    ]


def save(figure: Figure, stem: Path, forms: Sequence[str] = FORMATS) -> None:
    """``stem.png``, ``stem.svg`` and ``stem.pdf``. Raises UserError where they cannot be written."""
    try:
        with paper_style():
            for form in forms:
                figure.savefig(stem.with_name(f"{stem.name}.{form}"))
    except OSError as error:
        raise UserError(f"cannot write {stem}: {error.strerror}") from error


def parameters_of(groups: Sequence[Group]) -> dict[str, float]:
    """In millions."""
    return {group.name: group.runs[0].parameters / 1e6 for group in groups}


def _points(group: Group, metric: str) -> dict[int, list[float]]:
    """The values by images seen, where all of the group's runs have one: a mean over fewer seeds would jump."""
    runs = group.ranked or group.runs  # An unfinished run would end the curve of the others.
    by_images: dict[int, list[float]] = {}
    for run in runs:
        newest = {result.images: result.value for result in run.of(metric) if result.images is not None}
        for images, value in newest.items():
            by_images.setdefault(images, []).append(value)
    return {images: values for images, values in sorted(by_images.items()) if len(values) == len(runs)}


def _banded(group: Group) -> bool:
    return len(group.ranked or group.runs) > 1


def _seeds(comparison: Comparison) -> str:
    counts = sorted({len(group.ranked or group.runs) for group in comparison.groups})
    return f"{' or '.join(map(str, counts))} seed{'' if counts == [1] else 's'} of each variant"


def _colour(i: int) -> str:
    return f"C{i % COLOURS}"


def _marker(i: int) -> str:
    return MARKERS[i % len(MARKERS)]


def _set_apart(costs: Mapping[str, float]) -> dict[str, float]:
    """The costs, equal ones moved sideways by a few hundredths of the axis."""
    known = list(costs.values())
    reach = max(known, default=0.0) - min(known, default=0.0)
    step = (reach or 0.2 * max(map(abs, known), default=1.0)) / (50 if reach else 25)
    moved = {}
    for name, x in costs.items():
        alike = [other for other, cost in costs.items() if abs(cost - x) <= step / 2]
        moved[name] = x + step * (alike.index(name) - (len(alike) - 1) / 2)
    return moved


def _better(comparison: Comparison, metric: str) -> str:
    return "higher" if comparison.higher_is_better(metric) else "lower"


def _name(put: Callable[..., object], text: str, **look: object) -> None:
    """Foreign text in a figure: a dollar sign is a dollar sign."""
    put(figure_label(text), parse_math=False, wrap=True, **look)


def _legend(figure: Figure) -> None:
    """Below the axes, where it covers nothing; the figure grows to hold it."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if not labels:  # No variant has a value.
        return
    width, height = figure.get_size_inches()
    longest = max(map(len, labels))
    columns = max(1, min(4, len(labels), int(width / (0.07 * longest + 0.45))))
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.set_size_inches(width, height + 0.16 * -(-len(labels) // columns))


def _scale(axis: object) -> None:
    """Logarithmic where the values span more than a factor of four and are positive: early values hide late ones."""
    values = [y for line in axis.lines for y in line.get_ydata()]  # type: ignore[attr-defined]
    if values and min(values) > 0 and max(values) > 4 * min(values):
        axis.set_yscale("log")  # type: ignore[attr-defined]
