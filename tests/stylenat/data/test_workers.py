"""Worker processes: started any way, gone with the training process however that ends, and never a bus error."""

import faulthandler
import itertools
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from registry import UserError
from stylenat.data import workers
from stylenat.data.workers import decoded_ahead


def numbers(number, batch):
    batch.fill_(number)


def test_batches_come_in_order_and_stay_until_the_next_is_asked_for():
    batches = decoded_ahead(numbers, 3, (2, 2), torch.float32)
    for expected in range(20):
        batch = next(batches)
        time.sleep(0.01)
        assert (batch == expected).all()


def test_closing_the_iterator_ends_the_workers():
    batches = decoded_ahead(numbers, 2, (2,), torch.float32)
    next(batches)
    children = multiprocessing.active_children()
    assert len(children) >= 2
    batches.close()
    assert not any(child.is_alive() for child in children)


def test_too_little_shared_memory_is_said_before_anything_is_written(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: usage(64 * 2**20, 0, 64 * 2**20))
    with pytest.raises(UserError, match=r"need 192 MiB of shared memory.* has 64 MiB free; .*--shm-size"):
        next(decoded_ahead(numbers, 2, (16, 3, 512, 512), torch.float32))


def test_shared_memory_that_is_read_only_is_said(monkeypatch):
    monkeypatch.setattr(workers.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="/dev/shm is not writable; bind train.workers = 0"):
        next(decoded_ahead(numbers, 2, (2,), torch.float32))


def killed(number, batch):
    os.kill(os.getpid(), signal.SIGKILL)


def truncated(number, batch):
    """Reads a mapped file beyond its end."""
    with tempfile.TemporaryFile() as file:
        file.truncate(mmap.PAGESIZE)
        mapped = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        file.truncate(0)
        batch.fill_(mapped[0])


def gone(number, batch):
    os._exit(7)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (killed, "was killed, possibly out of memory; start again, with fewer train.workers"),
        (truncated, "met a bus error: a file of the data set was truncated or cannot be read"),
        (gone, "ended unexpectedly with exit code 7"),
    ],
)
def test_what_ended_a_worker_is_said_by_its_exit_code(fill, message):
    faulthandler.disable()  # Pytest's would print the stack of a bus error; it is expected here.
    try:
        with pytest.raises(UserError, match=message):
            next(decoded_ahead(fill, 1, (2,), torch.float32))
    finally:
        faulthandler.enable()


PROGRAM = """
import sys, time, torch
from torch import multiprocessing
from stylenat.data import workers
workers.PARENT_EVERY = 0.2

def fill(number, batch):
    batch.fill_(number)

if __name__ == "__main__":
    batches = workers.decoded_ahead(fill, 2, (2,), torch.float32)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    if sys.argv[1] == "wait":
        time.sleep(60)
    raise SystemExit(3)
"""


def started(tmp_path: Path, how: str) -> tuple[subprocess.Popen, list[int]]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, str(script), how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@needs_proc
def test_an_exit_with_the_iterator_alive_does_not_hang(tmp_path):
    process, children = started(tmp_path, "exit")
    assert process.wait(30) == 3
    assert all(ended(pid) for pid in children)


@needs_proc
def test_signals_that_mean_the_training_process_leave_workers_and_its_death_ends_them(tmp_path):
    process, children = started(tmp_path, "wait")
    assert len(children) == 2
    for pid, name in itertools.product(children, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)):
        os.kill(pid, name)
    time.sleep(0.3)
    assert not any(ended(pid) for pid in children)
    process.kill()
    process.wait()
    for _ in range(100):
        if all(ended(pid) for pid in children):
            return
        time.sleep(0.1)
    raise AssertionError("a worker outlived the training process by ten seconds")
