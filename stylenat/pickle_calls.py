"""What persistent pickles call, replaced by functions of ours that arrange data: storages, tensors, containers.

PyTorch's weights-only reader sees the bytes of a storage, and nothing else of such a file.
"""

import io
import math
import struct
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylenat.pickle_data import Call, Machine, Name, Record, Refused

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of what ``torch.save`` wrote before 1.6, and writes of a storage within a pickle."""
ITEM_BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
"""Of the storages that are read: ``torch.FloatStorage`` and so on."""


def _persistent_object(arguments: tuple[Any, ...]) -> Record:
    """``torch_utils.persistence._reconstruct_persistent_obj``: its meta holds the class's name and the state."""
    (meta,) = arguments
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str) or meta.get("type") != "class":
        raise Refused("a persistent object does not say its class")
    return Record(meta["class_name"], (), meta.get("state"))


@dataclass(frozen=True)
class _StorageId:
    """What PyTorch's older format writes in the place of a storage."""

    key: str
    count: int
    item_bytes: int


def _storage_id(identity: tuple[Any, ...]) -> _StorageId:
    kind, storage, key, location, count, view = identity
    name = storage.text if isinstance(storage, Name) else ""
    item = ITEM_BYTES.get(name.removeprefix("torch.").removesuffix("Storage"))
    if kind != "storage" or item is None or view is not None or not isinstance(location, str):
        raise Refused("it holds a storage of an unknown kind")
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise Refused("it holds a storage without a key or a size")
    return _StorageId(key, count, item)


class Storages:
    """``torch.storage._load_from_bytes``: the numbers of a storage, as a flat tensor.

    Args:
        budget: bytes that all storages may have together: those of the file.
    """

    def __init__(self, budget: int) -> None:
        self._bytes = budget

    def __call__(self, arguments: tuple[Any, ...]) -> Tensor:
        (data,) = arguments
        self._bytes -= len(data) if isinstance(data, bytes) else 0
        if self._bytes < 0:
            raise Refused("it reads a storage many times")
        return _storage(data)


def _storage(data: Any) -> Tensor:
    """A storage that ``torch.save`` wrote. PyTorch's weights-only reader reads it, after it is known that it is one
    storage of the declared size."""
    if not isinstance(data, bytes) or not data.startswith(LEGACY):
        raise Refused("it holds a storage that torch.save did not write")
    stream, outer, inner = io.BytesIO(data), Machine({}), Machine({}, persistent=_storage_id)
    magic, protocol, system = (outer.read(stream) for _ in range(3))
    identity, keys = inner.read(stream), outer.read(stream)
    if (
        magic != LEGACY_MAGIC
        or protocol != 1001
        or not isinstance(system, dict)
        or not isinstance(identity, _StorageId)
    ):
        raise Refused("it holds a storage that torch.save did not write")
    size = 8 + identity.count * identity.item_bytes
    declared = data[stream.tell() :][:8]
    if keys != [identity.key] or len(data) - stream.tell() != size or declared != struct.pack("<q", identity.count):
        raise Refused("it declares a storage of another size than it holds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # That the class of these storages is an older one.
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return torch.empty(0, dtype=loaded.dtype).set_(loaded.untyped())


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    """``torch._utils._rebuild_tensor_v2``."""
    storage, offset, shape, stride, *_ = arguments
    numbers = [offset, *shape, *stride] if isinstance(shape, tuple) and isinstance(stride, tuple) else [None]
    if not isinstance(storage, Tensor) or any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
        raise Refused("it holds a tensor without a storage or a shape")
    if len(shape) != len(stride) or math.prod(shape) >= 2**48:
        raise Refused(f"it declares a tensor of shape {list(shape)[:8]}")
    reach = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if 0 not in shape else 0
    if reach >= max(storage.numel(), 1):
        raise Refused(f"it declares a tensor of shape {list(shape)[:8]}, more than its storage holds")
    return storage.as_strided(shape, stride, offset)


def _first(arguments: tuple[Any, ...]) -> Any:
    return arguments[0]


def _dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if any(not isinstance(argument, Name) for argument in arguments):  # The factory of a defaultdict is a name.
        raise Refused("it makes a dictionary of arguments")
    return {}


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    """``_codecs.encode``: bytes in protocol 2."""
    text, encoding = arguments
    if encoding != "latin1" or not isinstance(text, str):
        raise Refused("it encodes text")
    return text.encode("latin1")


def _set(arguments: tuple[Any, ...]) -> list[Any]:
    """``set``: in the order of the file."""
    (values,) = arguments
    return values if isinstance(values, list) else []


def _of_class(arguments: tuple[Any, ...]) -> Record:
    """``copyreg._reconstructor``: an object of a class."""
    kind = arguments[0]
    return Record(kind.text if isinstance(kind, Name) else "", arguments[1:])


def _opaque(name: str) -> Call:
    return lambda arguments: Record(name, arguments)


CONTAINERS = frozenset({"dnnlib.util.EasyDict", "collections.OrderedDict", "collections.defaultdict"})
OPAQUE = (
    "torch.device", "torch.Size", "numpy.dtype", "builtins.slice",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
)  # fmt: skip
"""Calls whose result is not used: they stay records."""
CALLS: dict[str, Call] = {name: _opaque(name) for name in OPAQUE} | {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": _dictionary,
    "_codecs.encode": _encoded,
    **{f"{module}.set": _set for module in ("builtins", "__builtin__")},
    **{f"{module}._reconstructor": _of_class for module in ("copyreg", "copy_reg")},
}
