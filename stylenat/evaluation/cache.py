"""Where the statistics of real sets last between runs: one safetensors file for each key."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stylenat.files import cache_folder, save_tensors

FORMAT_VERSION = 1


def statistics_folder() -> Path:
    """``statistics`` in the cache folder."""
    return cache_folder() / "statistics"


class StatisticsCache:
    """Tensors by a key of plain values. An entry is found by its whole key only, and checked by its checksum.

    Args:
        folder: made when the first entry is saved.
        say: called with a line when an entry is damaged or cannot be kept; the evaluation goes on.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say

    def path(self, key: Mapping[str, Any]) -> Path:
        return self._folder / f"{hashlib.sha256(_text(key).encode()).hexdigest()[:32]}.safetensors"

    def load(self, key: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The entry's tensors and notes; None where there is none, or a damaged one."""
        path = self.path(key)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                noted = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            whole = noted["key"] == _text(key) and noted["sha256"] == _checksum(tensors)
            notes = json.loads(noted["notes"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            whole, tensors, notes = False, {}, {}
        if not whole:
            self._say(f"{path} is damaged; the statistics in it are computed again")
            return None
        return tensors, notes

    def save(self, key: Mapping[str, Any], tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Writes the entry, whole or not at all."""
        state = {name: tensor.contiguous() for name, tensor in tensors.items()}
        noted = {"key": _text(key), "notes": json.dumps(notes), "sha256": _checksum(state)}
        path = self.path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")  # Two runs may save the same entry at once.
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_tensors(state, temporary, noted)
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._say(f"the real set's statistics cannot be kept in {self._folder} ({reason})")
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps({"format_version": FORMAT_VERSION, **key}, sort_keys=True)


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        whole.update(tensors[name].numpy().reshape(-1).view("uint8"))
    return whole.hexdigest()
