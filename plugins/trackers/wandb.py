"""Tracker ``wandb``: scalars, sample grids, metrics and the config as a run of Weights & Biases, offline by default.

Failures of wandb do not stop training: one line is printed for each cause, and training continues.
"""

import os
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from plugins.trackers.curves import Failures, Newest, interval, must_be_installed, plain
from plugins.trackers.recorded import Recorded, own_folder
from registry import Count, hookimpl
from registry.wording import printable
from stylenat.training.run import Run

CLOSE_SECONDS = 30.0
"""How long an online run may take to upload the rest at its end."""

QUIET: dict[str, Any] = {
    "console": "off", "disable_code": True, "disable_git": True, "disable_job_creation": True, "save_code": False,
    "x_disable_machine_info": True, "x_disable_meta": True, "x_disable_stats": True, "x_save_requirements": False,
    "host": "", "x_transaction_log_flush_interval": 0.2,
}  # fmt: skip
"""wandb's defaults copy stdout, code, the host's and the user's name; ``environment.json`` is logged instead. They keep
what was logged for 15 s in a process that loses it when training is killed."""


class WeightsAndBiases:
    """Records a run under its name in the folder ``wandb`` of the run folder. Nothing is sent unless ``mode`` is
    ``online``; ``wandb sync`` uploads the folder later.

    Names are those of scalars (``loss/generator``) and metrics, ``NAME/spread`` and ``samples``; steps are iterations;
    ``config`` holds the values of config.gin, ``config.environment`` those of environment.json. A resumed run keeps its
    id, also after ``kill -9``.

    wandb takes each step once and cannot take it back. Points are therefore logged when a checkpoint is made: what
    comes again after a kill or a roll-back was not logged. Points after the last checkpoint of a failed run are
    dropped.

    Args:
        mode: ``offline``, or ``online``, which uploads while training and needs an account.
        project: by default the gin file's stem. entity: user or team; by default the account's.
        every: iterations between tracked scalars, in short runs a tenth of ``train.iterations``. A term that is not in
            each iteration is logged with the next point.
        log_images: whether sample grids are stored.
        tags: wandb's tags of the run.
    """

    def __init__(
        self,
        mode: Literal["offline", "online"] = "offline",
        project: str | None = None,
        entity: str | None = None,
        every: Count = 50,
        log_images: bool = True,
        tags: Sequence[str] = (),
    ) -> None:
        self.mode, self.project, self.entity = mode, project, entity
        self.every, self.log_images, self.tags = every, log_images, tags
        self._newest = Newest()
        self._going_on = Failures("wandb").going_on
        self._run: Any = None
        self._name = ""
        self._samples = Path()
        self._recorded: Recorded | None = None
        self._rows: dict[int, dict[str, Any]] = {}
        self._where: dict[str, str] = {}

    def check(self) -> None:
        """Raises UserError if wandb is not installed."""
        must_be_installed("wandb")

    def where(self) -> dict[str, str]:
        """How to look at what was tracked."""
        return dict(self._where)

    @hookimpl
    def run_started(self, run: Run) -> None:
        if self._name != run.name:  # The points of a checkpoint that starts another run are the first one's.
            self._rows = {}
        self._name, self._samples = run.name, run.directory / "samples"
        with self._going_on("start a run"):
            folder = own_folder(run, "wandb")
            self._recorded = Recorded(folder / "recorded.json", run.name)
            if not re.fullmatch("[0-9a-f]{8}", self._recorded.identity):
                self._recorded.identity = secrets.token_hex(4)
                self._recorded.save()
            self._run = self._started(run, self._recorded.identity)
            sync = f"wandb sync {shlex.quote(str(folder))}/offline-run-*"
            self._where = {"wandb": sync if self.mode == "offline" else str(self._run.url)}

    @hookimpl
    def run_rolled_back(self, run: Run, step: int) -> None:
        self._newest.forget()
        self._rows = {at: row for at, row in self._rows.items() if at <= step}

    @hookimpl
    def step_ended(self, run: Run, step: int, scalars: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        self._newest.note(step, scalars)
        if step % interval(self.every, run) == 0:
            self._note_newest(step)

    @hookimpl
    def metrics_evaluated(self, run: Run, step: int, metrics: Mapping[str, float], details: Mapping[str, Any]) -> None:
        spread = {f"{name}/spread": value for name, value in details["spread"].items()}
        self._note(step, {**metrics, **spread})

    @hookimpl
    def images_sampled(self, run: Run, step: int, path: Path) -> None:
        if self._run is not None and self.log_images:
            self._rows.setdefault(step, {})["samples"] = path.name

    @hookimpl
    def run_ended(self, run: Run, status: str) -> None:
        if self._run is None:
            return
        if status == "finished":
            self._note_newest(run.step)
            self._log(run.step)
        self._newest.forget()
        self._rows = {}
        closed, self._run = self._run, None
        with self._going_on("close the run"):
            closed.finish(exit_code=int(status == "failed"))

    def state_dict(self) -> dict[str, Any]:
        """The points of the newest iteration, to which samples and metrics may be added. Called for a checkpoint, which
        covers all points so far: the earlier ones are logged now, since nothing computes them again."""
        newest = max(self._rows, default=0)
        self._log(newest - 1)
        return {"run": self._name, "step": newest, "row": dict(self._rows.get(newest, {}))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._name, row = str(state.get("run", "")), state.get("row")
        self._rows = {int(state["step"]): dict(row)} if row else {}

    def _started(self, run: Run, identity: str) -> Any:
        """The ``wandb.Run`` of that id, in a new file of the folder ``wandb``."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # Its import would start to report crashes.
        import wandb

        offline = self.mode == "offline"
        known = {name: value for name, value in QUIET.items() if name in wandb.Settings.model_fields}
        return wandb.init(
            id=identity,
            mode=self.mode,
            project=printable(self.project or run.experiment),
            entity=self.entity,
            name=printable(run.name),
            dir=str(run.directory),
            config={**plain(run.hparams), "environment": plain(run.environment)},
            tags=[printable(tag) for tag in self.tags],
            resume=None if offline else "allow",
            allow_val_change=True,
            reinit="create_new",
            settings=wandb.Settings(**known, silent=offline, finish_timeout=CLOSE_SECONDS),
        )

    def _note_newest(self, step: int) -> None:
        self._note(step, {name: value for name, (_, value) in self._newest.taken().items()})

    def _note(self, step: int, values: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        for name, value in values.items():
            with self._going_on(f"track {name}"):
                self._rows.setdefault(step, {})[printable(name)] = float(value)

    def _log(self, last: int) -> None:
        """Logs the points up to an iteration, unless they were logged before."""
        if self._run is None or self._recorded is None:
            return
        for step in sorted(step for step in self._rows if step <= last):
            row = self._rows.pop(step)
            if self._recorded.lacks("rows", step):
                self._recorded.add("rows", step)
                with self._going_on("log points"):
                    self._run.log(self._loggable(row), step=step, commit=True)
        with self._going_on("write what was logged"):
            self._recorded.save()

    def _loggable(self, row: Mapping[str, Any]) -> dict[str, Any]:
        from wandb import Image

        values = dict(row)
        if grid := values.pop("samples", None):
            with self._going_on("store sample grids"):
                # By its name alone: a checkpoint may have come from someone else.
                values["samples"] = Image(str(self._samples / Path(grid).name))
        return values
