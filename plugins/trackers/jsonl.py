"""Tracker ``jsonl``: ``metrics.jsonl`` in the run folder, one object for each evaluation.

It contains only evaluations; curves of every iteration are for other trackers.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import UserError, hookimpl
from stylenat.evaluation.protocol import RESULTS_BYTES
from stylenat.evaluation.records import append_evaluation
from stylenat.files import read_bounded
from stylenat.training.guards import PREFIX
from stylenat.training.run import Run, write_text


class JsonLines:
    """Appends ``{"step", "images", "time", "metrics", "spread", "intervals", "protocol", "training"}``.

    A resume drops what lies beyond its own step.
    ``images``: real images seen so far; ``time``: UTC, ISO 8601; ``training``: the ``iterations`` of this process since
    the evaluation before, or since its start, and the ``seconds`` that they took, without evaluations and samples; and
    ``skipped``, the steps that the whole run has skipped by whose they were, if there are any. The
    others are explained in docs/evaluation.md. A number that is not finite is written as null, which every JSON reader
    takes.
    """

    def __init__(self) -> None:
        self._skipped: dict[str, Any] = {}
        self._begin()

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Raises UserError for a damaged file; an incomplete last line, left by a crash, is removed."""
        self._cut(run, run.step)
        self._begin()

    @hookimpl
    def step_ended(self, run: Run, scalars: Mapping[str, Any]) -> None:
        now = time.monotonic()
        self._seconds, self._since = self._seconds + now - self._since, now
        self._iterations += 1
        self._skipped |= {name: value for name, value in scalars.items() if name.startswith(PREFIX)}

    @hookimpl
    def images_sampled(self, run: Run) -> None:
        self._since = time.monotonic()

    @hookimpl
    def run_rolled_back(self, run: Run, step: int) -> None:
        self._cut(run, step)

    @hookimpl
    def metrics_evaluated(self, run: Run, step: int, metrics: Mapping[str, float], details: Mapping[str, Any]) -> None:
        self._cut(run, step - 1)  # An evaluation that was stopped before its checkpoint comes again.
        training: dict[str, Any] = {"seconds": round(self._seconds, 3), "iterations": self._iterations}
        if skipped := {name.removeprefix(PREFIX): int(n) for name, n in self._skipped.items() if n}:
            training["skipped"] = skipped
        append_evaluation(self._path(run), step, run.images, metrics, {**details, "training": training})
        self._begin()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state: the file is cut to the run's step when it starts, and time has no place in checkpoints."""

    def _begin(self) -> None:
        self._seconds, self._iterations, self._since = 0.0, 0, time.monotonic()

    def _cut(self, run: Run, last: int) -> None:
        """Drops what lies beyond step ``last``."""
        path = self._path(run)
        if not path.exists():
            return
        try:
            before = read_bounded(path, RESULTS_BYTES).decode(errors="replace")
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        kept = "".join(f"{line}\n" for line, step in _evaluations(before, path) if step <= last)
        if kept != before:
            write_text(path, kept)

    @staticmethod
    def _path(run: Run) -> Path:
        return run.directory / "metrics.jsonl"


def _evaluations(text: str, path: Path) -> list[tuple[str, int]]:
    """Each line with its step, without a torn last one."""
    lines = text.splitlines()
    evaluations = []
    for number, line in enumerate(lines, start=1):
        try:
            evaluations.append((line, int(json.loads(line)["step"])))
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):  # A crash tears the last line only.
                raise UserError(
                    f"{path} line {number} is not an evaluation; repair it or move the file away"
                ) from error
    return evaluations
