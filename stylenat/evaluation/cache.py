"""Where the statistics of real sets last between runs: one safetensors file for each key.

A cache is foreign input, as checkpoints are: nothing in it is run, and what has not the expected form is not used.
"""

import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stylenat.files import cache_folder, save_tensors
from stylenat.ranks import any_of_ranks, rank

FORMAT_VERSION = 1
HEADER_BYTES = 2**20
"""The longest safetensors header that is parsed; one of ours has some hundred bytes beside its key."""
BETWEEN = 0.2
"""Seconds between two looks whether another run is done."""


def statistics_folder() -> Path:
    """``statistics`` in the cache folder."""
    return cache_folder() / "statistics"


class StatisticsCache:
    """Tensors by a key of plain values. An entry is found by its whole key only, and checked by its checksum.

    Args:
        folder: made when the first entry is saved.
        say: called with a line when an entry is damaged or cannot be kept; the evaluation goes on.
        what: is kept, for that line.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], what: str = "the real set's statistics") -> None:
        self._folder, self._say, self._what = folder, say, what
        self._damaged: set[Path] = set()

    def path(self, key: Mapping[str, Any]) -> Path:
        return self._folder / f"{hashlib.sha256(_text(key).encode()).hexdigest()[:32]}.safetensors"

    def load(
        self, key: Mapping[str, Any], bytes_at_most: int, check: Callable[[dict[str, Tensor], Any], None]
    ) -> tuple[dict[str, Tensor], Any] | None:
        """The entry's tensors and notes; None where there is none, or a damaged one.

        Args:
            bytes_at_most: a larger file is not read.
            check: called with tensors and notes; raises KeyError, TypeError, ValueError or RuntimeError for those that
                have not the expected form.
        """
        path = self.path(key)
        try:
            _must_be_file(path, bytes_at_most)
            with safe_open(path, "pt") as file:
                noted = file.metadata()
                if noted["key"] != _text(key):
                    raise ValueError("it is another key's")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            if noted["sha256"] != _checksum(tensors):
                raise ValueError("its checksum differs")
            notes = json.loads(noted["notes"])
            check(tensors, notes)
            return tensors, notes
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
            if path not in self._damaged:  # It is looked for again before it is computed.
                self._damaged.add(path)
                self._say(f"{path} is damaged; the statistics in it are computed again")
            return None

    def save(self, key: Mapping[str, Any], tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> bool:
        """Writes the entry, whole or not at all; whether it is there."""
        state = {name: tensor.contiguous() for name, tensor in tensors.items()}
        noted = {"key": _text(key), "notes": json.dumps(notes), "sha256": _checksum(state)}
        path = self.path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")  # Two runs may save the same entry at once.
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_tensors(state, temporary, noted)
            temporary.replace(path)
            self._damaged.discard(path)
            return True
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._say(f"{self._what} cannot be kept in {self._folder} ({reason})")
            return False
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def remove(self, key: Mapping[str, Any]) -> bool:
        """Removes the entry; whether it was there."""
        try:
            self.path(key).unlink()
            return True
        except OSError:
            return False

    def forget(self, seconds: float) -> None:
        """Removes all entries that were written longer ago."""
        for path in self._folder.glob("*.safetensors"):
            with suppress(OSError):  # Another process may remove it, too.
                if time.time() - path.lstat().st_mtime > seconds:
                    path.unlink()

    def unfinished(self) -> "StatisticsCache":
        """A cache in a folder of this one, for evaluations that are not finished."""
        return StatisticsCache(self._folder / "unfinished", self._say, "an unfinished evaluation")

    @contextmanager
    def in_turn(self, key: Mapping[str, Any], wait: Callable[[], object]) -> Iterator[None]:
        """Within this context no other run computes what belongs to the key, if it enters the context too and then
        looks again: what runs need at the same time is computed once. All processes of a run enter together.

        Args:
            wait: called again and again, in every process, while another run computes; it may raise.
        """
        lock = _Lock(self.path(key).with_suffix(".lock")) if rank() == 0 else None
        waited = False
        try:
            while any_of_ranks(lock is not None and not lock.taken()):
                if not waited and rank() == 0:
                    self._say("another run computes the same statistics of the real images; waiting for it")
                waited = True
                wait()
                time.sleep(BETWEEN)
            yield
        finally:
            if lock is not None:
                lock.release()


class _Lock:
    """A file that one process at a time holds, for as long as it lives. It is removed when it is released."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def taken(self) -> bool:
        """Whether this process holds it now. Where files or locks cannot be made, nobody has to."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError:
            return True
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may be the one that the last holder has removed, while a third process makes a new one.
            held = os.path.samestat(os.fstat(descriptor), os.stat(self._path, follow_symlinks=False))
        except FileNotFoundError:
            held = False
        except OSError as error:
            os.close(descriptor)
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        if held:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return held

    def release(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = None


def _must_be_file(path: Path, bytes_at_most: int) -> None:
    about = path.lstat()  # Before it is opened: a pipe would wait for its writer.
    if not stat.S_ISREG(about.st_mode) or about.st_size > bytes_at_most:
        raise ValueError("it is not a plain file, or too large")
    with open(path, "rb") as file:
        if int.from_bytes(file.read(8), "little") > HEADER_BYTES:
            raise ValueError("its header is too long")


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps({"format_version": FORMAT_VERSION, **key}, sort_keys=True)


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        whole.update(tensors[name].numpy().reshape(-1).view("uint8"))
    return whole.hexdigest()
