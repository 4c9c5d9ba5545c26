"""Where the statistics of real sets last between runs: one safetensors file for each key.

A cache is foreign input, as checkpoints are: nothing in it is run, and what has not the expected form is not used.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stylenat.files import cache_folder, save_tensors

FORMAT_VERSION = 1
HEADER_BYTES = 2**20
"""The longest safetensors header that is parsed; one of ours has some hundred bytes beside its key."""


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
