import logging
import os
import re
import sys
import termios
from contextlib import contextmanager, suppress

import pytest
from rich.console import Console

from plugins.trackers import progress
from plugins.trackers.progress import Progress

SCALARS = {"loss/discriminator": 1.25, "loss/generator": 0.5, "augmentation/p": 0.125, "logits/real": 3.0}


class Scalar:
    """Counts how often it is read, as a tensor on a device cannot."""

    def __init__(self):
        self.read = 0

    def __float__(self):
        self.read += 1
        return 1.5


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to: ``clock.now``."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@contextmanager
def terminal(columns=100):
    """Makes stdout and stderr a real terminal; gives a function that returns the lines to be seen there."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    termios.tcsetwinsize(theirs, (40, columns))
    stdout, stderr = (open(os.dup(theirs), "w", encoding="utf-8", buffering=1) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, stdout, stderr:
        for name in ("COLUMNS", "LINES", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm-256color")
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)

        def seen():
            stdout.flush()
            stderr.flush()
            return screen(b"".join(_everything(ours)).decode())

        yield seen
    os.close(ours)
    os.close(theirs)


def _everything(descriptor):
    with suppress(BlockingIOError):
        while True:
            yield os.read(descriptor, 65536)


def screen(sent):
    """The lines that a terminal shows for what rich sends: text, colours, line feeds, and cursor and erase moves."""
    lines, row, column = [""], 0, 0
    for control, text in re.findall(r"(\x1b\[[?0-9;]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", sent):
        if text:
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + len(text) :]
            column += len(text)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif control.endswith("A"):
            row -= int(control[2:-1] or 1)
        elif control == "\x1b[2K":
            lines[row] = ""
        else:
            assert control.endswith("m") or control in ("\x1b[?25l", "\x1b[?25h"), control
    return [line.rstrip() for line in lines if line.strip()]


def test_elsewhere_than_in_a_terminal_a_plain_line_comes_every_line_every_seconds(make_run, clock, capsys):
    run, tracker = make_run(), Progress(line_every=10)
    tracker.run_started(run)
    for step in range(1, 51):
        clock.now += 1
        tracker.step_ended(run, step, SCALARS)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert [line.split()[0] for line in lines] == ["10/100", "20/100", "30/100", "40/100", "50/100"]
    assert lines[-1] == "50/100  4.0 img/s  D 1.25  G 0.50  p 0.12  ETA 0:00:50"
    assert "\x1b" not in err and "\r" not in err


def test_scalars_are_read_only_when_something_is_shown(make_run, clock, capsys):
    run, tracker, scalar = make_run(), Progress(line_every=10), Scalar()
    tracker.run_started(run)
    for step in range(1, 31):
        clock.now += 1
        tracker.step_ended(run, step, {"loss/generator": scalar})
    assert scalar.read == 3


def test_the_rate_is_smoothed_and_counts_from_the_step_that_was_resumed(make_run, clock, capsys):
    run, tracker = make_run(step=50, resumed=True), Progress(line_every=10)
    tracker.run_started(run)
    for step, seconds in ((60, 10), (70, 20)):
        clock.now += seconds
        tracker.step_ended(run, step, {})
    first, second = capsys.readouterr().err.splitlines()
    assert first == "60/100  4.0 img/s  ETA 0:00:40"
    assert second == "70/100  3.4 img/s  ETA 0:00:35"


def test_the_last_metric_stays_in_sight(make_run, clock, capsys):
    run, tracker = make_run(), Progress()
    tracker.run_started(run)
    tracker.metrics_evaluated(run, 10, {"fid": 12.3456, "swd": 1.0})
    clock.now += 10
    tracker.step_ended(run, 11, {})
    assert capsys.readouterr().err.endswith("fid 12.3\n")


@pytest.mark.parametrize("status", ["finished", "stopped"])
def test_the_last_state_is_printed_at_the_end_however_soon_it_comes(make_run, clock, capsys, status):
    run, tracker = make_run(), Progress()
    tracker.run_started(run)
    clock.now += 2
    run.step = 42
    tracker.step_ended(run, 42, SCALARS)
    tracker.run_ended(run, status)
    assert capsys.readouterr().err == "42/100  84.0 img/s  D 1.25  G 0.50  p 0.12  ETA 0:00:03\n"


def test_after_a_failure_no_scalar_is_read_because_its_device_may_be_gone(make_run, clock, capsys):
    run, tracker, scalar = make_run(), Progress(), Scalar()
    tracker.run_started(run)
    tracker.step_ended(run, 1, {"loss/generator": scalar})
    tracker.run_ended(run, "failed")
    assert scalar.read == 0


def test_in_a_terminal_one_line_is_drawn_over_again_and_the_last_state_stays(make_run, clock):
    with terminal() as seen:
        run, tracker = make_run(), Progress(every=1)
        tracker.run_started(run)
        for step in range(1, 101):
            clock.now += 0.3
            run.step = step
            tracker.step_ended(run, step, SCALARS)
        tracker.run_ended(run, "finished")
        (line,) = seen()
        assert "100/100 13.3 img/s  D 1.25  G 0.50  p 0.12  ETA 0:00:00" in line


def test_in_a_terminal_scalars_are_read_once_every_so_many_seconds(make_run, clock):
    with terminal():
        run, tracker, scalar = make_run(), Progress(every=2), Scalar()
        tracker.run_started(run)
        for step in range(1, 51):
            clock.now += 0.5
            tracker.step_ended(run, step, {"loss/generator": scalar})
        assert scalar.read == 12
        tracker.run_ended(run, "failed")


def test_what_others_print_stands_whole_above_the_line(make_run, clock):
    with terminal() as seen:
        logger = logging.getLogger("others")
        handler = logging.StreamHandler(sys.stderr)
        logger.addHandler(handler)
        earlier = Console()
        run, tracker = make_run(), Progress(every=1)
        tracker.run_started(run)
        for step in (1, 2):
            clock.now += 5
            tracker.step_ended(run, step, SCALARS)
            print(f"a print {step}")
            logger.warning("a warning %d", step)
            earlier.print(f"[bold]a console[/bold] {step}")
            Console(stderr=True).print(f"a console on stderr {step}")
        run.step = 2
        tracker.run_ended(run, "finished")
        logger.removeHandler(handler)
        print("afterwards")
        *others, bar, last = seen()
        assert others == [
            f"{who} {n}" for n in (1, 2) for who in ("a print", "a warning", "a console", "a console on stderr")
        ]
        assert "2/100 0.8 img/s" in bar and last == "afterwards"


def test_names_of_others_are_no_markup_above_and_in_the_line(make_run, clock):
    with terminal() as seen:
        run, tracker = make_run(), Progress(every=1)
        tracker.run_started(run)
        for ending in ("\n", ""):
            print("runs/z[/b] and exp[lr=1e-3]", end=ending, flush=True)
        Console(stderr=True, markup=False).print("runs/z[/b]")
        tracker.metrics_evaluated(run, 1, {"a[/b]\x1b[31m": 1.0})
        run.step = 1
        tracker.run_ended(run, "finished")
        lines = seen()
    assert "".join(lines).count("runs/z[/b] and exp[lr=1e-3]") == 2 and r"a[/b]\x1b[31m 1" in lines[-1]


def test_the_streams_and_logging_handlers_are_given_back(make_run):
    with terminal():
        before = sys.stdout, sys.stderr
        handler = logging.StreamHandler(sys.stderr)
        logging.getLogger("others").addHandler(handler)
        run, tracker = make_run(), Progress()
        tracker.run_started(run)
        assert handler.stream is sys.stderr is not before[1]
        tracker.run_ended(run, "failed")
        logging.getLogger("others").removeHandler(handler)
        assert (sys.stdout, sys.stderr) == before and handler.stream is before[1]


def test_stdout_led_into_a_file_stays_out_of_the_terminal(make_run, clock, tmp_path):
    with terminal() as seen:
        run, tracker = make_run(), Progress()
        with open(tmp_path / "out.txt", "w") as out:
            stdout, sys.stdout = sys.stdout, out
            tracker.run_started(run)
            print("for the file")
            tracker.run_ended(run, "finished")
            sys.stdout = stdout
        assert (tmp_path / "out.txt").read_text() == "for the file\n"
        assert not any("for the file" in line for line in seen())


def test_a_terminal_of_80_columns_keeps_the_line_to_one_row(make_run, clock):
    with terminal(80) as seen:
        run, tracker = make_run(iterations=300000, batch_size=64), Progress()
        tracker.run_started(run)
        tracker.metrics_evaluated(run, 10, {"frechet_random_features": 12.3456})
        for step in (100000, 200000):
            clock.now += 50000
            run.step = step
            tracker.step_ended(run, step, SCALARS)
        tracker.run_ended(run, "stopped")
        (line,) = seen()
        assert "200000/300000 128.0 img/s  D 1.25  G 0.50" in line
        assert line.endswith("…") and len(line) <= 80
