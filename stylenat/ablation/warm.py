"""Runs that begin with PyTorch imported: one process imports what every training does, and forks each run from there.

The imports take seconds of a core in every run of an ablation. ``python -m stylenat.ablation.warm PIPE PARENT
MODULE...`` is the process; ``Starter`` talks to it. On Linux, where processes are told that their parent ended.
"""

import ctypes
import gc
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from stylenat.ablation.with_parent import PR_SET_PDEATHSIG, STOPPED

PACKAGE = "stylenat"
"""Whose commands are started, as by ``python -m``."""
ALWAYS = ("stylenat.training.launch", "torch._dynamo")
"""What every training imports; the second in its first optimizer's step."""
WITH = {"aim": ("aim", "matplotlib.pyplot")}
"""What it imports beside it, where the process that starts the runs has had to import the key for them."""
BETWEEN = 0.1
"""Seconds between two looks at the runs."""


class Starter:
    """Starts ``stylenat`` commands as forks of a process that has imported PyTorch.

    Args:
        environment: of all of them, the number of threads included; lock: a descriptor that they inherit.
    """

    def __init__(self, environment: Mapping[str, str], lock: int) -> None:
        self._pipe, there = Pipe()
        self._ended: dict[int, int] = {}
        modules = [*ALWAYS, *(name for key, names in WITH.items() if key in sys.modules for name in names)]
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(there.fileno()), str(os.getpid()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the process that asks the runs to stop.
                pass_fds=(lock, there.fileno()),
            )

    def start(self, command: Sequence[str], log: Path, cores: Sequence[int] | None) -> "Forked":
        """A run in a process of its own.

        Args:
            command: as it would be started without this; its words after ``-m stylenat`` are used.
            log: what it writes is appended there; cores: that it may use, None for all.

        Raises:
            EOFError, OSError: the process that forks has ended.
        """
        self._pipe.send((list(command), str(log), cores))
        while True:
            pid, code = self._pipe.recv()
            if code is None:
                return Forked(self, pid)
            self._ended[pid] = code

    def poll(self, pid: int) -> int | None:
        """The exit code of a run as ``subprocess`` has it, None while it runs.

        -SIGTERM where the process that forked it was killed: the kernel then asks it to stop, and nobody learns more.
        """
        try:
            while pid not in self._ended and self._pipe.poll():
                ended, code = self._pipe.recv()
                self._ended[ended] = code
        except (EOFError, OSError):
            return None if os.path.exists(f"/proc/{pid}") else -signal.SIGTERM
        return self._ended.get(pid)

    def close(self) -> None:
        """Ends the process that forks. The runs must be over."""
        self._pipe.close()
        self._process.wait()


class Forked:
    """A started run, as far as ``subprocess.Popen`` has the same."""

    def __init__(self, starter: Starter, pid: int) -> None:
        self._starter, self.pid = starter, pid

    def poll(self) -> int | None:
        return self._starter.poll(self.pid)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def serve(pipe: Connection, parent: int, modules: Sequence[str]) -> None:
    """Imports the modules and forks a run for each request, until the pipe is closed. Returns in each fork, too."""
    _end_with(parent)
    for name in modules:
        import_module(name)
    gc.freeze()  # Looked at by no collection: its memory stays shared with the forks.
    own, running = os.getpid(), set[int]()
    while True:
        try:
            request = pipe.recv() if pipe.poll(BETWEEN) else None
        except EOFError:
            return
        if request is not None:
            with warnings.catch_warnings():  # NumPy's idle threads, which know that processes are forked.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                pipe.close()
                return _become(own, *request)
            running.add(pid)
            pipe.send((pid, None))
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                pipe.send((pid, os.waitstatus_to_exitcode(status)))


def _become(parent: int, command: Sequence[str], log: str, cores: Sequence[int] | None) -> None:
    """Makes this fork what the command would be if it were started by itself, and runs it."""
    from stylenat.ablation.runners import open_log
    from stylenat.native.threads import may_start_threads

    may_start_threads()
    _end_with(parent)
    os.setsid()
    if cores is not None:
        os.sched_setaffinity(0, cores)
    output = open_log(Path(log), command)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    sys.argv[1:] = command[command.index(PACKAGE) + 1 :]
    runpy.run_module(PACKAGE, run_name="__main__", alter_sys=True)


def _end_with(parent: int) -> None:
    """Asks the kernel for SIGTERM when the parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # It has ended before.
        sys.exit(STOPPED)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]), sys.argv[3:])
