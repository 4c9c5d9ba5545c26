"""What the figures may and may not join."""

import statistics
from types import SimpleNamespace

import pytest

from stylenat.comparison.plots import BAND, curves, curves_caption, pareto, pareto_caption, save


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


def seeds(name, *values):
    results = [SimpleNamespace(higher_is_better=False, images=100, value=value) for value in values]
    runs = [SimpleNamespace(of=lambda metric, one=one: [one], parameters=10**6) for one in results]
    spread = SimpleNamespace(mean=sum(values) / len(values), deviation=statistics.stdev(values))
    return SimpleNamespace(
        name=name, runs=runs, ranked=runs, rankable=lambda metric: "p", final=lambda metric: spread,
        finals=lambda metric: results,
    )  # fmt: skip


def test_band_and_bars_are_one_standard_deviation_and_the_captions_say_so():
    comparison = compared(seeds("a", 1.0, 2.0, 6.0))
    (band,) = curves(comparison, "fid").axes[0].collections
    low, high = band.get_paths()[0].get_extents().intervaly
    assert (low, high) == pytest.approx((3 - statistics.stdev((1, 2, 6)), 3 + statistics.stdev((1, 2, 6))))
    assert BAND in curves_caption(comparison, "fid") and BAND in pareto_caption(comparison, "fid", "cost")
    alone = compared(group("a", 1.0, "p"))
    assert not curves(alone, "fid").axes[0].collections
    assert BAND not in curves_caption(alone, "fid") and BAND not in pareto_caption(alone, "fid", "cost")


def test_points_of_equal_cost_do_not_hide_each_other():
    comparison = compared(*(seeds(name, 1.0, 2.0) for name in "abc"))
    figure = pareto(comparison, "fid", "cost", dict.fromkeys("abc", 5.0), True)
    lines = {line.get_label(): line for line in figure.axes[0].get_legend_handles_labels()[0]}
    places = [float(one.lines[0].get_xdata()[0]) for one in lines.values() if hasattr(one, "lines")]
    assert len(places) == 3 and len(set(places)) == 3 and sum(places) / 3 == pytest.approx(5.0)


def test_figures_are_as_wide_as_a_column_and_hold_their_fonts(tmp_path):
    figure = curves(compared(*(group(f"a-rather-long-name-{i}", 1 + i, "p") for i in range(12))), "fid")
    save(figure, tmp_path / "curve")
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(84, abs=0.5)
    pdf = (tmp_path / "curve.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # TrueType, embedded.
    assert b"<text" not in (tmp_path / "curve.svg").read_bytes()  # Letters are outlines.
    assert (tmp_path / "curve.png").stat().st_size > 1000
