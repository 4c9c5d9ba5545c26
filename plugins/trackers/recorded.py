"""What a tracker has recorded of a run, in a file of the run folder.

A process that was killed may have recorded more than its last checkpoint knows of. What the next one computes again is
then not recorded twice. Curves do not belong here.
"""

import json
from pathlib import Path
from typing import Any

from registry import UserError
from stylenat.files import read_bounded
from stylenat.training.run import Run, write_text

BYTES = 2**16


def own_folder(run: Run, name: str) -> Path:
    """The folder ``name`` of the run folder, created if it is missing. Raises UserError where it is a link."""
    folder = run.directory / name
    folder.mkdir(exist_ok=True)
    if folder.is_symlink():
        raise UserError(f"{folder} is a link, so nothing is written through it; remove it")
    return folder


class Recorded:
    """The newest iteration of each series, and ``identity``, the tracker's own name of the run.

    Args:
        path: of the file; one that is missing or cannot be read counts as empty.
        run: name of the run. The file of another run, as in a copied folder, counts as empty too.
    """

    def __init__(self, path: Path, run: str) -> None:
        self._path, self._run = path, run
        held = self._held()
        if held.get("run") != run:
            held = {}
        self.identity = str(held.get("identity", ""))
        steps = held.get("steps")
        self._steps = {str(k): v for k, v in steps.items() if type(v) is int} if isinstance(steps, dict) else {}

    def lacks(self, series: str, step: int) -> bool:
        """Whether the iteration is beyond the newest of the series."""
        return step > self._steps.get(series, -1)

    def add(self, series: str, step: int) -> None:
        self._steps[series] = step

    def cut(self, step: int) -> None:
        """Forgets what lies beyond the iteration."""
        self._steps = {series: min(newest, step) for series, newest in self._steps.items()}

    def save(self) -> None:
        write_text(self._path, json.dumps({"run": self._run, "identity": self.identity, "steps": self._steps}) + "\n")

    def _held(self) -> dict[str, Any]:
        try:
            held = json.loads(read_bounded(self._path, BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return held if isinstance(held, dict) else {}
