"""When a run writes a checkpoint, which ones stay, and what it does when nothing is finite any more."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from stylenat.ranks import rank, wait_for_all
from stylenat.training import checkpoint
from stylenat.training.guards import weight_norms
from stylenat.training.rollback import roll_back
from stylenat.training.run import Run
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.writer import Writer


class Checkpoints:
    """A context around the training of one run; leaving it waits until the last checkpoint is written.

    Process 0 writes; the others only agree with it.
    """

    def __init__(self, settings: Training, state: TrainingState, run: Run, hook: Any) -> None:
        self._settings, self._state, self._run, self._hook = settings, state, run, hook
        self._folder = run.directory / "checkpoints"
        self._writer = Writer(self._folder)
        self._saved = self._place()

    def __enter__(self) -> "Checkpoints":
        if rank() == 0:
            self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, at)

    def save_if_due(self) -> None:
        """Begins to write one where it is time for it, the run is finished, or the metric to keep has improved.

        Not amid skipped steps: a roll-back should lead to before they began.
        """
        if self._due() and (self._state.finished or not self._skipping()):
            self._save()

    def save_before_stopping(self) -> None:
        """Writes one of where the run is, unless there is one already, and waits for it."""
        if self._saved != self._place():
            if unfit := self._not_finite():
                print(f"{unfit}: not saved; the checkpoint before stays", file=sys.stderr)
            else:
                self._save()
        self._tell(self._writer.drained())

    def tell(self) -> None:
        """Tells trackers of a checkpoint that has been completed. Raises what kept one from being written."""
        self._tell(self._writer.written())

    def trouble(self) -> str | None:
        """Why the run cannot go on from where it is; None when it can. Weights are looked at where one would save."""
        in_a_row = self._state.guard.in_a_row
        if in_a_row >= self._settings.max_skipped:
            return f"{in_a_row} iterations in a row had a loss or gradient that is not finite"
        return self._not_finite() if self._due() else None

    def roll_back(self, reason: str, scalars: Mapping[str, Any]) -> None:
        """To the last good checkpoint, with other noise; trackers are told. Raises UserError when that is no help."""
        self._tell(self._writer.drained())
        wait_for_all()
        roll_back(self._settings, self._state, self._folder, reason, scalars)
        self._saved = self._place()
        self._run.step, self._run.images = self._state.step, self._state.images
        self._hook.run_rolled_back(run=self._run, step=self._state.step)

    def _place(self) -> tuple[int, tuple[str, ...]]:
        """What tells a checkpoint of the run from the one before."""
        return self._state.step, tuple(self._state.pending)

    def _due(self) -> bool:
        settings, state = self._settings, self._state
        if self._saved == self._place():
            return False
        improved = state.best_steps.get(settings.keep_best or "") == state.step
        return improved or state.step >= settings.iterations or state.step % settings.checkpoint_every == 0

    def _skipping(self) -> bool:
        self._state.guard.read()
        return self._state.guard.in_a_row > 0

    def _not_finite(self) -> str | None:
        norms = weight_norms(self._state.networks())
        names = [name.removeprefix("weight_norm/") for name, norm in norms.items() if not norm.isfinite()]
        return f"the weights of {', '.join(names)} are no longer finite" if names else None

    def _save(self) -> None:
        settings, state, folder = self._settings, self._state, self._folder
        self._saved = self._place()
        if rank() != 0:
            return
        best = state.best_steps.get(settings.keep_best or "")
        networks = {name: network.state_dict() for name, network in state.networks().items()}

        written = state.step  # Training is further on by the time that it is.

        def prune() -> None:
            checkpoint.prune(folder, written, settings.keep_checkpoints, settings.keep_every, best)

        self._tell(self._writer.drained())
        self._writer.save(state.step, networks, state.state_dict(), prune)

    def _tell(self, path: Path | None) -> None:
        if path is not None:
            self._hook.checkpoint_saved(run=self._run, step=checkpoint.step_of(path), path=path)
