"""How the runs of an ablation ended, a line each time one ends: ``outcomes.jsonl`` in the ablation's folder."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stylenat.files import open_in_folder, read_bounded

OUTCOMES, OUTCOMES_BYTES = "outcomes.jsonl", 2**26


@dataclass(frozen=True)
class Ended:
    """``code``: exit code, or minus the number of the signal that ended the process. ``reason``: empty for 0 and 75."""

    code: int
    reason: str = ""


def record_outcome(folder: Path, run: str, code: int, reason: str = "") -> None:
    """Appends one line. Raises UserError where the file is a link, OSError where it cannot be written."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"run": run, "code": code, "reason": reason, "time": now}) + "\n"
    with open(open_in_folder(folder / OUTCOMES, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8") as file:
        file.write(line)


def outcomes(folder: Path) -> dict[str, Ended]:
    """The last outcome by run; empty where none is recorded. Lines that cannot be read are passed over."""
    try:
        lines = read_bounded(folder / OUTCOMES, OUTCOMES_BYTES).decode(errors="replace").splitlines()
    except (OSError, ValueError):
        return {}
    found = {}
    for line in lines:
        try:
            record = json.loads(line)
            found[str(record["run"])] = Ended(int(record["code"]), str(record["reason"]))
        except (ValueError, KeyError, TypeError, RecursionError):  # A crash tore it.
            continue
    return found
