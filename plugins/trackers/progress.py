"""Tracker ``progress``: one live line with the rate, losses, p, the last metric and the time left."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from registry import hookimpl

SHOWN = {"loss/discriminator": "D", "loss/generator": "G", "augmentation/p": "p"}


class Progress:
    """Live in a terminal; elsewhere one plain line every ``line_every`` seconds.

    Args:
        every: seconds between updates in a terminal, and the only times at which scalars are read.
        line_every: seconds between lines elsewhere.
    """

    def __init__(self, every: float = 0.5, line_every: float = 10.0) -> None:
        self.every, self.line_every = every, line_every
        self._console = Console(stderr=True)
        self._live: RichProgress | None = None
        self._metric = ""

    @hookimpl
    def run_started(self, run):
        self._drawn, self._drawn_step, self._rate = time.monotonic(), run.step, None
        if self._console.is_terminal:
            columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._live = RichProgress(*columns, console=self._console)
            self._live.start()
            self._task = self._live.add_task("", total=run.iterations, completed=run.step)

    @hookimpl
    def step_ended(self, run, step, scalars):
        now = time.monotonic()
        passed = now - self._drawn
        if passed < (self.every if self._live else self.line_every) and step != run.iterations:
            return
        rate = (step - self._drawn_step) / max(passed, 1e-9)
        self._rate = rate if self._rate is None else 0.7 * self._rate + 0.3 * rate
        self._drawn, self._drawn_step = now, step
        shown = [f"{self._rate * run.batch_size:.0f} img/s"]
        shown += [f"{short} {float(scalars[name]):.2f}" for name, short in SHOWN.items() if name in scalars]
        text = "  ".join([*shown, self._metric]).rstrip()
        if self._live:
            self._live.update(self._task, completed=step, description=text)
        else:
            left = (run.iterations - step) / max(self._rate, 1e-9)
            print(f"{step}/{run.iterations}  {text}  ETA {left / 60:.1f} min", file=self._console.file, flush=True)

    @hookimpl
    def metrics_evaluated(self, run, step, metrics):
        self._metric = "  ".join(f"{name} {value:.3g}" for name, value in list(metrics.items())[:1])

    @hookimpl
    def run_ended(self, run, status):
        if self._live:
            self._live.stop()
            self._live = None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state: the rate is measured anew."""
