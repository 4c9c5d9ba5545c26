"""``torchrun`` for real: processes that die, restart, are given nonsense; and a run that changes their number."""

import json
import os
import subprocess
import sys
import traceback
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from pretended_gpu import pretended_gpu
from safetensors.torch import load_file
from torch import distributed

from stylenat.commands.run import main
from stylenat.training import agreement, processes

ROOT = Path(__file__).parents[2]

# Process 1 fails in iteration 3, in its first life.
FAULTY = """
import atexit, os, signal
from pathlib import Path
from registry import hookimpl
from plugins.augmentations.ada import AdaptiveAugmentation

class Faulty(AdaptiveAugmentation):
    def observe(self, real_logits):
        super().observe(real_logits)
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if self._adaptation.images_seen == 12 and first and os.environ.get("RANK") == "1":
            FAULT

def note_threads():
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    Path("threads-" + os.environ["RANK"]).write_text(" ".join(names))

if "RANK" in os.environ:
    atexit.register(note_threads)

@hookimpl
def stylenat_register(register):
    register("augmentation", "faulty", Faulty)
"""
BINDS = [
    "train.augmentation = @augmentation.faulty()",
    "augmentation.faulty.initial_p = 0.5",
    "generator.style.channels = [16, 16]",
    "discriminator.wavelet.channels = [8]",
    "discriminator.wavelet.spectral_norm = True",
    "SIDE = 8",
    "train.iterations = 4",
    "train.batch_size = 4",
    "train.threads = 1",
    "train.sample_every = 4",
    "train.sample_count = 4",
    "train.evaluate_every = 4",
    "train.evaluation_samples = 16",
    "train.checkpoint_every = 2",
    "train.trackers = [@tracker.jsonl()]",
    "train.metrics = [@metric.frechet_random_features()]",
]


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Of a run of seconds whose process 1 fails as ``FAULT`` in faulty.py says."""
    monkeypatch.chdir(tmp_path)
    return ["--gin", "quickstart.gin", "--plugin", "faulty.py", *(part for b in BINDS for part in ("--bind", b))]


def torchrun(arguments, fault="pass", restarts=0):
    Path("faulty.py").write_text(FAULTY.replace("FAULT", fault))
    options = ["--nproc-per-node=2", "--standalone", f"--max-restarts={restarts}", str(ROOT / "tools" / "run.py")]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def together(arguments, of_rank_1=None, fault="pass", around=nullcontext):
    """Two processes of one run as torchrun starts them, but forked from this one, which has imported everything.

    Args:
        around: context in which each calls the command.

    Returns each process's exit code, and what both wrote to stderr.
    """
    if any("autograd" in path.read_text() for path in Path("/proc/self/task").glob("*/comm")):
        return in_a_new_process(arguments, of_rank_1, fault, around)
    Path("faulty.py").write_text(FAULTY.replace("FAULT", fault))
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # As torchrun's agent has it.
    torch.set_num_threads(1)  # Threads do not live through a fork.
    pids = []
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
                os.environ |= {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True"}
                for number, name in ((1, "out"), (2, "err")):
                    os.dup2(os.open(f"{name}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                with around():
                    code = main(of_rank_1 if rank and of_rank_1 else arguments)
            except Exception:
                traceback.print_exc()
            except SystemExit as end:
                code = end.code
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return codes, "".join(Path(f"err-{rank}").read_text() for rank in range(2))


def in_a_new_process(arguments, of_rank_1, fault, around):
    """``together`` from a process of its own: autograd's threads, which a test before this one started for tensors of
    other devices, do not live through a fork."""
    script = (
        "import datetime, json, sys, test_torchrun as tests\n"
        "*given, around, tests.processes.TIMEOUT, tests.processes.MOMENT = json.loads(sys.argv[1])\n"
        "for name in ('TIMEOUT', 'MOMENT'):\n"
        "    setattr(tests.processes, name, datetime.timedelta(seconds=getattr(tests.processes, name)))\n"
        "print(json.dumps(tests.together(*given, getattr(tests, around))))\n"
    )
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "tests/commands", "tests/common"))
    waits = [wait.total_seconds() for wait in (processes.TIMEOUT, processes.MOMENT)]
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([arguments, of_rank_1, fault, around.__name__, *waits])],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def weights(checkpoint):
    return {
        f"{file.stem}.{k}": v for file in Path(checkpoint).glob("*.safetensors") for k, v in load_file(file).items()
    }


def test_a_killed_process_restarts_all_and_the_run_goes_on_with_any_number_of_them(arguments):
    done = torchrun([*arguments, "--run-dir", "two"], "os.kill(os.getpid(), signal.SIGKILL)", restarts=1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("continuing from two/checkpoints/step-000000002") == 1
    assert len(Path("two/metrics.jsonl").read_text().splitlines()) == 1

    longer = [*arguments, "--bind", "train.iterations = 6"]
    assert main([*longer, "--run-dir", "one", "--resume", "two/checkpoints/step-000000004"]) == 0
    assert main([*longer, "--run-dir", "whole"]) == 0
    divided, whole = weights("one/checkpoints/step-000000006"), weights("whole/checkpoints/step-000000006")
    assert divided.keys() == whole.keys() and len(divided) > 50
    for name, value in whole.items():
        torch.testing.assert_close(divided[name], value, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_two_processes_stop_together_when_one_is_asked_to_and_end_with_the_same_bits(arguments, everything):
    assert together([*arguments, "--run-dir", "whole"])[0] == [0, 0]
    stopped = torchrun([*arguments, "--run-dir", "parts"], "os.kill(os.getpid(), signal.SIGUSR1)")
    assert stopped.returncode == 0, stopped.stderr
    for rank in range(2):
        assert "gloo" not in Path(f"threads-{rank}").read_text()  # One that wakes during the exit would abort it.
    assert "iteration 3" in Path("parts/PREEMPTED").read_text()
    assert sorted(path.name for path in Path("parts/checkpoints").iterdir())[-1] == "step-000000003"
    assert together([*arguments, "--run-dir", "parts"])[0] == [0, 0]
    assert everything(Path("whole")) == everything(Path("parts"))
    assert not Path("parts/PREEMPTED").exists()


def test_a_fault_in_one_process_ends_all_with_its_traceback_printed_once(arguments):
    done = torchrun([*arguments, "--run-dir", "run"], "raise ZeroDivisionError('in process 1')")
    assert done.returncode != 0
    assert done.stderr.count("ZeroDivisionError: in process 1") == 1
    assert done.stderr.count("Traceback") == 2 and "ChildFailedError" in done.stderr  # torchrun reports as well


@contextmanager
def one_gpu_each():
    """As on two machines with one pretended GPU each, whose tensors travel by gloo."""
    os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with pretended_gpu(), patch.object(distributed, "is_nccl_available", lambda: False):
        yield


def test_two_processes_with_a_gpu_each_make_the_steps_of_one(arguments):
    binds = ["--bind", "train.device = 'cuda'", "--bind", "train.metrics = []"]
    codes, err = together([*arguments, *binds, "--run-dir", "gpu"], around=one_gpu_each)
    assert codes == [0, 0], err
    assert together([*arguments, *binds[2:], "--run-dir", "cpu"])[0] == [0, 0]
    name = "checkpoints/step-000000004"
    gpu, cpu = weights(Path("gpu", name)), weights(Path("cpu", name))
    assert gpu.keys() == cpu.keys() and len(gpu) > 50
    for name, value in cpu.items():
        torch.testing.assert_close(gpu[name], value, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_the_process_that_hangs_is_named(arguments, monkeypatch):
    monkeypatch.setattr(processes, "TIMEOUT", timedelta(seconds=8))
    monkeypatch.setattr(processes, "MOMENT", timedelta(seconds=1))
    # Longer than the other needs to give up, and not an answer to anything afterwards.
    codes, err = together([*arguments, "--run-dir", "run"], fault="import time; time.sleep(14); os._exit(7)")
    assert codes == [1, 7]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert lines == [
        "error: process 0 waited for process 1 of this run, which died or did nothing for 8 s; it ends too"
    ]
    assert "Traceback" not in err


def test_processes_that_were_started_differently_end_before_anything_is_written(arguments):
    Path("mine.gin").write_text("include 'quickstart.gin'\ntrain.seed = 1\n")
    codes, err = together(arguments, ["--gin", "mine.gin", *arguments[2:]])
    assert codes == [2, 2]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "process 1 of this run was started differently: " in lines[0]
    assert "train.seed: 1 there, 0 in process 0; give every process the same gin files" in lines[0]
    assert not Path("runs").exists()


def test_a_bad_gin_file_gets_one_line_from_one_process(arguments):
    codes, err = together([*arguments, "--bind", "train.batch_size = 6", "--bind", "train.accumulate = 2"])
    assert codes == [2, 2]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "does not divide among 2 process(es) x train.accumulate = 2" in lines[0]
    assert "Traceback" not in err and not Path("runs").exists()


@contextmanager
def on_two_machines():
    """As on two machines, each with a working folder of its own, which count their restarts each for itself."""
    rank = os.environ["RANK"]
    os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    os.environ["TORCHELASTIC_RESTART_COUNT"] = rank
    Path(f"machine-{rank}").mkdir(exist_ok=True)
    os.chdir(f"machine-{rank}")
    yield


def test_machines_share_the_run_folder_alone_and_end_with_the_bits_of_one(arguments, everything, tmp_path):
    plugin = ["--plugin", str(tmp_path / "faulty.py")]
    arguments = [*plugin, *(word for word in arguments if word not in ("--plugin", "faulty.py"))]
    codes, err = together([*arguments, "--run-dir", str(tmp_path / "shared")], around=on_two_machines)
    assert codes == [0, 0], err
    assert all((tmp_path / f"machine-{rank}" / "data/lfw_faces_8.lmdb").is_dir() for rank in range(2))
    assert not list(tmp_path.glob("machine-*/runs")) and not (tmp_path / "data").exists()
    assert together([*arguments, "--run-dir", "alone"])[0] == [0, 0]
    assert everything(tmp_path / "shared") == everything(Path("alone"))


@pytest.mark.parametrize("exists", [False, True])
def test_a_run_folder_that_machines_do_not_share_is_refused_in_one_line(arguments, monkeypatch, tmp_path, exists):
    monkeypatch.setattr(agreement, "SEEN_WITHIN", 0.5)
    binds = [part for bind in BINDS[2:] for part in ("--bind", bind)]
    for rank in range(2 if exists else 0):
        (tmp_path / f"machine-{rank}" / "run").mkdir(parents=True)
    codes, err = together([*arguments[:2], *binds, "--run-dir", "run"], around=on_two_machines)
    assert codes == [2, 2]
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "process 1 on " in line and " does not see the run folder of process 0 on " in line and "--run-dir" in line
    assert "Traceback" not in err
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("machine-*/**/*")}
    assert left == ({"machine-0/run", "machine-1/run"} if exists else set())
