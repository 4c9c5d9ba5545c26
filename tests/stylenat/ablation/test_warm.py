"""Runs that are forked with PyTorch imported are, to whoever looks, runs that were started by themselves."""

import signal
import subprocess
import sys
import time

import pytest

from registry import UserError
from stylenat.ablation import warm
from stylenat.ablation.execute import only_one
from stylenat.ablation.runners import LocalRunner, all_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent ended")

SHOWS = """
import os, sys, torch
own = os.getsid(0) == os.getpid(), os.readlink("/proc/self/fd/0"), os.path.basename(sys.argv[0]), sys.argv[1:]
print("SHOWN", sorted(os.sched_getaffinity(0)), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], own)
"""
WAITS = "import time; print('waiting', flush=True); time.sleep(60)"


def stylenat(*arguments):
    return [sys.executable, "-P", "-m", "stylenat", "run", *arguments]


def until(there, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture
def plugin(tmp_path):
    """``plugin(code)``: the arguments of a quick command that executes it first."""

    def write(code):
        path = tmp_path / f"plugin{len(list(tmp_path.glob('plugin*')))}.py"
        path.write_text(code)
        return ["--plugin", str(path), "--list", "partition"]

    return write


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with only_one(tmp_path_factory.mktemp("ablation")) as lock:
        runner = LocalRunner(1, 1, lock, warm=True)
        yield runner
        runner.close()


def ended(process):
    until(lambda: process.poll() is not None)
    return process.poll()


def shown(log):
    return next(line for line in log.read_text().splitlines() if line.startswith("SHOWN "))


def test_a_forked_run_sees_what_one_of_its_own_sees(runner, plugin, tmp_path):
    arguments = plugin(SHOWS)
    logs = [tmp_path / name for name in ("forked", "alone")]
    forked = runner.start(stylenat(*arguments), logs[0])
    assert ended(forked) == 0
    alone = LocalRunner(1, 1, runner._lock)
    assert ended(alone.start(stylenat(*arguments), logs[1])) == 0
    for log in logs:
        assert log.read_text().splitlines()[0].endswith(" ".join(stylenat(*arguments)))
        assert "partition.split" in log.read_text()
    assert shown(logs[0]) == shown(logs[1])
    assert shown(logs[0]).startswith(f"SHOWN {all_cores()} 1 1 (True, '/dev/null', '__main__.py', ['run', '--plugin'")


def test_mistakes_faults_and_signals_have_their_exit_codes(runner, plugin, tmp_path):
    assert ended(runner.start(stylenat("--gin", "nowhere.gin"), tmp_path / "mistake")) == 2
    assert "error: there is no gin file" in (tmp_path / "mistake").read_text()
    fault = plugin("import atexit, os; atexit.register(os._exit, 7)")
    assert ended(runner.start(stylenat(*fault), tmp_path / "fault")) == 7
    for number, (ask, code) in enumerate((("stop", 75), ("kill", -signal.SIGKILL))):
        log = tmp_path / f"log{number}"
        process = runner.start(stylenat(*plugin(WAITS)), log)
        until(lambda log=log: log.exists() and "waiting" in log.read_text().splitlines())
        getattr(process, ask)()
        assert ended(process) == code


@pytest.fixture
def quickly(monkeypatch):
    """The process that forks imports nothing first."""
    monkeypatch.setattr(warm, "ALWAYS", ())


def test_runs_at_a_time_have_cores_of_their_own(plugin, tmp_path, quickly):
    if len(all_cores()) < 2:
        pytest.skip("runs at a time need a core each")
    with only_one(tmp_path) as lock:
        runner = LocalRunner(2, 1, lock, warm=True)
        arguments = plugin(SHOWS.replace("torch.get_num_threads()", "1").replace(", torch", ""))
        processes = [runner.start(stylenat(*arguments), tmp_path / f"log{i}") for i in range(2)]
        assert [ended(process) for process in processes] == [0, 0]
        runner.close()
    cores = {shown(tmp_path / f"log{i}").partition("]")[0] for i in range(2)}
    assert cores == {f"SHOWN [{core}" for core in all_cores()[:2]}


COMPUTES = """
import torch
from stylenat.native.threads import threads
from stylenat.attention.op import neighborhood_attention
q = torch.randn(1, 64, 64, 4, 32)
out = neighborhood_attention(q, q, q, kernel_size=7, backend="compiled")
torch.mm(torch.randn(1024, 1024), torch.randn(1024, 1024))
print("SHOWN", threads(), torch.get_num_threads(), out.isfinite().all().item())
"""


def test_a_forked_run_computes_on_all_its_threads(plugin, tmp_path, monkeypatch):
    if len(all_cores()) < 2:
        pytest.skip("threads need a core each")
    monkeypatch.setattr(warm, "ALWAYS", ("stylenat.attention.compiled",))
    with only_one(tmp_path) as lock:
        runner = LocalRunner(1, 2, lock, warm=True)
        assert ended(runner.start(stylenat(*plugin(COMPUTES)), tmp_path / "log")) == 0
        runner.close()
    assert shown(tmp_path / "log") == "SHOWN 2 2 True"


def test_without_the_process_that_forks_runs_end_and_others_start_by_themselves(plugin, tmp_path, quickly):
    with only_one(tmp_path) as lock:
        runner = LocalRunner(1, 1, lock, warm=True)
        waiting = runner.start(stylenat(*plugin(WAITS)), tmp_path / "log")
        until(lambda: (tmp_path / "log").exists() and "waiting" in (tmp_path / "log").read_text().splitlines())
        runner._starter._process.kill()
        runner._starter._process.wait()
        assert ended(waiting) == -signal.SIGTERM
        assert "stopped before anything began" in (tmp_path / "log").read_text()
        assert ended(runner.start(stylenat(*plugin("")), tmp_path / "other")) == 0
        runner.close()


PARENT = """
import sys, time
from pathlib import Path
from stylenat.ablation import warm
from stylenat.ablation.execute import only_one
from stylenat.ablation.runners import LocalRunner
warm.ALWAYS = ()
folder = Path(sys.argv[1])
with only_one(folder) as lock:
    runner = LocalRunner(1, 1, lock, warm=True)
    runner.start(sys.argv[2:], folder / "log")
    time.sleep(60)
"""


def test_a_forked_run_ends_when_the_ablation_is_killed(plugin, tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), *stylenat(*plugin(WAITS))])
    until(lambda: (tmp_path / "log").exists() and "waiting" in (tmp_path / "log").read_text().splitlines())
    parent.kill()
    parent.wait()

    def free():
        try:
            with only_one(tmp_path):
                return True
        except UserError:
            return False

    until(free)
    assert "stopped before anything began" in (tmp_path / "log").read_text()
