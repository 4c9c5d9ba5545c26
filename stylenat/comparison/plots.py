"""Curves over training, and what quality costs: figures for files and for the report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from registry import UserError
from stylenat.comparison.foreign import figure_label
from stylenat.comparison.results import Comparison, Group

MARKERS = "osD^vPX*<"
"""One fewer than colours, so that no pair of the two comes twice before the ninetieth variant."""


def curves(comparison: Comparison, metric: str) -> Figure:
    """A metric over real images seen: a line a variant, the mean over seeds, and a band from smallest to largest."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for i, group in enumerate(comparison.groups):
        runs = group.ranked or group.runs  # An unfinished run would end the curve of the others.
        by_images: dict[int, list[float]] = {}
        for run in runs:
            newest = {result.images: result.value for result in run.of(metric) if result.images is not None}
            for images, value in newest.items():
                by_images.setdefault(images, []).append(value)
        # A mean over fewer seeds than the others would step aside for no other reason.
        whole = {x: values for x, values in sorted(by_images.items()) if len(values) == len(runs)}
        x = list(whole)
        middle = [sum(values) / len(values) for values in whole.values()]
        look = {"marker": MARKERS[i % len(MARKERS)], "color": f"C{i}", "markersize": 4}
        (line,) = axis.plot(x, middle, label=figure_label(group.name), **look)
        if len(runs) > 1:
            low, high = ([bound(values) for values in whole.values()] for bound in (min, max))
            axis.fill_between(x, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    _scale(axis)
    axis.set_xlabel("real images seen")
    _name(axis.set_ylabel, f"{metric} ({_better(comparison, metric)} is better)")
    axis.grid(alpha=0.3)
    _legend(figure)
    _name(axis.set_title, f"{comparison.name}: mean over seeds, band from smallest to largest", fontsize=9)
    return figure


def pareto(comparison: Comparison, metric: str, cost: str, values: Mapping[str, float], less_is_better: bool) -> Figure:
    """A metric against a cost. The line joins what nothing else beats in both; drawn where all may be ranked.

    Args:
        cost: the axis' title; values: by variant; less_is_better: of the cost.
    """
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axis = figure.subplots()
    points: dict[str, tuple[float, float]] = {}
    keys: set[str | None] = set()
    for i, group in enumerate(comparison.groups):
        final = group.final(metric)
        if final is None or group.name not in values:
            continue
        keys.add(group.rankable(metric))
        points[group.name] = (values[group.name], final.mean)
        look = {"fmt": MARKERS[i % len(MARKERS)], "color": f"C{i}"}  # A variant's in every figure.
        axis.errorbar(*points[group.name], yerr=final.deviation, capsize=3, label=figure_label(group.name), **look)
    if len(keys) == 1 and None not in keys:
        higher = _better(comparison, metric) == "higher"
        front = sorted(points[name] for name in front_of(points, less_is_better, not higher))
        axis.plot(*zip(*front, strict=True), color="grey", linewidth=1, zorder=0)
    axis.set_xlabel(cost)
    _name(axis.set_ylabel, f"{metric} ({_better(comparison, metric)} is better)")
    axis.grid(alpha=0.3)
    _legend(figure)
    if len({x for x, _ in points.values()}) == 1:  # All alike: matplotlib would show differences of rounding.
        x = next(iter(points.values()))[0]
        axis.set_xlim(0.9 * x, 1.1 * x)
    axis.ticklabel_format(axis="x", style="plain", useOffset=False)
    axis.tick_params(axis="x", labelsize=8)
    return figure


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


def save(figure: Figure, stem: Path) -> None:
    """``stem.png`` and ``stem.svg``. Raises UserError where they cannot be written."""
    try:
        figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=130)
        figure.savefig(stem.with_name(f"{stem.name}.svg"))
    except OSError as error:
        raise UserError(f"cannot write {stem}.png: {error.strerror}") from error


def _better(comparison: Comparison, metric: str) -> str:
    return "higher" if comparison.higher_is_better(metric) else "lower"


def _name(put: Callable[..., object], text: str, **look: object) -> None:
    """Foreign text in a figure: a dollar sign is a dollar sign."""
    put(figure_label(text), parse_math=False, **look)


def _legend(figure: Figure) -> None:
    """Beside the axes, where it covers nothing; the figure grows to hold it."""
    entries = len(figure.axes[0].get_legend_handles_labels()[1])
    if not entries:  # No variant has a value.
        return
    width, height = figure.get_size_inches()
    legend = figure.legend(fontsize=8, loc="outside right upper")
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.set_size_inches(width, max(height, 0.17 * entries + 0.6))
    figure.draw_without_rendering()
    figure.set_size_inches(width + legend.get_window_extent().width / figure.dpi, figure.get_size_inches()[1])


def _scale(axis: object) -> None:
    """Logarithmic where the values span more than a factor of ten and are positive: early values hide late ones."""
    values = [y for line in axis.lines for y in line.get_ydata()]  # type: ignore[attr-defined]
    if values and min(values) > 0 and max(values) > 10 * min(values):
        axis.set_yscale("log")  # type: ignore[attr-defined]


def parameters_of(groups: Sequence[Group]) -> dict[str, float]:
    return {group.name: float(group.runs[0].parameters) for group in groups}
