"""Standard streams that are closed, full or gone."""

import os
import subprocess
import sys

import pytest

from stylenat.commands import _streams
from stylenat.commands.run import main as run
from stylenat.training import launch

COMMAND = """
import sys
from registry import UserError
from stylenat.commands import _streams
from stylenat.commands._command import command

@command
def main(argv):
    if "optional" in argv:
        _streams.go_on_without()
    with open("file", "w") as file:
        descriptor = file.fileno()
        print("first", flush=True)
        print("second")
        print("a line on stderr", file=sys.stderr)
    if "mistake" in argv:
        raise UserError("a mistake")
    return 0 if descriptor > 2 else 9

sys.exit(main(sys.argv[1:]))
"""


def started(tmp_path, redirection, *argv, unbuffered=""):
    (tmp_path / "command.py").write_text(COMMAND)
    line = f'exec "{sys.executable}" command.py {" ".join(argv)} {redirection}'
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    environment["PYTHONUNBUFFERED"] = unbuffered
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (tmp_path / "file").read_text() == ""  # Nothing that was printed.
    return done


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_results_that_cannot_be_written_are_one_line_and_an_error(tmp_path, unbuffered):
    done = started(tmp_path, ">/dev/full", unbuffered=unbuffered)
    wrong = "error: standard output cannot be written (No space left on device); redirect it to another file\n"
    assert (done.returncode, done.stderr) == (2, wrong)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_that_needs_no_log_goes_on_without_it(tmp_path, unbuffered):
    done = started(tmp_path, ">/dev/full", "optional", unbuffered=unbuffered)
    line = "standard output cannot be written (No space left on device); the run goes on without it"
    assert (done.returncode, done.stderr.splitlines()) == (0, [line, "a line on stderr"])
    done = started(tmp_path, "2>/dev/full", "optional", unbuffered=unbuffered)
    assert done.returncode == 0 and "standard error cannot be written" in done.stdout and "second" in done.stdout
    assert started(tmp_path, ">/dev/full 2>/dev/full", "optional", unbuffered=unbuffered).returncode == 0


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_an_exit_code_does_not_depend_on_standard_error(tmp_path, redirection):
    assert started(tmp_path, redirection).returncode == 0
    assert started(tmp_path, redirection, "mistake").returncode == 2


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path, redirection):
    assert started(tmp_path, redirection).returncode == 0


def test_a_training_needs_no_log(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(_streams, "go_on_without", lambda: asked.append(True))
    monkeypatch.setattr(launch, "run_experiment", lambda *arguments: "finished")
    assert run(["--list", "loss"]) == 0 and not asked
    assert run(tiny) == 0 and asked
