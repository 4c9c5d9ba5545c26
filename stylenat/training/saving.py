"""Checkpoints of a run in time: when one is written, in a background thread, which stay, and the way back to one.

What a checkpoint is on disk is in ``stylenat.checkpoint``; whether a step may be taken, in ``guards``.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from registry import UserError
from stylenat import checkpoint
from stylenat.ranks import rank, wait_for_all
from stylenat.training.guards import weight_norms
from stylenat.training.run import Run
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState

SHOWN = ("loss/", "gradient_norm/", "weight_norm/", "augmentation/p")
"""Scalars that a diagnosis of divergence shows, by the beginnings of their names."""


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

        Not between skipped steps: a roll-back must return to a checkpoint from before they began.
        """
        if self._due() and (self._state.finished or not self._skipping()):
            self._save()

    def save_before_stopping(self) -> None:
        """Writes one of where the run is, unless there is one already, and waits for it."""
        if self._saved != self._place():
            if unfit := self._not_finite():
                print(f"{unfit}: not saved; the previous checkpoint is kept", file=sys.stderr)
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
        """Returns to the last good checkpoint, with other noise, and calls the hook. Raises UserError if that fails."""
        self._tell(self._writer.drained())
        wait_for_all()
        restore_newest(self._settings, self._state, self._folder, reason, scalars)
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


def restore_newest(
    settings: Training, state: TrainingState, folder: Path, reason: str, scalars: Mapping[str, Any]
) -> None:
    """Restores the newest good checkpoint and draws other noise from there on. The order of the data stays.

    Args:
        folder: of the checkpoints, none of which is being written; reason: what was seen, for the user.
        scalars: of the last iteration.

    Raises:
        UserError: there is no checkpoint, or the roll-backs are used up; with what was seen.
    """
    seen = [f"{name} {float(value):.4g}" for name, value in scalars.items() if name.startswith(SHOWN)]
    rates = [state.optimizers[name].param_groups[0]["lr"] for name in ("generator", "discriminator")]
    skipped = ", ".join(f"{name} {count}" for name, count in state.guard.skipped.items()) or "none"
    diagnosis = (
        f"training diverged at iteration {state.step}: {reason}; skipped steps so far: {skipped}; last seen: "
        f"{', '.join(seen)}; learning rates {rates[0]:.3g} (generator), {rates[1]:.3g} (discriminator)"
    )
    advice = "lower the learning rates, or raise the regularization, and continue with --resume-with-changes"
    roll_backs = state.guard.roll_backs
    if roll_backs >= settings.max_roll_backs:
        raise UserError(f"{diagnosis}; after {roll_backs} roll-backs, checkpoints are kept in {folder}; {advice}")
    path = checkpoint.newest_for_all(folder, lambda line: print(line, file=sys.stderr))
    if path is None:
        raise UserError(f"{diagnosis}; there is no earlier checkpoint; {advice.partition(', and continue')[0]}")
    if rank() == 0:
        number = f"{roll_backs + 1} of {settings.max_roll_backs}"
        print(f"{diagnosis}; going back to {path} with other noise ({number})", file=sys.stderr)
    counts = state.guard.skipped
    state.restore(path)
    state.guard.skipped, state.guard.in_a_row, state.guard.roll_backs = counts, 0, roll_backs + 1
    state.draw_anew()


class Snapshot:
    """Copies of a state in main memory. The buffers of one are used again for the next.

    Fresh memory costs more than the copy: the kernel clears it page by page. From a GPU the buffers are pinned.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}

    def take(self, value: Any) -> Any:
        """A copy of nested dicts, lists and tuples of tensors and plain values; it lasts until the next."""
        # Hundreds of small copies: where cores are busy, waiting for a second thread in each takes longer than all.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            copied = self._copied(value, ())
        finally:
            torch.set_num_threads(threads)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return copied

    def _copied(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, Tensor):
            buffer = self._buffers.get(place)
            if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
                pinned = value.device.type == "cuda"
                buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
                self._buffers[place] = buffer
            return buffer.copy_(value.detach(), non_blocking=True)
        if isinstance(value, Mapping):
            return {key: self._copied(item, (*place, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copied(item, (*place, i)) for i, item in enumerate(value))
        return value


class Writer:
    """A context that writes checkpoints of one run in a background thread, one at a time; training blocks only for the
    copy. Leaving it waits for the last one.

    Args:
        directory: of the checkpoints. What an earlier process left half-written there is removed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._snapshot = Snapshot()
        self._thread: threading.Thread | None = None
        self._written: Path | None = None
        self._error: Exception | None = None

    def __enter__(self) -> "Writer":
        checkpoint.tidy(self.directory)
        return self

    def save(
        self,
        step: int,
        networks: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Copies the state and begins to write it; waits first for one that is still being written.

        Args:
            then: called in the writing thread when it is written, such as to remove old ones.

        Raises:
            UserError: as ``checkpoint.save``, for the one before.
        """
        self._wait()
        self._raise()
        copied = self._snapshot.take({"networks": dict(networks), "state": dict(state)})

        def write() -> None:
            try:
                self._written = checkpoint.save(self.directory, step, copied["networks"], copied["state"])
                then()
            except Exception as error:  # For the training thread to raise.
                self._error = error

        # A daemon: whoever presses Ctrl-C twice does not wait. What is half-written is removed by the next.
        self._thread = threading.Thread(target=write, name="checkpoint writer", daemon=True)
        self._thread.start()

    def written(self) -> Path | None:
        """A checkpoint that has been completed since this was last asked. Raises what kept it from being so."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._wait()
        self._raise()
        path, self._written = self._written, None
        return path

    def drained(self) -> Path | None:
        """``written``, having waited for it."""
        self._wait()
        self._raise()
        path, self._written = self._written, None
        return path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            self._wait()
        if error is None:
            self._raise()
        elif self._error is not None:
            error.add_note(f"in addition, the last checkpoint was not written: {self._error}")

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
