import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylenat.comparison.parameters import telling
from stylenat.comparison.plots import front_of
from stylenat.comparison.results import Spread, _told_apart
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
