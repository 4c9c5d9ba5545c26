"""The executor with scripts in the place of trainings."""

import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from registry import UserError
from stylenat.ablation import execute as module
from stylenat.ablation.display import Display
from stylenat.ablation.execute import execute, only_one
from stylenat.ablation.outcomes import outcomes as recorded
from stylenat.ablation.plan import Job
from stylenat.ablation.runners import RETRIES, LocalRunner, all_cores

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


def test_an_ablation_that_is_being_run_is_not_run_twice_and_the_process_is_named(tmp_path):
    said = rf"process {os.getpid()} on {re.escape(socket.gethostname())} is running this ablation in .* since 20\d\d-"
    with only_one(tmp_path), pytest.raises(UserError, match=said), only_one(tmp_path):
        pass
    with only_one(tmp_path):  # It was let go.
        pass


def test_a_lock_that_outlives_its_process_is_said_to(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    with only_one(tmp_path):
        record = json.loads((tmp_path / ".lock").read_text())
        (tmp_path / ".lock").write_text(json.dumps(record | {"pid": ended.pid}))
        with pytest.raises(UserError, match=f"process {ended.pid} .* has ended, but runs that it started"):
            with only_one(tmp_path):
                pass
        (tmp_path / ".lock").write_text("")
        with pytest.raises(UserError, match="another process"), only_one(tmp_path):
            pass


PARENT = """
import sys, time
from pathlib import Path
from stylenat.ablation.execute import only_one
from stylenat.ablation.runners import LocalRunner
folder = Path(sys.argv[1])
with only_one(folder) as lock:
    LocalRunner(1, 1, lock).start([sys.executable, "-c", sys.argv[2]], folder / "log")
    time.sleep(60)
"""
ASKED = """
import signal, sys, time, pathlib, os
def asked(*_):
    pathlib.Path(os.environ["SEEN"]).write_text("asked")
    sys.exit(75)
signal.signal(signal.SIGTERM, asked)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent ended")
def test_runs_end_with_a_checkpoint_when_the_ablation_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), ASKED])
    until(lambda: (tmp_path / "log").exists() and "ready" in (tmp_path / "log").read_text().split("\n"))
    parent.kill()
    parent.wait()
    until(lambda: (tmp_path / "seen").exists())

    def free():
        try:
            with only_one(tmp_path):
                return True
        except UserError:
            return False

    until(free)


def until(there, seconds=120):
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_progress_line_is_no_reason(play, tmp_path):
    outcomes = play({"a": "print('3/8  12.0 img/s'); raise SystemExit(3)"})
    assert outcomes["a"].reason == "it wrote no error"
    log = tmp_path / "log"
    log.write_text("--- 2030 python\nRuntimeError: of an earlier start\n--- 2030 python\n8/8  done\n")
    assert module.reason(1, log) == "it wrote no error"


def test_how_each_run_ended_is_recorded_for_comparisons(play, tmp_path):
    play({"a": FAILS, "b": CRASHES, "c": FINISHES})
    found = recorded(tmp_path)
    assert {name: ended.code for name, ended in found.items()} == {"a": 2, "b": -signal.SIGABRT, "c": 0}
    assert found["a"].reason == "error: no luck"


@pytest.fixture(scope="module")
def ray_runner():
    if find_spec("ray") is None:  # Not importorskip: Ray reads its settings when it is imported.
        pytest.skip("Ray is not installed")
    from stylenat.ablation.runners import RayRunner

    runner = RayRunner("local", 1)
    yield runner
    runner.close()


def test_ray_runs_the_same_jobs_and_passes_a_stop_on(play, tmp_path, ray_runner):
    outcomes = play({"a": FINISHES, "b": FAILS}, runner=ray_runner)
    assert {name: o.code for name, o in outcomes.items()} == {"a": 0, "b": 2}
    begun = tmp_path / "logs" / "c.log"
    process = ray_runner.start([sys.executable, "-c", STOPS], begun)
    until(lambda: begun.exists() and "so far" in begun.read_text())
    process.stop()
    until(lambda: process.poll() is not None)
    assert process.poll() == 75


def test_ray_listens_on_loopback_alone(ray_runner):
    listening = [connection for process in descendants(os.getpid()) for connection in listening_on(process)]
    names = {process_name(process) for process in descendants(os.getpid())}
    assert {"gcs_server", "raylet"} <= names and len(listening) > 3
    assert {address for address in listening if not address.is_loopback} == set()


def test_ray_starts_a_run_again_whose_worker_was_killed(tmp_path, ray_runner):
    script = """
import os, pathlib, sys, time
seen = pathlib.Path(sys.argv[1])
if seen.exists():
    sys.exit(0)
seen.write_text(f"{os.getppid()} {os.getpid()}")
time.sleep(60)
"""
    seen = tmp_path / "seen"
    process = ray_runner.start([sys.executable, "-c", script, str(seen)], tmp_path / "log")
    until(lambda: seen.exists() and len(seen.read_text().split()) == 2)
    worker, child = map(int, seen.read_text().split())
    os.kill(worker, signal.SIGKILL)
    until(lambda: process.poll() is not None)
    assert process.poll() == 0
    until(lambda: not Path(f"/proc/{child}").exists() or "\tZ" in Path(f"/proc/{child}/status").read_text())


KILLS_ITS_WORKER = """
import os, pathlib, signal, sys, time
seen = pathlib.Path({seen!r})
if not seen.exists():
    {then}
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
print('8/8  done')
"""


def test_a_killed_ray_worker_is_replaced_or_reported_and_no_other_run_notices(play, tmp_path, ray_runner):
    once = KILLS_ITS_WORKER.format(seen=str(tmp_path / "seen"), then="seen.touch()")
    always = KILLS_ITS_WORKER.format(seen=str(tmp_path / "never"), then="pass")
    outcomes = play({"once": once, "always": always, "a": FINISHES, "b": FAILS, "c": FINISHES}, runner=ray_runner)
    assert {name: o.code for name, o in outcomes.items()} == {"once": 0, "always": 1, "a": 0, "b": 2, "c": 0}
    assert outcomes["always"].reason.startswith("Ray: ") and "\n" not in outcomes["always"].reason
    starts = {name: (tmp_path / "logs" / f"{name}.log").read_text().count("\n--- ") + 1 for name in outcomes}
    assert starts == {"once": 2, "always": 1 + RETRIES, "a": 1, "b": 1, "c": 1}
    assert {name: ended.code for name, ended in recorded(tmp_path).items()} == {n: o.code for n, o in outcomes.items()}


def test_a_fault_of_ray_is_the_reason_and_not_the_logs_last_line(tmp_path):
    class Ray:
        class exceptions:
            class TaskCancelledError(Exception):
                pass

            class RayError(Exception):
                pass

        def wait(self, references, timeout):
            return references, []

        def get(self, reference):
            raise self.exceptions.RayError("the worker\ndied")

    from stylenat.ablation.runners import _OnRay

    process = _OnRay(Ray(), "reference")
    assert process.poll() == 1 and process.reason == "Ray: the worker died"


def descendants(process):
    """This process and all that it started, in Ray's sessions too."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def process_name(process):
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def listening_on(process):
    """The addresses that a process listens on, of /proc/net/tcp and tcp6."""
    try:
        links = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = bytes.fromhex(fields[1].partition(":")[0])
                packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                address = ipaddress.ip_address(packed)
                found.append(getattr(address, "ipv4_mapped", None) or address)
    return found


def test_without_ray_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    from stylenat.ablation.runners import RayRunner

    with pytest.raises(UserError, match="pip install 'stylenat"):
        RayRunner("local", 1)


def test_a_log_that_is_not_there_yet_says_nothing(tmp_path):
    job = Job("a", 0, tmp_path / "a", Path("a.gin"), "", 8, 3)
    assert module.steps_done(tmp_path / "none.log", job) == 3
