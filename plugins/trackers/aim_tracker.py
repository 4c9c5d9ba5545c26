"""Tracker ``aim``: scalars, sample grids, metrics and the whole config in an Aim repository.

Training never stops for it: what Aim raises is said once for each cause, and training goes on.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from registry import hookimpl


def _survives(method: Callable[..., None]) -> Callable[..., None]:
    """Says a failure of Aim's once for each cause."""

    @functools.wraps(method)
    def guarded(self: "AimTracker", *args: Any) -> None:
        try:
            method(self, *args)
        except Exception as error:  # Whatever it is, a tracker's fault is no reason to lose a week of training.
            cause = f"{type(error).__name__}: {error}"
            if cause not in self._said:
                self._said.add(cause)
                print(f"aim: {cause}; training goes on without", file=sys.stderr)

    return guarded


class AimTracker:
    """Series: ``loss``, ``logits``, ``regularizer`` ... with context ``net`` or ``name``; metrics by their name.

    The step is the iteration. A resumed run goes on in the same Aim run.

    Args:
        repo: folder that holds ``.aim``; experiment: Aim's experiment, by default the gin file's stem.
        every: iterations between tracked scalars.
        images: whether sample grids are stored.
    """

    def __init__(self, repo: str = ".", experiment: str | None = None, every: int = 50, images: bool = True) -> None:
        self.repo, self.experiment, self.every, self.images = repo, experiment, every, images
        self._run: Any = None
        self._hash: str | None = None
        self._said: set[str] = set()

    @hookimpl
    def run_started(self, run):
        self._open(run)

    @_survives
    def _open(self, run: Any) -> None:
        try:
            import aim
        except ImportError:
            print("aim is not installed: nothing is tracked there; `pip install aim`", file=sys.stderr)
            return
        # Aim's defaults patch stdout, add threads, and store every environment variable.
        self._run = aim.Run(
            run_hash=self._hash,
            repo=self.repo,
            experiment=self.experiment or run.experiment,
            system_tracking_interval=None,
            capture_terminal_logs=False,
            log_system_params=False,
        )
        self._hash = self._run.hash
        self._run.name = run.name
        self._run["hparams"] = run.hparams
        self._run["environment"] = run.environment
        self._run.track(aim.Text(run.config_text), name="config.gin", step=run.step)

    @hookimpl
    def step_ended(self, run, step, scalars):
        if self._run is not None and (step % self.every == 0 or step == run.iterations):
            self._track(step, scalars)

    @_survives
    def _track(self, step: int, scalars: Mapping[str, Any]) -> None:
        for name, value in scalars.items():
            series, _, part = name.partition("/")
            networks = ("generator", "discriminator")
            context = {"net": part} if part in networks else {"name": part} if part else {}
            self._run.track(float(value), name=series, step=step, context=context)

    @hookimpl
    def metrics_evaluated(self, run, step, metrics):
        if self._run is not None:
            self._track_metrics(step, metrics)

    @_survives
    def _track_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._run.track(float(value), name=name, step=step, context={"net": "ema"})

    @hookimpl
    def images_sampled(self, run, step, images, path):
        if self._run is not None and self.images:
            self._track_image(step, path)

    @_survives
    def _track_image(self, step: int, path: Any) -> None:
        import aim

        self._run.track(aim.Image(str(path)), name="samples", step=step, context={"net": "ema"})

    @hookimpl
    def run_ended(self, run, status):
        if self._run is not None:
            self._close(status)

    @_survives
    def _close(self, status: str) -> None:
        self._run["status"] = status
        self._run.close()
        self._run = None

    def state_dict(self) -> dict[str, Any]:
        return {"hash": self._hash}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._hash = state["hash"]
