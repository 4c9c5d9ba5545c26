import subprocess
import sys

import pytest

from stylenat.ablation.outcomes import OUTCOMES, Ended, outcomes, record_outcome
from stylenat.comparison.status import FAILED, FINISHED, NOT_BEGUN, RUNNING, STOPPED, status_of
from stylenat.training.run import PREEMPTED, only_process

HOLDS = """
import sys
from pathlib import Path
from stylenat.training.run import only_process
with only_process(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path):
    """A run folder with a checkpoint of iteration 4."""
    (tmp_path / "run" / "checkpoints" / "step-000000004").mkdir(parents=True)
    (tmp_path / "run" / "config.gin").touch()
    return tmp_path / "run"


def test_the_checkpoint_or_the_last_evaluation_says_whether_a_run_is_finished(run):
    assert status_of(run, 4, 0).word == FINISHED
    assert status_of(run, 8, 8).word == FINISHED
    assert status_of(run, 8, 2, Ended(75)).step == 4


def test_a_stopped_run_is_told_from_one_that_failed(run):
    assert str(status_of(run, 8, 0, Ended(75))) == "stopped at iteration 4"
    failed = status_of(run, 8, 0, Ended(1, "RuntimeError: boom"))
    assert (failed.word, failed.reason, failed.step) == (FAILED, "RuntimeError: boom", 4)
    assert status_of(run, 8, 0).word == FAILED and "left no reason" in status_of(run, 8, 0).reason
    (run / PREEMPTED).touch()  # Stopped after it went on by another command.
    assert status_of(run, 8, 0, Ended(1, "RuntimeError: boom")).word == STOPPED


def test_a_run_without_a_folder_has_not_begun_or_could_not(tmp_path):
    assert status_of(tmp_path / "run", 8, 0).word == NOT_BEGUN
    assert status_of(tmp_path / "run", 8, 0, Ended(2, "error: no data")).reason == "error: no data"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who holds a lock")
def test_a_run_whose_lock_is_held_is_running_and_asking_takes_no_lock(run):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        assert status_of(run, 8, 0, Ended(1, "an earlier failure")).word == RUNNING
        process.communicate("")
    assert status_of(run, 8, 0).word == FAILED
    with only_process(run):
        pass


def test_the_last_outcome_counts_and_torn_lines_are_passed_over(tmp_path):
    assert outcomes(tmp_path) == {}
    record_outcome(tmp_path, "a", 1, "boom")
    record_outcome(tmp_path, "b", -9, "killed")
    record_outcome(tmp_path, "a", 0)
    with open(tmp_path / OUTCOMES, "a") as file:
        file.write('[1]\n{"run": "b", "co')
    assert outcomes(tmp_path) == {"a": Ended(0), "b": Ended(-9, "killed")}
