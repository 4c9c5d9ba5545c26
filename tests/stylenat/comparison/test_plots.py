"""What the figures may and may not join."""

from types import SimpleNamespace

import pytest

from stylenat.comparison.plots import curves, pareto


def group(name, value, protocol):
    result = SimpleNamespace(higher_is_better=False, images=100, value=value)
    run = SimpleNamespace(of=lambda metric: [result])
    return SimpleNamespace(
        name=name,
        runs=[run],
        ranked=[run],
        rankable=lambda metric: protocol,
        final=lambda metric: SimpleNamespace(mean=value, deviation=None),
        finals=lambda metric: [result],
    )


def compared(*groups):
    return SimpleNamespace(name="test", groups=groups, higher_is_better=lambda metric: False)


@pytest.mark.parametrize(("protocols", "fronts"), [("aa", 1), ("ab", 0), ((None, None), 0)])
def test_a_front_joins_only_what_was_measured_alike(protocols, fronts):
    comparison = compared(*(group(f"v{i}", i, protocol) for i, protocol in enumerate(protocols)))
    figure = pareto(comparison, "fid", "cost", {"v0": 1.0, "v1": 2.0}, True)
    assert sum(line.get_color() == "grey" for line in figure.axes[0].lines) == fronts


def test_twelve_variants_look_different_and_alike_in_every_figure_and_the_legend_covers_none():
    comparison = compared(*(group(f"a-rather-long-name-{i}", 1 + i, "p") for i in range(12)))
    drawn = curves(comparison, "fid")
    looks = {line.get_label(): (line.get_color(), line.get_marker()) for line in drawn.axes[0].lines}
    assert len(set(looks.values())) == 12
    costs = {g.name: float(i) for i, g in enumerate(comparison.groups) if i != 0}  # The first has no cost.
    figure = pareto(comparison, "fid", "cost", costs, True)
    for line in figure.axes[0].lines:
        name = next((n for n, look in looks.items() if look == (line.get_color(), line.get_marker())), None)
        assert line.get_color() == "grey" or name in costs or line.get_marker() == "_"
    for one in (drawn, figure):
        one.draw_without_rendering()
        legend, axes = one.legends[0].get_window_extent(), one.axes[0].get_window_extent()
        assert not legend.overlaps(axes) and legend.y0 >= 0 and legend.x1 <= one.bbox.x1


@pytest.mark.filterwarnings("error")
def test_a_metric_without_values_has_empty_figures():
    comparison = compared(*(group(f"v{i}", None, None) for i in range(2)))
    for one in comparison.groups:
        one.final, one.finals, one.runs[0].of = (lambda metric: None), (lambda metric: []), (lambda metric: [])
    assert not pareto(comparison, "fid", "cost", {"v0": 1.0, "v1": 2.0}, True).legends
    curves(comparison, "fid").draw_without_rendering()
