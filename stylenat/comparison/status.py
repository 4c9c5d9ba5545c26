"""How far a run came, from what its folder holds. Reads only; takes no lock."""

import fcntl
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from stylenat import checkpoint
from stylenat.ablation.outcomes import Ended
from stylenat.training.run import PREEMPTED

FINISHED, STOPPED, FAILED, RUNNING, NOT_BEGUN = "finished", "stopped", "failed", "running", "not begun"
FLOCK = "hhqqi4x"
"""C's ``struct flock`` on 64-bit Linux: type, whence, start, length, process."""


@dataclass(frozen=True)
class Status:
    """``word``: one of the five above; ``reason``: of a failure, else empty; ``step``: iterations done."""

    word: str
    reason: str = ""
    step: int = 0

    def __str__(self) -> str:
        return f"{self.word} at iteration {self.step:,}" if self.word in (STOPPED, FAILED) else self.word


def status_of(directory: Path, iterations: int, evaluated: int, ended: Ended | None = None) -> Status:
    """The status of a run.

    Args:
        iterations: that it should have; evaluated: those of its last evaluation.
        ended: the last outcome that an ablation recorded for it.
    """
    folders = checkpoint.found(directory / "checkpoints")
    step = max([evaluated, *map(checkpoint.step_of, folders)])
    if is_training(directory):
        return Status(RUNNING, step=step)
    if step >= iterations:
        return Status(FINISHED, step=step)
    failed = ended is not None and ended.code not in (0, 75)
    if not (directory / "config.gin").exists():
        return Status(FAILED, ended.reason) if ended is not None and failed else Status(NOT_BEGUN)
    if (directory / PREEMPTED).exists() or (ended is not None and ended.code == 75):
        return Status(STOPPED, step=step)
    if ended is not None and failed:
        return Status(FAILED, ended.reason, step)
    return Status(FAILED, "it ended and left no reason; its log may say more", step)


def is_training(directory: Path) -> bool:
    """Whether a process of this machine holds the run's lock (``training.run.only_process``).

    The lock is asked about, not taken: a run that starts meanwhile finds it free. Only Linux answers.
    """
    if sys.platform != "linux":
        return False
    try:
        descriptor = os.open(directory / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        asked = struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind = struct.unpack(FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0]
    except OSError:  # No locks on this file system.
        return False
    finally:
        os.close(descriptor)
    return kind != fcntl.F_UNLCK
