"""How far an ablation is: one bar over all variants and one for each running one, or plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from registry.wording import printable
from stylenat.ablation.plan import Job

EVERY = 60.0
"""Seconds between lines where there is no terminal."""
WORDS = {0: "finished", 75: "stopped, resumable"}


class Display:
    """A context; on stderr. ETA counts iterations, at the rate of all variants that run together."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._steps = {job.name: min(job.step, job.iterations) for job in jobs}
        self._total = sum(job.iterations for job in jobs)
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._live = sys.stderr.isatty() and not self._console.is_dumb_terminal
        columns = (TextColumn("{task.description}", markup=False), BarColumn(24), MofNCompleteColumn())
        self._bars = Progress(*columns, console=self._console, auto_refresh=False, disable=not self._live)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Display":
        self._began, self._said, self._first = time.monotonic(), time.monotonic(), sum(self._steps.values())
        self._over = sum(job.finished for job in self._jobs)
        self._all = self._bars.add_task(f"{len(self._jobs)} runs", total=self._total, completed=self._first)
        if self._over:
            self._say(f"{self._over} of {len(self._jobs)} runs are finished already")
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def started(self, job: Job) -> None:
        if self._live:
            self._tasks[job.name] = self._bars.add_task(job.name, total=job.iterations, completed=job.step)
        else:
            self._say(f"{job.name}: {'continues from iteration ' + str(job.step) if job.step else 'begins'}")

    def at(self, job: Job, step: int) -> None:
        self._steps[job.name] = step
        if job.name in self._tasks:
            self._bars.update(self._tasks[job.name], completed=step)

    def ended(self, job: Job, code: int, seconds: float, reason: str) -> None:
        if job.name in self._tasks:
            self._bars.remove_task(self._tasks.pop(job.name))
        if code != 75:
            self._over += 1
        if code == 0:
            self._steps[job.name] = job.iterations
        elif code != 75:  # Nothing more will come of it: it is no longer waited for.
            self._total -= job.iterations - self._steps[job.name]
            self._bars.update(self._all, total=self._total)
        word = WORDS.get(code, f"failed with {code}: {reason}")
        self._say(f"{job.name}: {word} after {_clock(seconds)}; {self._state()}")

    def stopping(self, count: int) -> None:
        self._say(f"stopping: {count} running, each writes a checkpoint; a second Ctrl-C ends them immediately")

    def refresh(self) -> None:
        if self._live:
            done = sum(self._steps.values())
            self._bars.update(self._all, completed=done, description=self._state(), refresh=True)
        elif time.monotonic() - self._said >= EVERY:
            self._say(self._state())

    def _state(self) -> str:
        """``3 of 15 runs over, ETA 0:12:30``."""
        done = sum(self._steps.values())
        rate = (done - self._first) / max(time.monotonic() - self._began, 1e-9)
        eta = f", ETA {_clock((self._total - done) / rate)}" if rate > 0 else ""
        return f"{self._over} of {len(self._jobs)} runs over{eta}"

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self._bars.console.print(printable(line), markup=False)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
