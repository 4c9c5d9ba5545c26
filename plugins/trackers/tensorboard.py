"""Tracker ``tensorboard``: scalars, sample grids, metrics and the config as TensorBoard's event files.

Failures of TensorBoard do not stop training: one line is printed for each cause, and training continues.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plugins.trackers.curves import Failures, Newest, interval, must_be_installed, plain, plain_text
from plugins.trackers.recorded import Recorded, own_folder
from registry import Count, hookimpl
from registry.wording import printable
from stylenat.training.run import Run

FLUSH_SECONDS = 10
"""How old what is on the disk may be; ``state_dict`` writes it for a checkpoint."""


class TensorBoard:
    """Writes to the folder ``tensorboard`` of the run folder. A resumed run continues there, also after ``kill -9``.

    Tags are the names of the scalars (``loss/generator``) and metrics, ``NAME/spread``, ``samples``, and the texts
    ``config.gin`` and ``environment``; steps are iterations. A resume and a roll-back make TensorBoard discard the
    points beyond the iteration that they go back to. Metrics and sample grids use the averaged weights.

    Args:
        every: iterations between tracked scalars, in short runs a tenth of ``train.iterations``.
        log_images: whether sample grids are stored.
    """

    def __init__(self, every: Count = 50, log_images: bool = True) -> None:
        self.every, self.log_images = every, log_images
        self._newest = Newest()
        self._going_on = Failures("tensorboard").going_on
        self._writer: Any = None
        self._recorded: Recorded | None = None
        self._directory: Path | None = None

    def check(self) -> None:
        """Raises UserError if TensorBoard is not installed."""
        must_be_installed("tensorboard")

    def where(self) -> dict[str, str]:
        """How to look at what was tracked."""
        if self._directory is None:
            return {}
        return {"tensorboard": f"tensorboard --logdir {shlex.quote(str(self._directory))}"}

    @hookimpl
    def run_started(self, run: Run) -> None:
        with self._going_on("open an event file"):
            self._recorded = Recorded(own_folder(run, "tensorboard") / "recorded.json", run.name)
            self._open(run, run.step)
            self._directory = run.directory
            self._describe(run)

    @hookimpl
    def run_rolled_back(self, run: Run, step: int) -> None:
        self._newest.forget()
        if self._writer is not None:
            with self._going_on("discard the points of a roll-back"):
                self._writer.close()
                self._open(run, step)

    @hookimpl
    def step_ended(self, run: Run, step: int, scalars: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        self._newest.note(step, scalars)
        if step % interval(self.every, run) == 0:
            self._write(self._newest.taken())

    @hookimpl
    def metrics_evaluated(self, run: Run, step: int, metrics: Mapping[str, float], details: Mapping[str, Any]) -> None:
        values = {**metrics, **{f"{name}/spread": value for name, value in details["spread"].items()}}
        if self._is_new("metrics", step):
            self._write({name: (step, value) for name, value in values.items()})
            self._note("metrics", step)

    @hookimpl
    def images_sampled(self, run: Run, step: int, path: Path) -> None:
        if not self.log_images or not self._is_new("samples", step):
            return
        with self._going_on("store sample grids"):
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                self._writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")
            self._note("samples", step)

    @hookimpl
    def run_ended(self, run: Run, status: str) -> None:
        if self._writer is None:
            return
        if status == "finished":  # A run that goes on would keep a point at whichever iteration it was stopped.
            self._write(self._newest.taken())
        self._newest.forget()
        closed, self._writer = self._writer, None
        with self._going_on("close the event file"):
            closed.close()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: what it needs is in the run folder. Called for a checkpoint, whose points must be on the disk before
        it: nothing computes them again."""
        if self._writer is not None:
            with self._going_on("write to the event file"):
                self._writer.flush()
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state: the run's step says what the event files have too much."""

    def _open(self, run: Run, step: int) -> None:
        """A new event file, which takes back what lies beyond the iteration in the earlier ones."""
        from torch.utils.tensorboard import SummaryWriter

        folder = str(own_folder(run, "tensorboard"))
        self._writer = SummaryWriter(folder, purge_step=step + 1, flush_secs=FLUSH_SECONDS)
        if self._recorded is not None:
            self._recorded.cut(step)

    def _describe(self, run: Run) -> None:
        """At the iteration that comes next: another start from the same one replaces it."""
        environment = json.dumps(plain(run.environment), indent=2)
        for tag, text in (("config.gin", run.config_text), ("environment", environment)):
            lines = "".join(f"    {line}\n" for line in plain_text(text).splitlines())  # Markdown of code.
            self._writer.add_text(tag, lines, run.step + 1)

    def _write(self, values: Mapping[str, tuple[int, Any]]) -> None:
        points = []
        for name, (step, value) in values.items():
            with self._going_on(f"track {name}"):
                points.append((printable(name), float(value), step))
        with self._going_on("write to the event file"):
            for name, number, step in points:
                self._writer.add_scalar(name, number, step)

    def _is_new(self, series: str, step: int) -> bool:
        return self._writer is not None and self._recorded is not None and self._recorded.lacks(series, step)

    def _note(self, series: str, step: int) -> None:
        """Once the points are on the disk."""
        with self._going_on("write to the event file"):
            if self._recorded is not None:
                self._writer.flush()
                self._recorded.add(series, step)
                self._recorded.save()
