import pytest

from plugins.schedules.schedules import Constant, Cosine, LinearDecay, Step, Warmup
from registry import UserError
from stylenat.interfaces import Time


@pytest.mark.parametrize(
    "schedule, values",
    [
        (Constant(), [1, 1, 1, 1, 1]),
        (Constant(0.3), [0.3] * 5),
        (LinearDecay(2), [1, 1, 1, 2 / 3, 1 / 3]),
        (LinearDecay(0, value=5), [5, 4, 3, 2, 1]),
        (Warmup(4), [0.25, 0.5, 0.75, 1, 1]),
        (Warmup(2, then=LinearDecay(0, value=5)), [2.5, 4, 3, 2, 1]),
        (Cosine(3, 1, images=20), [3, 2, 1, 1, 1]),
        (Step(0, 2, images=20), [0, 0, 2, 2, 2]),
    ],
)
def test_a_schedule_in_a_run_of_five_iterations_of_ten_images(schedule, values):
    assert [schedule(Time(i, 10 * i, 5, 10)) for i in range(5)] == pytest.approx(values)


def test_a_decay_that_begins_at_the_end_is_refused():
    LinearDecay(4).check(5)
    with pytest.raises(UserError, match="must lie before train.iterations = 5; got 5"):
        LinearDecay(5).check(5)
