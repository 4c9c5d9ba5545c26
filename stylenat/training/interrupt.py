"""Requests to stop: signals and a wall-clock budget. The first ends training after the current iteration, a second
Ctrl-C at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what schedulers send before they kill (SLURM: ``--signal``, and on preemption)."""


class Stopped(BaseException):
    """Raised by a request to stop in what can be done again. No fault, hence no ``Exception``."""


class StopRequest:
    """A context in which the stop signals only raise a flag, ``requested``; so does the time when it is up.

    Args:
        deadline: of ``time.monotonic()``; None for none.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.requested = False
        self._deadline = deadline
        self._raises = False

    def __enter__(self) -> "StopRequest":
        numbers = SIGNALS if self._deadline is None else (*SIGNALS, signal.SIGALRM)
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        if self._deadline is not None:
            # A timer of 0 would never ring.
            signal.setitimer(signal.ITIMER_REAL, max(self._deadline - time.monotonic(), 1e-6))
        return self

    def __exit__(self, *exception: object) -> None:
        if self._deadline is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is done in here can be done again: a request to stop, also an earlier one, raises ``Stopped``."""
        from stylenat.ranks import world_size  # Here, since PyTorch is imported after the first signals.

        self._raises = world_size() == 1
        try:
            self.check()
            yield
        finally:
            self._raises = False

    def check(self, *progress: object) -> None:
        """Raises ``Stopped`` in all processes if any of them has been asked to stop.

        Several processes call this wherever it may be raised: during collective work, no process may leave on its own.
        """
        from stylenat.ranks import any_of_ranks

        if any_of_ranks(self.requested):
            raise Stopped

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if self._raises:
            self._raises = False
            raise Stopped


@contextmanager
def signals_end_the_process(code: int) -> Iterator[None]:
    """While modules are imported and nothing exists yet that could be lost: a stop signal ends the process at once.

    An exception during PyTorch's import can abort the process.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, b"stopped before anything began; the same command starts it\n")
        os._exit(code)

    with _handling(SIGNALS, end):
        yield


@contextmanager
def signals_are_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGUSR1 do what Ctrl-C does: raise KeyboardInterrupt."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling((signal.SIGTERM, signal.SIGUSR1), interrupt):
        yield


@contextmanager
def _handling(numbers: tuple[signal.Signals, ...], handler: object) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Only there do signals arrive.
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
