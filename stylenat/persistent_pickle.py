"""Tensors and plain arguments from the persistent pickles of NVIDIA's GAN code (``torch_utils.persistence``).

Such a pickle holds networks with the text of the program that made them. Here the text is dropped and no name in the
file is imported: ``stylenat.pickle_data`` interprets the opcodes, and ``stylenat.pickle_calls`` replaces the functions
that such a pickle may call. Which names mean which network is known to plugins of the kind ``checkpoint_layout``.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stylenat.pickle_calls import CALLS, CONTAINERS, LEGACY, Storages
from stylenat.pickle_data import Machine, Record, Refused

FILE_BYTES = 2**33
"""The largest file that is read: the published ones have up to 1.5 GB."""
DEPTH, PARTS = 64, 100_000
"""Of nested modules; of all modules, parameters and buffers of a file."""
VALUES, CHARACTERS = 100_000, 1000
"""Of all modules' arguments; of a text among them, and of a module's path."""


@dataclass(frozen=True)
class Module:
    """A module of a network: its class and the plain arguments that made it, None in the place of other values."""

    class_name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A network of a pickle.

    Attributes:
        tensors: parameters and persistent buffers by their names in ``state_dict``; copies.
        modules: by path; the network itself by the empty path.
    """

    tensors: dict[str, Tensor]
    modules: dict[str, Module]


@dataclass(frozen=True)
class Contents:
    """The networks of a pickle by name, the empty name where the pickle is one; the names of everything else."""

    networks: dict[str, Network]
    others: list[str]


def is_plain_pickle(path: Path) -> bool:
    """Whether a file begins as a pickle of its own and not as PyTorch's: neither a zip nor the older format."""
    with open(path, "rb") as file:
        start = file.read(len(LEGACY))
    return start[:1] == b"\x80" and start[1:2] <= b"\x05" and start != LEGACY


def read(path: Path) -> Contents:
    """The networks of a pickle.

    Raises:
        Refused: it is not of the accepted form, or too large. Damaged bytes may raise any other Exception.
    """
    if not 0 < path.stat().st_size <= FILE_BYTES:
        raise Refused(f"it must have 1 to {FILE_BYTES} bytes")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        storages = Storages(len(mapped))
        machine = Machine(CALLS | {"torch.storage._load_from_bytes": storages}, CONTAINERS)
        value = machine.read(mapped)  # type: ignore[arg-type]
        reader = _Reader(2 * len(mapped))
        entries = {"": value} if _is_module(value) else value
        if not isinstance(entries, dict):
            raise Refused("it holds no networks by name")
        networks = {
            key: reader.network(item) for key, item in entries.items() if isinstance(key, str) and _is_module(item)
        }
    return Contents(networks, [str(key) for key in entries if key not in networks])


class _Reader:
    """Takes networks out of records.

    Args:
        budget: bytes that all tensors may have together: some may share a storage.
    """

    def __init__(self, budget: int) -> None:
        self._bytes, self._parts, self._values = budget, PARTS, VALUES

    def network(self, record: Record) -> Network:
        found = Network({}, {})
        for path, module in self._walk(record, "", 0):
            state = module.state
            found.modules[path] = Module(module.kind[:CHARACTERS], self._arguments(state))
            temporary = state.get("_non_persistent_buffers_set") or []
            self._spend(len(temporary))
            for group in ("_parameters", "_buffers"):
                for name, tensor in self._items(state.get(group, {})):
                    if isinstance(tensor, Tensor) and not (group == "_buffers" and name in temporary):
                        found.tensors[f"{path}.{name}" if path else name] = self._copied(tensor)
        return found

    def _walk(self, record: Record, path: str, depth: int) -> Iterator[tuple[str, Record]]:
        if depth > DEPTH or len(path) > CHARACTERS:
            raise Refused(f"its modules are nested deeper than {DEPTH}, or have long names")
        yield path, record
        for name, child in self._items(record.state.get("_modules", {})):
            if _is_module(child):
                yield from self._walk(child, f"{path}.{name}" if path else name, depth + 1)

    def _items(self, value: Any) -> list[tuple[str, Any]]:
        """A module's parts of one kind, by name."""
        if not isinstance(value, dict):
            raise Refused("a module's parts are not a dictionary")
        self._spend(len(value) + 1)
        if not all(isinstance(name, str) and len(name) <= CHARACTERS for name in value):
            raise Refused("a module's parts have no names, or long ones")
        return list(value.items())

    def _spend(self, parts: int) -> None:
        self._parts -= parts
        if self._parts < 0:
            raise Refused(f"it has more than {PARTS} modules and tensors")

    def _copied(self, tensor: Tensor) -> Tensor:
        self._bytes -= tensor.numel() * tensor.element_size()
        if self._bytes < 0:
            raise Refused(f"it declares a tensor of shape {list(tensor.shape)}, more than the file holds")
        return tensor.clone()

    def _arguments(self, state: dict[Any, Any]) -> dict[str, Any]:
        """What ``torch_utils.persistence`` noted of a module's construction; unnamed ones by their number."""
        positional, named = state.get("_init_args"), state.get("_init_kwargs")
        given: dict[Any, Any] = dict(enumerate(positional)) if isinstance(positional, list | tuple) else {}
        return self._plain(given | (named if isinstance(named, dict) else {}), 8)

    def _plain(self, value: Any, depth: int) -> Any:
        self._values -= 1
        if self._values < 0 or depth < 0:
            raise Refused("its modules' arguments are nested too deeply, or are too many")
        if isinstance(value, list | tuple):
            return [self._plain(item, depth - 1) for item in value]
        if isinstance(value, dict):
            return {str(key)[:CHARACTERS]: self._plain(item, depth - 1) for key, item in value.items()}
        if isinstance(value, str):
            return value[:CHARACTERS]
        if isinstance(value, int):
            return value if abs(value) < 2**63 else None
        return value if isinstance(value, float) else None


def _is_module(value: Any) -> bool:
    return isinstance(value, Record) and isinstance(value.state, dict) and "_modules" in value.state
