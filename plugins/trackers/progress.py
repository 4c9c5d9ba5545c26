"""Tracker ``progress``: progress, speed, losses, p and the last metric, on stderr.

Shows the newest values only; curves are for the other trackers.
"""

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from plugins.trackers.above import printing_above
from registry import Positive, hookimpl
from registry.wording import printable
from stylenat.training.run import Run

SHOWN = {"loss/discriminator": "D", "loss/generator": "G", "augmentation/p": "p"}


class _LastToFit(TextColumn):
    """The description, cut at the terminal's width; the other columns keep their width."""

    def __init__(self) -> None:
        super().__init__("{task.description}", markup=False, table_column=Column())

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class Progress:
    """One live line in a terminal; elsewhere one plain line every ``line_every`` seconds.

    Args:
        every: seconds between updates in a terminal. Only an update reads the scalars, which waits for the device.
        line_every: seconds between lines elsewhere.
    """

    def __init__(self, every: Positive = 1.0, line_every: Positive = 10.0) -> None:
        self.every, self.line_every = every, line_every
        self._open = ExitStack()
        self._bar: Bar | None = None

    @hookimpl
    def run_started(self, run: Run) -> None:
        self._scalars: Mapping[str, Any] = {}
        self._metric = self._printed = ""
        self._rate: float | None = None
        self._drawn_at, self._drawn_step = time.monotonic(), run.step
        # Given its file, because sys.stderr leads back to this console while the bar is up.
        console = Console(file=sys.stderr, markup=False)  # What others print above it is no markup.
        self._live = sys.stderr.isatty() and not console.is_dumb_terminal
        if self._live:
            columns = (BarColumn(16), MofNCompleteColumn(), _LastToFit())
            # No thread of its own: step_ended draws, so that a fork finds no lock taken.
            self._bar = Bar(*columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            self._task = self._bar.add_task("", total=run.iterations, completed=run.step)
            self._open.enter_context(self._bar)
            self._open.enter_context(printing_above(console))

    @hookimpl
    def step_ended(self, run: Run, step: int, scalars: Mapping[str, Any]) -> None:
        self._scalars = scalars
        if time.monotonic() - self._drawn_at >= (self.every if self._live else self.line_every):
            self._draw(run, step)

    @hookimpl
    def metrics_evaluated(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        self._metric = next((f"{printable(name, 60)} {value:.3g}" for name, value in metrics.items()), "")

    @hookimpl
    def run_ended(self, run: Run, status: str) -> None:
        try:
            # After a failure the scalars' device may be beyond reading; what was drawn last stays.
            if status != "failed":
                self._draw(run, run.step)
        finally:
            self._open.close()
            self._bar = None

    def _draw(self, run: Run, step: int) -> None:
        now = time.monotonic()
        if step > self._drawn_step:
            rate = (step - self._drawn_step) / max(now - self._drawn_at, 1e-9)
            self._rate = rate if self._rate is None else 0.7 * self._rate + 0.3 * rate
        self._drawn_at, self._drawn_step = now, step
        text = self._text(run, step)
        if self._bar:
            self._bar.update(self._task, completed=step, description=text, refresh=True)
        elif (line := f"{step}/{run.iterations}  {text}") != self._printed:
            print(line, file=sys.stderr, flush=True)
            self._printed = line

    def _text(self, run: Run, step: int) -> str:
        shown = [f"{short} {float(self._scalars[name]):.2f}" for name, short in SHOWN.items() if name in self._scalars]
        if self._rate:
            left = timedelta(seconds=round((run.iterations - step) / self._rate))
            shown = [f"{self._rate * run.batch_size:.1f} img/s", *shown, f"ETA {left}"]
        return "  ".join([*shown, self._metric]).rstrip()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state: the rate is measured again."""
