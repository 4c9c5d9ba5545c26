"""Runs a command and watches the memory of all of its processes.

Memory is what a process needs for itself (anonymous and shared memory). Pages of mapped files, such as those of an
LMDB, belong to the system's cache, which takes them back when memory is short: they are counted apart.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EVERY = 0.02
"""Seconds between looks: a peak that is shorter may be missed."""
MAIN, CHILDREN = "main", "children"


@dataclass
class Peak:
    """MiB: the most that one process of a kind had."""

    own: float = 0.0
    files: float = 0.0


@dataclass
class Watched:
    """What a command did.

    Attributes:
        seconds: until it ended, or was killed and its children were gone; output: stdout and stderr.
        peaks: by MAIN and CHILDREN; children: the most at one time.
    """

    seconds: float = 0.0
    output: str = ""
    code: int | None = None
    children: int = 0
    peaks: dict[str, Peak] = field(default_factory=lambda: {MAIN: Peak(), CHILDREN: Peak()})

    def __str__(self) -> str:
        children = self.peaks[CHILDREN]
        beside = f" + {self.children} x {children.own:.0f}" if self.children else ""
        return f"{self.peaks[MAIN].own:.0f}{beside} MiB"


def watched(command: Sequence[str], kill_when: Callable[[], bool] | None = None, **options: object) -> Watched:
    """Runs a command to its end, or kills its main process (SIGKILL) as soon as ``kill_when()``.

    Raises RuntimeError where it fails, or where its children outlive it by 20 s.
    """
    found, began = Watched(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload]
        known: set[int] = set()
        killed = False
        while process.poll() is None:
            children = _descendants(process.pid)
            known |= set(children)
            found.children = max(found.children, len(children))
            _note(found.peaks[MAIN], process.pid)
            for child in children:
                _note(found.peaks[CHILDREN], child)
            if kill_when is not None and not killed and kill_when():
                process.send_signal(signal.SIGKILL)
                killed = True
            time.sleep(EVERY)
        ended = time.perf_counter()
        while any(_alive(child) for child in known):
            if time.perf_counter() > ended + 20:
                raise RuntimeError(f"children of {command} outlive it")
            time.sleep(EVERY)
        found.seconds, found.code = time.perf_counter() - began, process.returncode
        output.seek(0)
        found.output = output.read()
    if process.returncode not in (0, -signal.SIGKILL if killed else 0):
        raise RuntimeError(f"{command} ended with {process.returncode}: {found.output}")
    return found


def _descendants(pid: int) -> list[int]:
    """But for Python's process that cleans up semaphores."""
    found: list[int] = []
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for child in children:
            if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                found += [child, *_descendants(child)]
    except OSError:  # It has just ended.
        pass
    return found


def _note(peak: Peak, pid: int) -> None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return
    kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    peak.own = max(peak.own, (kilobytes.get("RssAnon", 0) + kilobytes.get("RssShmem", 0)) / 2**10)
    peak.files = max(peak.files, kilobytes.get("RssFile", 0) / 2**10)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def load() -> str:
    """Of the machine, for a table's heading: figures of a busy machine are no measurements."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
