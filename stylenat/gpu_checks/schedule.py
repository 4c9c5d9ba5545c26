"""Runs checks one after the other, each in a process of its own with a time budget."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stylenat.gpu_checks import CHECKS, Row

LEAST = 5.0
"""Seconds that are left below which no further check starts."""
LOGGED = 4000
"""Characters of a check's output that are kept, from its end."""


@dataclass
class Outcome:
    """What became of one check.

    Attributes:
        status: ``done``, ``failed``, ``out of time``, ``interrupted`` or ``not started``.
        rows: those that it came to; log: the end of its output; seconds: it took.
        device: the name of what it ran on; empty where the check did not come so far.
    """

    status: str = "not started"
    rows: list[Row] = field(default_factory=list)
    log: str = ""
    seconds: float = 0.0
    device: str = ""


def budgets(names: Sequence[str], seconds: float) -> dict[str, float]:
    """Seconds for each check: its own, stretched where there is more time than all of them need."""
    stretch = max(1.0, seconds / sum(CHECKS[name].seconds for name in names))
    return {name: stretch * CHECKS[name].seconds for name in names}


def outcomes(
    names: Sequence[str], device: str, seconds: float, say: Callable[[str], None]
) -> Iterator[tuple[str, Outcome]]:
    """Every check's outcome, as it is there.

    Args:
        seconds: for all together; say: is called with lines of progress.

    Raises:
        KeyboardInterrupt: after the outcome of the check that it interrupts.
    """
    end = time.monotonic() + seconds
    for number, (name, budget) in enumerate(budgets(names, seconds).items(), 1):
        left = end - time.monotonic()
        outcome = Outcome()
        if number > 1 and left < LEAST:
            say(f"[{number}/{len(names)}] {name}: no time left")
            yield name, outcome
            continue
        say(f"[{number}/{len(names)}] {name}: {CHECKS[name].what}; at most {min(budget, left):.0f} s")
        try:
            _run(name, device, min(budget, left), outcome, say)
        except KeyboardInterrupt:
            outcome.status = "interrupted"
            yield name, outcome
            raise
        say(f"    {outcome.status} after {outcome.seconds:.0f} s")
        yield name, outcome


def _run(name: str, device: str, seconds: float, outcome: Outcome, say: Callable[[str], None]) -> None:
    """One check, whose rows reach ``outcome`` one by one. Its process, and what that started, end with this call."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="check_gpu-", ignore_cleanup_errors=True) as folder:
        results, log = Path(folder, "rows.jsonl"), Path(folder, "log.txt")
        results.touch()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "stylenat.gpu_checks", name, device, str(results)],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": _import_path()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                while (code := process.poll()) is None and time.monotonic() - began < seconds:
                    time.sleep(0.1)
                    _read(results, outcome, say)
                outcome.status = "out of time" if code is None else "failed" if code else "done"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                _read(results, outcome, say)
                outcome.log = log.read_text(encoding="utf-8", errors="replace")[-LOGGED:]
                outcome.seconds = time.monotonic() - began


def _read(results: Path, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Takes over what was added: the device's name, then rows. The last line may not be complete yet."""
    complete = results.read_text(encoding="utf-8").split("\n")[:-1]
    if complete and not outcome.device:
        outcome.device = json.loads(complete[0])
    for line in complete[1 + len(outcome.rows) :]:
        row = Row(**json.loads(line))
        outcome.rows.append(row)
        say(f"    {row.case}: {row}")


def _import_path() -> str:
    """Where this package lies, before what the caller gave: the process imports the same one from any folder."""
    here = str(Path(__file__).parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
