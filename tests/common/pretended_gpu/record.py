"""What a pretended GPU counts: transfers and waits, with the line of this project that caused each."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ROOMS = tuple(f"{ROOT / room}/" for room in ("stylenat", "plugins", "registry", "tools"))


@dataclass(frozen=True)
class Event:
    """One transfer, or one wait of the host for the device.

    Attributes:
        kind: ``to device``, ``to host`` or ``wait``.
        operation: PyTorch's name of what caused it.
        line: ``FILE:LINE`` of this project, and after `` < `` of the file that called it.
        bytes: of a transfer, 0 for a wait.
        blocking: whether the host waits. A transfer does not wait if it is ``non_blocking`` and the memory of the host
            is pinned.
        pinned: whether the memory of the host is.
    """

    kind: str
    operation: str
    line: str
    bytes: int = 0
    blocking: bool = True
    pinned: bool = False


@dataclass
class Record:
    """The events so far, in order, and how many operations the device was given."""

    events: list[Event] = field(default_factory=list)
    operations: int = 0

    def add(self, kind: str, operation: str, *, bytes: int = 0, blocking: bool = True, pinned: bool = False) -> None:
        self.events.append(Event(kind, operation, line(), bytes, blocking, pinned))


def line() -> str:
    """Where this project is: the innermost of its frames, and the next one in another file."""
    frame, found = sys._getframe(1), {}
    while frame is not None and len(found) < 2:
        name = frame.f_code.co_filename
        if name.startswith(ROOMS):
            found.setdefault(name, f"{name.removeprefix(f'{ROOT}/')}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found.values()) or "outside of the project"
