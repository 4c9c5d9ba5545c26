"""Tracker ``jsonl``: ``metrics.jsonl`` in the run folder, one object an evaluation. It is the truth of a run."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry import hookimpl
from stylenat.training.run import write_text


class JsonLines:
    """Appends ``{"step", "images", "time", "metrics"}``; a resume drops what lies beyond its own step."""

    @hookimpl
    def run_started(self, run):
        path = self._path(run)
        if path.exists():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) <= run.step]
            write_text(path, "".join(f"{line}\n" for line in kept))

    @hookimpl
    def metrics_evaluated(self, run, step, metrics):
        record = {
            "step": step,
            "images": step * run.batch_size,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics": metrics,
        }
        with open(self._path(run), "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state: the file is cut to the run's step when it starts."""

    @staticmethod
    def _path(run) -> Path:
        return run.directory / "metrics.jsonl"


def _step(line: str) -> float:
    """The line's step; beyond any for a line that a crash left torn."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")
