"""Where a run's process lives: on this machine with cores of its own, or wherever Ray puts it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from registry import UserError
from stylenat.ablation import with_parent
from stylenat.ablation.warm import Forked, Starter

WAIT = 0.2
"""Seconds between two looks at a process on Ray."""
RETRIES = 3
"""How often Ray starts a run again whose worker ended, by a signal or with its machine. The run resumes."""


class Process(Protocol):
    """A started run. ``reason``: why it failed, where the run's own log cannot say; empty otherwise."""

    reason: str

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""

    def stop(self) -> None:
        """Asks it to write a checkpoint and end with 75."""

    def kill(self) -> None:
        """Ends it at once."""


class Runner(Protocol):
    """Starts runs. ``slots``: how many at a time."""

    slots: int

    def start(self, command: Sequence[str], log: Path) -> Process: ...

    def close(self) -> None: ...


def open_log(log: Path, command: Sequence[str]) -> int:
    """A descriptor that appends to the log, after a line that says what follows."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with suppress(OSError):  # On a full disk; the run goes on without its log.
        os.write(descriptor, f"--- {now} {' '.join(command)}\n".encode())
    return descriptor


def ends_with_parent(command: Sequence[str], number: signal.Signals) -> list[str]:
    """The command as a child of this process that is sent the signal when this process ends, even by SIGKILL."""
    return [sys.executable, "-I", "-S", with_parent.__file__, str(os.getpid()), str(int(number)), *command]


def environment(threads: int) -> dict[str, str]:
    """This process's, with as many threads for PyTorch."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def all_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class LocalRunner:
    """Processes of this machine. Several at a time get cores of their own; one alone may use all.

    They do not outlive this process: if it is killed, each is asked to write a checkpoint and end (Linux).

    Args:
        slots: runs at a time; threads: of each.
        lock: a descriptor that the runs inherit, so that the lock is held until the last of them ends.
        warm: whether runs begin with PyTorch imported, once for all; only ``stylenat`` commands can (Linux).

    Raises:
        UserError: there are not so many cores.
    """

    def __init__(self, slots: int, threads: int | None, lock: int, warm: bool = False) -> None:
        cores = all_cores()
        self.slots, self._lock, self._warm = slots, lock, warm and sys.platform == "linux"
        self._starter: Starter | None = None
        self._threads = threads or max(len(cores) // slots, 1)
        if slots * self._threads > len(cores):
            raise UserError(
                f"--jobs {slots} with {self._threads} threads each need {slots * self._threads} cores; "
                f"there are {len(cores)}"
            )
        self._free = [cores[i * self._threads : (i + 1) * self._threads] for i in range(slots)]

    def start(self, command: Sequence[str], log: Path) -> Process:
        cores = self._free.pop(0)
        pinned = cores if self.slots > 1 and hasattr(os, "sched_setaffinity") else None
        process = self._forked(command, log, pinned) if self._warm else None
        return _Local(process or self._new(command, log, pinned), self._free, cores)

    def _forked(self, command: Sequence[str], log: Path, cores: Sequence[int] | None) -> Forked | None:
        """A run with PyTorch imported; None, from now on, where the process that forks has ended."""
        try:
            if self._starter is None:
                self._starter = Starter(environment(self._threads), self._lock)
            return self._starter.start(command, log, cores)
        except (EOFError, OSError):
            self._warm = False
            return None

    def _new(self, command: Sequence[str], log: Path, cores: Sequence[int] | None) -> subprocess.Popen:
        output = open_log(log, command)
        try:
            process = subprocess.Popen(
                ends_with_parent(command, signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(self._threads),
                # Not this terminal's group: Ctrl-C comes once, from here, and a second one is not taken for "at once".
                start_new_session=True,
                pass_fds=(self._lock,),
            )
        finally:
            os.close(output)
        if cores is not None:
            with suppress(ProcessLookupError):  # Over already: poll will say how.
                # The threads that it starts from now on inherit this; it has not imported torch yet.
                os.sched_setaffinity(process.pid, cores)
        return process

    def close(self) -> None:
        if self._starter is not None:
            self._starter.close()


class _Local:
    reason = ""

    def __init__(self, process: subprocess.Popen | Forked, free: list[list[int]], cores: list[int]) -> None:
        self._process, self._free, self._cores = process, free, cores

    def poll(self) -> int | None:
        code = self._process.poll()
        if code is not None and self._cores:
            self._free.append(self._cores)
            self._cores = []
        return code

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        while self._process.poll() is None:
            time.sleep(0.05)


class RayRunner:
    """Processes wherever Ray finds room for their threads; the run folders must be on a file system they share.

    A run whose worker is killed is started again, ``RETRIES`` times at most, and resumes.

    Args:
        address: of a Ray cluster; ``local`` starts one on this machine, on loopback and without its dashboard.
        threads: of each run, and cores that Ray reserves for it.

    Raises:
        UserError: Ray is not installed, the cluster does not answer, or Ray does not stay on loopback.
    """

    def __init__(self, address: str, threads: int | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address == "local":
            # Ray replaces 127.0.0.1 by an address that others can reach, and its servers then listen on all
            # interfaces, unless clusters are off. It reads this when it is imported.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        try:
            import ray
        except ModuleNotFoundError as error:
            raise UserError("Ray is not installed: pip install 'stylenat[ray]', or leave --ray out") from error
        self._ray, self._threads = ray, threads or 1
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address == "local":
            options |= {"include_dashboard": False, "num_cpus": len(all_cores()), "_node_ip_address": "127.0.0.1"}
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"no Ray cluster answers at {address}: {' '.join(str(error).split())}") from error
        except Exception as error:  # Ray has no type for servers that are not there within its half a minute.
            raise UserError(
                f"Ray does not start: {' '.join(str(error).split())}; leave --ray out, or try again"
            ) from error
        if address == "local" and (node := ray.util.get_node_ip_address()) not in ("127.0.0.1", "::1"):
            ray.shutdown()
            raise UserError(
                f"Ray would listen on {node}, not on loopback alone; leave --ray out, or give the ADDRESS of a cluster "
                "that was started with RAY_AUTH_MODE=token"
            )
        # Ray queues what has no room yet: there is no scheduler of ours.
        self.slots = sys.maxsize

    def start(self, command: Sequence[str], log: Path) -> Process:
        task = self._ray.remote(num_cpus=self._threads, max_retries=RETRIES)(run_and_wait)
        reference = task.remote(list(command), str(log.resolve()), os.getcwd(), self._threads)
        return _OnRay(self._ray, reference)

    def close(self) -> None:
        self._ray.shutdown()


class _OnRay:
    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference, self.reason = ray, reference, ""

    def poll(self) -> int | None:
        if not self._ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            return self._ray.get(self._reference)
        except self._ray.exceptions.TaskCancelledError:
            return 75
        except self._ray.exceptions.RayError as error:
            self.reason = f"Ray: {' '.join(str(error).split())}"
            return 1

    def stop(self) -> None:
        self._ray.cancel(self._reference)

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)


def run_and_wait(command: list[str], log: str, folder: str, threads: int) -> int:
    """Runs a command to its end, on whatever machine this is called; a cancelled task passes the request on."""
    output = open_log(Path(log), command)
    # At once, by SIGKILL: Ray may start the run again right after it lost this worker.
    child = ends_with_parent(command, signal.SIGKILL)
    process = subprocess.Popen(
        child, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(threads)
    )
    os.close(output)
    while process.poll() is None:
        try:
            # Not wait(): Ray's interrupt is one of Python alone, which no system call hears.
            time.sleep(WAIT)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
    return process.returncode
