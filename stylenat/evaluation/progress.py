"""How far a pass over images is, on stderr: a line that renews itself in a terminal, a line now and then elsewhere."""

import sys
import time
from datetime import timedelta

from stylenat.ranks import rank


class ProgressLine:
    """Called with (images done, images in all). Only process 0 says anything.

    Args:
        what: is being done; every: seconds between lines.
        live: renew one line in place; None for: where stderr is a terminal.
        unit: what is counted.
    """

    def __init__(self, what: str, every: float = 10.0, live: bool | None = None, unit: str = "images") -> None:
        self._what, self._unit, self._rate = what, unit, "img" if unit == "images" else unit
        self._live = sys.stderr.isatty() if live is None else live
        self._every = 0.5 if self._live else every
        self._said = time.monotonic()
        self._first: tuple[float, int] | None = None  # The rate is of what came after the first call: it warmed up.
        self._open = False

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._first = self._first or (now, done)
        due = now - self._said >= self._every or (self._open and done >= total)
        if rank() or not due:
            return
        self._said = now
        began, before = self._first
        rate = (done - before) / max(now - began, 1e-9)
        known = f"  {rate:.1f} {self._rate}/s  ETA {timedelta(seconds=round((total - done) / rate))}" if rate else ""
        line = f"{self._what}: {done}/{total} {self._unit}{known}"
        print(f"\r{line}\x1b[K" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True)
        self._open = self._live
        if done >= total:
            self.close()

    def close(self) -> None:
        """Ends a line that was to be renewed."""
        if self._open:
            print(file=sys.stderr)
            self._open = False
