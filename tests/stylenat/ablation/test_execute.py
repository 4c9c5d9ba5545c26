"""The executor with scripts in the place of trainings."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from registry import UserError
from stylenat.ablation import execute as module
from stylenat.ablation.display import Display
from stylenat.ablation.execute import execute, only_one
from stylenat.ablation.plan import Job
from stylenat.ablation.runners import LocalRunner, all_cores

FINISHES = "print('8/8  done')"
FAILS = "import sys; print('noise'); print('error: no luck', file=sys.stderr); sys.exit(2)"
CRASHES = "import os; print('Traceback'); os.abort()"
STOPS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print('3/8  so far', flush=True)
time.sleep(60)
"""
REPORTS = "import os; print(sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'], end='')"


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Runs one script a job; returns the outcomes by name."""

    def run(scripts, slots=1, threads=1, runner=None):
        jobs = [
            Job(name, 0, tmp_path / name, tmp_path / f"{name}.gin", "", 8, 8 if script is None else 0)
            for name, script in scripts.items()
        ]
        monkeypatch.setattr(module, "command_of", lambda job, plugins: [sys.executable, "-c", scripts[job.name]])
        with only_one(tmp_path) as lock:
            runner = runner or LocalRunner(slots, threads, lock)
            return {o.job.name: o for o in execute(jobs, runner, tmp_path, Display(jobs))}

    return run


def test_one_that_fails_is_reported_and_the_rest_goes_on(play, capsys):
    outcomes = play({"a": FAILS, "b": CRASHES, "c": FINISHES, "over": None})
    assert {name: o.code for name, o in outcomes.items()} == {"a": 2, "b": -signal.SIGABRT, "c": 0}
    assert outcomes["a"].reason == "error: no luck"
    assert outcomes["b"].reason == "killed by SIGABRT; the same command continues"
    said = capsys.readouterr().err
    assert "1 of 4 runs are finished already" in said and "a: failed with 2: error: no luck" in said


def test_an_exception_of_several_lines_is_told_by_its_first(play):
    outcomes = play(
        {"a": "raise RuntimeError('boom\\nsecond line')", "b": "print('that was all'); raise SystemExit(3)"}
    )
    assert outcomes["a"].reason == "RuntimeError: boom" and outcomes["b"].reason == "that was all"


def test_a_request_to_stop_reaches_every_run_and_no_other_is_started(play, capsys):
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    if len(all_cores()) < 2:
        pytest.skip("runs at a time need a core each")
    outcomes = play({"a": STOPS, "b": STOPS, "c": STOPS}, slots=2)
    assert {name: o.code for name, o in outcomes.items()} == {"a": 75, "b": 75}
    assert "stopping: 2 running" in capsys.readouterr().err


def test_runs_at_a_time_have_cores_and_threads_of_their_own(play, tmp_path):
    cores = all_cores()
    if len(cores) < 2:
        pytest.skip("runs at a time need a core each")
    outcomes = play(dict.fromkeys("ab", f"import time; time.sleep(0.2)\n{REPORTS}"), slots=2)
    assert all(o.code == 0 for o in outcomes.values())
    said = {(tmp_path / "logs" / f"{name}.log").read_text().splitlines()[-1] for name in "ab"}
    assert said == {f"[{cores[0]}] 1", f"[{cores[1]}] 1"}


def test_one_at_a_time_uses_all_cores(play, tmp_path):
    play({"a": REPORTS}, threads=None)
    assert (tmp_path / "logs" / "a.log").read_text().splitlines()[-1] == f"{all_cores()} {len(all_cores())}"


def test_more_threads_than_cores_are_refused():
    with pytest.raises(UserError, match="cores; there are"):
        LocalRunner(2, len(all_cores()), 0)


def test_an_ablation_that_is_being_run_is_not_run_twice(tmp_path):
    with only_one(tmp_path), pytest.raises(UserError, match="another process"), only_one(tmp_path):
        pass


def test_ray_runs_the_same_jobs_and_passes_a_stop_on(play, tmp_path, capfd):
    pytest.importorskip("ray", reason="Ray is not installed")
    from stylenat.ablation.runners import RayRunner

    runner = RayRunner("local", 1)
    try:
        outcomes = play({"a": FINISHES, "b": FAILS}, runner=runner)
        assert {name: o.code for name, o in outcomes.items()} == {"a": 0, "b": 2}
        begun = tmp_path / "logs" / "c.log"
        process = runner.start([sys.executable, "-c", STOPS], begun)
        for _ in range(200):
            if begun.exists() and "so far" in begun.read_text():
                break
            time.sleep(0.1)
        process.stop()
        for _ in range(200):
            if process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.poll() == 75
    finally:
        runner.close()


def test_without_ray_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    from stylenat.ablation.runners import RayRunner

    with pytest.raises(UserError, match="pip install 'stylenat"):
        RayRunner("local", 1)


def test_a_log_that_is_not_there_yet_says_nothing(tmp_path):
    job = Job("a", 0, tmp_path / "a", Path("a.gin"), "", 8, 3)
    assert module.steps_done(tmp_path / "none.log", job) == 3
