"""Runs a plan's jobs until all have ended or someone asks to stop. A job that fails takes no other along."""

import fcntl
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from registry import UserError
from stylenat.ablation.display import Display
from stylenat.ablation.outcomes import record_outcome
from stylenat.ablation.plan import Job
from stylenat.ablation.runners import Process, Runner
from stylenat.training.interrupt import StopRequest

STOPPED = 75
WAIT = 0.3
"""Seconds between two looks at the processes."""
PROGRESS = re.compile(rb"(\d+)/(\d+)  ")
"""How the tracker ``progress`` begins its lines in a log."""


@dataclass(frozen=True)
class Outcome:
    """How one job ended: its exit code (0, 2, 75, 1, or minus a signal's number), and the log's last word on it."""

    job: Job
    code: int
    reason: str = ""


@dataclass
class _Running:
    job: Job
    process: Process
    log: Path
    began: float


def command_of(job: Job, plugins: Sequence[str]) -> list[str]:
    """The command line of a job, of this interpreter and whatever is installed for it."""
    extra = [argument for plugin in plugins for argument in ("--plugin", plugin)]
    # -P: a file of the user's in the current folder must not stand in for an installed package.
    start = [sys.executable, "-P", "-m", "stylenat", "run"]
    return [*start, "--gin", str(job.config), "--run-dir", str(job.directory), *extra]


@contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Holds the folder's lock; yields its descriptor, for the processes that outlive this one to inherit.

    The lock file says who holds it, for the message to others.

    Raises UserError while another ablation, or a run that one left behind, is at work in the folder.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 4096, 0)
        os.close(descriptor)
        raise UserError(_held(folder, holder)) from error
    now = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode(), 0)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _held(folder: Path, holder: bytes) -> str:
    """The message for a folder whose lock is held. ``holder``: what the lock file says."""
    try:
        record = json.loads(holder)
        pid, host, since = int(record["pid"]), str(record["host"]), str(record["since"])
    except (ValueError, KeyError, TypeError):  # An earlier version's, or one that is being written.
        return f"another process is running this ablation in {folder}; wait for it, or choose --out"
    who = f"process {pid} on {host}"
    if host == socket.gethostname() and not _alive(pid):
        return (
            f"{who}, which ran this ablation in {folder} since {since}, has ended, but runs that it started are still "
            "writing their checkpoints; give the same command again in a minute, or choose --out"
        )
    return f"{who} is running this ablation in {folder} since {since}; wait for it, stop it, or choose --out"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def execute(
    jobs: Sequence[Job], runner: Runner, folder: Path, display: Display, plugins: Sequence[str] = ()
) -> list[Outcome]:
    """Runs the unfinished jobs in order, ``runner.slots`` at a time; returns how each that was started ended.

    The first stop signal asks every running job to stop and starts no more; a second Ctrl-C ends them immediately and
    raises KeyboardInterrupt.
    """
    waiting = [job for job in jobs if not job.finished]
    running: list[_Running] = []
    ended: list[Outcome] = []
    asked = False
    (folder / "logs").mkdir(exist_ok=True)
    with StopRequest() as stop, display:
        try:
            while running or (waiting and not stop.requested):
                while waiting and len(running) < runner.slots and not stop.requested:
                    job = waiting.pop(0)
                    log = folder / "logs" / f"{job.name}.log"
                    running.append(_Running(job, runner.start(command_of(job, plugins), log), log, time.monotonic()))
                    display.started(job)
                if stop.requested and not asked:
                    asked = True
                    display.stopping(len(running))
                    for one in running:
                        one.process.stop()
                for one in list(running):
                    code = one.process.poll()
                    if code is None:
                        display.at(one.job, steps_done(one.log, one.job))
                        continue
                    running.remove(one)
                    why = "" if code in (0, STOPPED) else one.process.reason or reason(code, one.log)
                    outcome = Outcome(one.job, code, why)
                    ended.append(outcome)
                    record_outcome(folder, one.job.name, code, why)
                    display.ended(one.job, code, time.monotonic() - one.began, outcome.reason)
                display.refresh()
                time.sleep(WAIT)
        except BaseException:
            for one in running:
                one.process.kill()
            raise
    return ended


def steps_done(log: Path, job: Job) -> int:
    """Iterations of a run, as far as its log says."""
    found = [int(step) for step, of in PROGRESS.findall(_tail(log)) if int(of) == job.iterations]
    return max(found[-1] if found else 0, job.step)


def reason(code: int, log: Path) -> str:
    """Why a run failed: the signal that killed it; or its last error, its last exception, or else its last line.

    Lines about progress and the line that begins a log are no reasons.
    """
    if code < 0:
        memory = ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{memory}; the same command continues"
    last = _tail(log)
    last = last[last.rfind(b"\n--- ") + 1 :]  # What the newest start wrote.
    lines = [line for line in last.decode(errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if not PROGRESS.match(line.encode()) and not line.startswith("--- ")]
    errors = [line for line in lines if line.startswith("error: ")]
    begins = [i for i, line in enumerate(lines) if line.startswith("Traceback (")]
    # An exception's text may have several lines; the first has its type.
    exceptions = [line for line in lines[begins[-1] + 1 :] if not line[0].isspace()][:1] if begins else []
    return (errors or exceptions or lines or ["it wrote no error"])[-1].strip()


def _tail(log: Path, size: int = 4096) -> bytes:
    try:
        with open(log, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - size, 0))
            return file.read()
    except FileNotFoundError:  # A Ray task that waits for room has not begun its log.
        return b""
