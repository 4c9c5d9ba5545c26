"""Tracker ``aim``: scalars, sample grids, metrics and the whole config in an Aim repository.

Failures of Aim do not stop training: one line is printed for each cause, and training continues.
"""

import hashlib
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from plugins.trackers import aim_storage
from plugins.trackers.curves import Failures, Newest, interval, plain, plain_text
from registry import Count, hookimpl
from registry.wording import printable
from stylenat.training.run import Run

NETWORKS = ("generator", "discriminator")


class AimTracker:
    """Records a run under its name; a resumed run continues the same Aim run, also after ``kill -9``.

    A scalar keeps its name. One that ends in a network's name, such as ``loss/generator``, becomes the series ``loss``
    with context ``{"net": "generator", "split": "train"}``. Metrics and sample grids (``samples``, always of the same
    latents) use the averaged weights, ``{"net": "ema"}``; metrics compare with the training images
    (``"split": "train"``). A metric's spread is the series ``NAME/spread``; ``run.protocol`` is that of the last
    evaluation. Steps are iterations. The image ``receptive field`` shows the neighborhoods of the generator's heads.
    ``run.hparams`` and ``run.environment`` hold the values of config.gin and environment.json, and the text
    ``config.gin`` is that file.

    Args:
        repo: folder that holds ``.aim``; created if it is missing.
        experiment: Aim's experiment, by default the gin file's stem.
        every: iterations between tracked scalars, in short runs a tenth of ``train.iterations``. Each costs about a
            third of a millisecond.
        log_images: whether sample grids are stored.
        tags: Aim's tags of the run.
        labels: stored as ``run.labels``, to query and group by; an ablation sets its variant and seed.

    Raises:
        UserError: ``every`` is below 1.
    """

    def __init__(
        self,
        repo: str = ".",
        experiment: str | None = None,
        every: Count = 50,
        log_images: bool = True,
        tags: Sequence[str] = (),
        labels: Mapping[str, str | int | float] | None = None,
    ) -> None:
        self.repo, self.experiment, self.every = repo, experiment, every
        self.log_images, self.tags, self.labels = log_images, tags, dict(labels or {})
        self._run: Any = None
        self._identity: dict[str, str] = {}
        self._newest = Newest()
        failures = Failures("aim")
        self._say, self._going_on = failures.say, failures.going_on
        self._threads = ExitStack()

    def where(self) -> dict[str, str]:
        """How to look at what was tracked."""
        if self._run is None and not self._identity:
            return {}
        return {"curves": "aim up" if self.repo == "." else f"aim up --repo {shlex.quote(self.repo)}"}

    def prepare(self) -> None:
        """Creates the repository, once for runs that start together."""
        with self._going_on("create the repository"):
            aim_storage.create_repository(self.repo)

    @hookimpl
    def run_started(self, run: Run) -> None:
        with self._going_on("open a run"):
            self._run = self._opened(run)
        if self._run is None:
            return
        self._threads.enter_context(aim_storage.failures_of_threads_in_one_line(self._say))
        with self._going_on("describe the run"):
            self._describe(run)
        self._identity = {"hash": self._run.hash, "run": run.name}

    @hookimpl
    def step_ended(self, run: Run, step: int, scalars: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        self._newest.note(step, scalars)
        if step % interval(self.every, run) == 0:
            self._track_newest()

    @hookimpl
    def metrics_evaluated(self, run: Run, step: int, metrics: Mapping[str, float], details: Mapping[str, Any]) -> None:
        for name, value in metrics.items():
            self._track(value, name, step, "ema")
        for name, value in details["spread"].items():
            self._track(value, f"{name}/spread", step, "ema")
        if self._run is not None:
            with self._going_on("store the protocol of the metrics"):
                self._run["protocol"] = plain(details["protocol"])

    @hookimpl
    def images_sampled(self, run: Run, step: int, path: Path) -> None:
        if self._run is None or not self.log_images:
            return
        with self._going_on("store sample grids"):
            from aim import Image

            # The PNG, not a tensor: Aim wraps what lies outside of 0 to 255 round instead of clamping it.
            self._run.track(Image(str(path)), name="samples", step=step, context={"net": "ema"})

    @hookimpl
    def run_ended(self, run: Run, status: str) -> None:
        if self._run is None:
            return
        if status == "finished":  # A run that goes on would keep a point at whichever iteration it was stopped.
            self._track_newest()
        self._newest.forget()
        closed, self._run = self._run, None
        with self._threads, self._going_on("close the run"):
            aim_storage.close_run(closed, status)

    def state_dict(self) -> dict[str, Any]:
        """The Aim run's hash, and the name of the run that it records; empty where there is none."""
        return dict(self._identity)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._identity = dict(state)

    def record_evaluation(self, step: int, metrics: Mapping[str, float], details: Mapping[str, Any]) -> None:
        """Adds an evaluation to the Aim run of a training that is over, whose state was loaded.

        Its context has the key ``protocol`` besides ``net``; ``run.protocols`` holds the protocol under that key.
        It does not replace the metrics of training or of evaluations with other protocols, only those with its own.
        """
        if not self._identity:
            return
        with self._going_on("add the evaluation to the run"):
            run = aim_storage.open_run(self.repo, create=False, run_hash=self._identity["hash"])
            try:
                self._add(run, step, metrics, details)
            finally:
                aim_storage.close_run(run)

    @staticmethod
    def _add(run: Any, step: int, metrics: Mapping[str, float], details: Mapping[str, Any]) -> None:
        parts = {part: details["protocol"][part] for part in ("metrics", "generated", "real")}
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
        run["protocols", key] = plain(details["protocol"])
        spread = {f"{name}/spread": value for name, value in details["spread"].items()}
        for name, value in {**metrics, **spread}.items():
            run.track(float(value), name=printable(name), step=step, context={"net": "ema", "protocol": key})

    def _opened(self, run: Run) -> Any:
        """A writable ``aim.Run``: the one of the checkpoint where it is this run's, else a new one."""
        options = {"experiment": printable(self.experiment or run.experiment)}
        # A checkpoint that starts another run folder must not write into the first one's curves.
        if self._identity.get("run") == run.name:
            with self._going_on("continue the Aim run of the checkpoint, so a new one is started"):
                return aim_storage.open_run(self.repo, run_hash=self._identity["hash"], **options)
        return aim_storage.open_run(self.repo, **options)

    def _describe(self, run: Run) -> None:
        from aim import Text

        if self._run.hash != self._identity.get("hash"):  # One that goes on may have been renamed in Aim.
            self._run.name = printable(run.name)
        for tag in {printable(tag) for tag in self.tags} - set(self._run.tags):
            self._run.add_tag(tag)
        self._run["status"] = "running"
        self._run["hparams"] = plain(run.hparams)
        self._run["environment"] = plain(run.environment)
        if self.log_images and run.neighborhoods and not run.resumed:
            self._draw_neighborhoods(run)
        if self.labels:
            self._run["labels"] = plain(self.labels)
        self._run.track(Text(plain_text(run.config_text)), name="config.gin", step=run.step)

    def _draw_neighborhoods(self, run: Run) -> None:
        from aim import Image

        from stylenat.receptive_field import save_neighborhoods

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "receptive_field.png"
            save_neighborhoods(path, run.name, run.neighborhoods)
            self._run.track(Image(str(path)), name="receptive field", step=0)

    def _track_newest(self) -> None:
        for name, (step, value) in self._newest.taken().items():
            series, _, last = name.rpartition("/")
            if last in NETWORKS:
                self._track(value, series, step, last)
            else:
                self._track(value, name, step)

    def _track(self, value: Any, name: str, step: int, net: str | None = None) -> None:
        if self._run is None:
            return
        with self._going_on(f"track {name}"):
            context = ({"net": net} if net else {}) | {"split": "train"}
            self._run.track(float(value), name=printable(name), step=step, context=context)
