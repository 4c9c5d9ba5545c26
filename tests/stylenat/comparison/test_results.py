from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from read_runs import PROTOCOL, run

from stylenat.comparison.parameters import telling
from stylenat.comparison.plots import front_of, pareto
from stylenat.comparison.results import Spread, _told_apart, compared_runs
from stylenat.comparison.runs import images_per_second
from stylenat.evaluation.protocol import Result


def test_a_parameter_that_another_difference_implies_tells_nothing():
    near = {"block.hydra.partition": "@near()", "partition.near.kernel_size": "3", "train.seed": "0"}
    far = {"block.hydra.partition": "@far()", "partition.far.kernel_size": "3", "train.seed": "1"}
    assert telling([near, far]) == ["block.hydra.partition"]
    wide = near | {"partition.near.kernel_size": "5"}
    assert telling([near, far, wide]) == ["block.hydra.partition", "partition.near.kernel_size"]


def test_who_watches_makes_no_other_experiment():
    assert (
        telling([{"tracker.aim.every": "1", "train.threads": "2"}, {"tracker.aim.every": "5", "train.threads": "1"}])
        == []
    )


def test_seeds_that_scatter_widely_are_not_told_apart():
    assert not _told_apart(Spread((1.0, 5.0, 3.0)), Spread((2.0, 4.0, 2.5)))
    assert _told_apart(Spread((5.0, 5.1, 5.2)), Spread((2.0, 2.1, 2.2)))
    assert _told_apart(Spread((2.0,)), Spread((1.0,)))


points = st.dictionaries(st.text(max_size=3), st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8)


@given(points, st.booleans(), st.booleans())
def test_the_front_is_what_nothing_beats_and_beats_all_else(points, less_cost, less_metric):
    front = front_of(points, less_cost, less_metric)

    def beats(a, b):
        pairs = [(a[0], b[0], less_cost), (a[1], b[1], less_metric)]
        no_worse = all(x <= y if less else x >= y for x, y, less in pairs)
        return no_worse and a != b

    assert front
    for name in points:
        beaten = any(beats(points[other], points[name]) for other in points)
        assert (name in front) is not beaten


