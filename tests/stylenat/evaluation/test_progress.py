import pytest

from stylenat.evaluation import progress
from stylenat.evaluation.progress import ProgressLine


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_lines_now_and_then_with_rate_and_time_left(clock, capsys):
    line = ProgressLine("generated", every=10, live=False)
    for second, done in enumerate(range(0, 480, 16), start=1):
        clock.now = second
        line(done, 3200)
    line.close()
    first, second, _ = capsys.readouterr().err.splitlines()
    assert first == "generated: 144/3200 images  16.0 img/s  ETA 0:03:11"
    assert second.startswith("generated: 304/3200 images  16.0 img/s")


def test_a_terminals_line_renews_itself_and_is_ended(clock, capsys):
    line = ProgressLine("real", live=True)
    for second, done in ((1, 16), (2, 32), (3, 48)):
        clock.now = second
        line(done, 48)
    line.close()
    written = capsys.readouterr().err
    assert written.count("\r") == 3 and written.count("\n") == 1 and written.endswith("\x1b[K\n")


def test_a_short_pass_says_nothing(clock, capsys):
    line = ProgressLine("real", live=False)
    line(16, 32)
    line(32, 32)
    assert capsys.readouterr().err == ""
