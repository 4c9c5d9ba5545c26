"""The contract of kind ``tracker``: it hears a run, changes nothing of it, and goes on after a resume."""

import copy
from pathlib import Path
from typing import Any

import pluggy
import torch

from registry import hooks
from stylenat.evaluation.protocol import make_protocol
from stylenat.grids import image_grid, save_png
from stylenat.interfaces import Tracker
from stylenat.testing.contract import ContractError, pictures, require, require_plain_state, untouched
from stylenat.training.run import Run

DETAILS = {
    "spread": {"fid": 0.1},
    "intervals": {"fid": [12.3, 12.7]},
    "protocol": make_protocol({"fid": {"name": "fid", "better": "lower"}}, {"count": 10}, {"count": 10}, {}),
}
"""Of an evaluation, as the hook ``metrics_evaluated`` gives them."""

LIFECYCLE = ("run_started", "step_ended", "images_sampled", "metrics_evaluated", "checkpoint_saved", "run_ended")


def check_tracker(tracker: Tracker, directory: Path) -> None:
    """Plays a run of four iterations that is stopped, and its continuation, to the tracker and to a copy of it.

    Args:
        directory: an empty folder (pytest's ``tmp_path``); what the tracker writes elsewhere is not checked.

    Raises:
        ContractError: no hook of the lifecycle, one misspelt or with arguments that do not exist, tensors edited,
            randomness, or state that is not plain.
    """
    try:
        fresh = copy.deepcopy(tracker)
    except Exception as error:  # whatever copy finds in the way
        raise ContractError(f"it holds what cannot be copied before a run has started: {error}") from error
    run = Run("check", "check", directory, 8, 2, "train.seed = 0\n", {"train": {"seed": 0}}, {"seed": 0, "plugins": {}})
    (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    (directory / "samples").mkdir(exist_ok=True)
    _play(tracker, run, 4, "stopped")
    fresh.load_state_dict(require_plain_state(tracker))
    run.resumed = True
    _play(fresh, run, 8, "finished")
    _play(fresh, run, 8, "failed")


def _play(tracker: Tracker, run: Run, until: int, status: str) -> None:
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    try:
        manager.register(tracker)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise ContractError(f"a hook does not fit registry.hooks: {' '.join(str(error).split())}") from error
    own = {caller.name for caller in manager.get_hookcallers(tracker) or ()}
    require(bool(own & set(LIFECYCLE)), f"it has no hook; mark one of {', '.join(LIFECYCLE)} with @registry.hookimpl")
    scalars: dict[str, Any] = {"loss/discriminator": torch.tensor(1.5), "loss/generator": torch.tensor(0.5)}
    images = pictures(4, 16)
    path = run.directory / "samples" / f"step-{until:09d}.png"
    save_png(path, image_grid(images))
    checkpoint = run.directory / "checkpoints" / f"step-{until:09d}"
    checkpoint.mkdir(exist_ok=True)
    hook = manager.hook
    with untouched(images=images, **scalars):
        hook.run_started(run=run)
        for step in range(run.step + 1, until + 1):
            run.step = step
            hook.step_ended(run=run, step=step, scalars=scalars | {"augmentation/p": 0.1})
        hook.images_sampled(run=run, step=until, images=images, path=path)
        hook.metrics_evaluated(run=run, step=until, metrics={"fid": 12.5}, details=DETAILS)
        hook.checkpoint_saved(run=run, step=until, path=checkpoint)
        hook.run_ended(run=run, status=status)
