"""What becomes of a run whose steps are no longer finite: back to its last checkpoint with other noise, or an end."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import UserError
from stylenat import ranks
from stylenat.training.checkpoint import newest_for_all
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState

SHOWN = ("loss/", "gradient_norm/", "weight_norm/", "augmentation/p")


def roll_back(settings: Training, state: TrainingState, folder: Path, reason: str, scalars: Mapping[str, Any]) -> None:
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
    advice = "lower the learning rates, or raise the regularization, and go on with --resume-with-changes"
    roll_backs = state.guard.roll_backs
    if roll_backs >= settings.max_roll_backs:
        raise UserError(f"{diagnosis}; after {roll_backs} roll-backs, checkpoints are kept in {folder}; {advice}")
    path = newest_for_all(folder, lambda line: print(line, file=sys.stderr))
    if path is None:
        raise UserError(f"{diagnosis}; there is no checkpoint to go back to; {advice.partition(', and go on')[0]}")
    if ranks.rank() == 0:
        number = f"{roll_backs + 1} of {settings.max_roll_backs}"
        print(f"{diagnosis}; going back to {path} with other noise ({number})", file=sys.stderr)
    counts = state.guard.skipped
    state.restore(path)
    state.guard.skipped, state.guard.in_a_row, state.guard.roll_backs = counts, 0, roll_backs + 1
    state.draw_anew()