def test_a_pause_in_training_does_not_touch_the_rate():
    def at(images, clock):
        return Result("fid", 1.0, images // 10, images, f"2030-01-01T{clock}+00:00")

    results = [at(100, "10:00:00"), at(200, "10:00:10"), at(300, "15:00:00"), at(400, "15:00:10")]
    assert images_per_second(results) == pytest.approx(10)
    assert images_per_second(results[:1]) is None


def best(comparison):
    return [name for name, standing in comparison.standing("fid").items() if standing.best]


def test_runs_are_ranked_at_equal_images_seen_or_not_at_all():
    shorter, longer = run("a", 3.0, 80), run("b", 2.0, 160)
    unequal = compared_runs([shorter, longer], "test")
    assert unequal.standing("fid") == {}
    assert "fid: ranked only at equal images seen: a 80; b 160" in unequal.notes()
    figure = pareto(unequal, "fid", "cost", {"a": 1.0, "b": 2.0}, True)
    assert not [line for line in figure.axes[0].lines if line.get_color() == "grey"]
    third = compared_runs([shorter, longer, run("c", 2.5, 80)], "test")
    assert best(third) == ["c"] and set(third.standing("fid")) == {"a", "c"}
    equal = compared_runs([run("a", 3.0, 160), longer], "test")
    assert best(equal) == ["b"] and not [note for note in equal.notes() if "images seen" in note]


def test_the_best_of_a_metric_that_rises_is_the_highest():
    protocol = {"metric": {"name": "fid", "better": "higher", "uses_real": False}}

    def rising(one):
        return replace(one, results=tuple(replace(result, protocol=protocol) for result in one.results))

    more = [(40, 9.0, "2030-01-01T09:00:00+00:00"), (60, 1.0, "2030-01-01T09:30:00+00:00")]
    comparison = compared_runs([rising(run("a", 3.0, 80, more=more)), rising(run("b", 2.0, 80))], "test")
    assert best(comparison) == ["a"]
    assert [group.best("fid").mean for group in comparison.groups] == [9.0, 2.0]
    falling = compared_runs([run("a", 3.0, 80, more=more), run("b", 2.0, 80)], "test")
    assert best(falling) == ["b"]
    assert [group.best("fid").mean for group in falling.groups] == [1.0, 2.0]


def test_a_variant_whose_seeds_were_trained_unequally_is_not_ranked():
    runs = [run("a", 3.0, 160), run("b", 1.0, 160), run("b1", 2.0, 80, seed=1)]
    comparison = compared_runs(runs, "test")
    assert comparison.standing("fid") == {}
    assert "fid: ranked only at equal images seen: a 160; b 80 and 160" in comparison.notes()


def test_images_that_are_not_known_are_not_equal():
    comparison = compared_runs([run("a", 3.0, None), run("b", 1.0, None)], "test")
    assert comparison.standing("fid") == {}
    assert "fid: ranked only at equal images seen: a an unknown number; b an unknown number" in comparison.notes()


def test_the_final_value_is_that_of_the_most_images_wherever_it_is_written():
    later = run("a", 9.0, 40, time="2030-01-02T10:00:00+00:00", more=[(80, 3.0, "2030-01-01T10:00:00+00:00")])
    (group,) = compared_runs([later], "test").groups
    assert group.final("fid").mean == 3.0 and later.step == 20


def test_copies_of_one_seed_are_one_run_the_newest():
    old, new = run("a", 3.0, 80, time="2030-01-01T10:00:00+00:00"), run("a2", 2.0, 80, time="2030-01-01T11:00:00+00:00")
    comparison = compared_runs([old, new, run("a3", 4.0, 80, seed=1)], "test")
    (group,) = comparison.groups
    assert group.final("fid").values == (2.0, 4.0)
    assert comparison.notes()[0] == "a2 counts, not a: equal config and seed 0 are one run"


def test_runs_that_were_measured_against_other_images_are_no_copies():
    def against(images, one):
        protocol = {**PROTOCOL, "real": {"pixels_sha256": images}}
        return replace(one, results=tuple(replace(result, protocol=protocol) for result in one.results))

    comparison = compared_runs([against("x", run("a", 3.0, 80)), against("y", run("a2", 2.0, 80))], "test")
    assert [group.name for group in comparison.groups] == ["a", "a2"] and not comparison.repeated


def test_the_better_direction_is_known_of_a_metric_without_any_value():
    protocol = {"metric": {"name": "precision", "better": "higher", "uses_real": False}}
    empty = Result("precision", None, 1, 80, "2030-01-01T10:00:00+00:00", protocol=protocol)
    one = run("a", 3.0, 80)
    comparison = compared_runs([replace(one, results=(*one.results, empty))], "test")
    assert comparison.higher_is_better("precision") and not comparison.higher_is_better("fid")


def test_runs_of_one_label_and_unlike_settings_are_two_variants():
    plain = run("a", 3.0, 80, label="plain")
    other = run("b", 2.0, 80, seed=1, label="plain", settings={"tracker.aim.every": "1"})
    comparison = compared_runs([plain, other, run("a4", 1.0, 80, seed=1, label="plain")], "test", order=["plain"])
    assert [(group.name, len(group.runs)) for group in comparison.groups] == [("plain", 2), ("plain'", 1)]


def test_an_evaluation_after_training_does_not_touch_the_rate():
    def at(images, clock, day=1):
        return Result("fid", 1.0, images // 10, images, f"2030-01-0{day}T{clock}+00:00")

    trained = [at(100, "10:00:00"), at(200, "10:00:10"), at(300, "10:00:20")]
    later = [at(200, "09:00:00", 3), at(300, "10:00:00", 4)]
    assert images_per_second([*trained, *later]) == pytest.approx(10)


def test_a_time_that_is_none_gives_no_rate():
    results = [Result("fid", 1.0, 1, images, time) for images, time in ((10, "then"), (20, "2030-01-01T10:00:00"))]
    assert images_per_second(results) is None
    later = Result("fid", 1.0, 1, 30, "2030-01-01T10:00:10+00:00")
    assert images_per_second([*results, later]) == pytest.approx(1)
