"""Reads checkpoint files as untrusted input: no code is run, and nothing is allocated that the file's own size does
not cover."""

import math
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from registry import UserError

HEADER_BYTES = 2**24
"""The longest safetensors header that is parsed: some fifty times that of the published 1024x1024 networks."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Declared shapes and offsets are checked against the file's size, by safetensors itself, before any is read.

    Raises:
        UserError: it is missing, a link, or not such a file.
    """
    try:
        _must_be_plain(path)
        return tensors_of(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"cannot read weights from {path}: {_reason(error)}") from error


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a regular safetensors file. Raises OSError, ValueError or SafetensorError for any other."""
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > HEADER_BYTES:
        raise ValueError(f"its header declares {header} bytes")
    return load_file(path)


def read_values(path: Path) -> Any:
    """Plain values and tensors that ``torch.save`` wrote; the tensors are copies.

    Raises:
        UserError: it is missing, a link, would run code, or declares more than it holds.
    """
    try:
        _must_be_plain(path)
        return unpickled(path)
    except Exception as error:  # PyTorch's reader raises almost anything on damaged bytes.
        raise UserError(f"cannot read {path}: {refusal(error)}") from error


def refusal(error: Exception) -> str:
    """Why ``unpickled`` failed, in one line. PyTorch's own text would advise to read the file without restrictions."""
    if not isinstance(error, pickle.UnpicklingError):
        return _reason(error)
    named = re.search(r"(?:GLOBAL|class|function|global) ([\w.]+)", str(error))
    if named is None:
        return "it holds something that is neither a tensor nor a plain value"
    return f"it holds {named[1]}, which could run code"


def unpickled(path: Path, allowed: Sequence[Any] = (), strict: bool = True) -> Any:
    """What PyTorch's restricted unpickler reads from a regular file; the tensors are copies.

    Args:
        allowed: more names that it may meet, as ``torch.serialization.safe_globals`` takes them.
        strict: whether other things than plain values and tensors are an error; otherwise None takes their place,
            and files of PyTorch before 1.6, which are not zips, are read too.

    Raises:
        pickle.UnpicklingError: it would run code. ValueError: it declares more than it holds. Damaged bytes may raise
            any other Exception.
    """
    size, zipped = path.stat().st_size, zipfile.is_zipfile(path)
    if zipped or strict:
        check_zip(path, size)
    with torch.serialization.safe_globals(list(allowed)):
        # Mapped, not read: a storage that declares more bytes than there are fails instead of being allocated.
        loaded = torch.load(path, weights_only=True, mmap=zipped, map_location="cpu")
    return _copied(loaded, _Budget(size), strict)


def check_zip(path: Path, size: int) -> None:
    """Raises ValueError where the entries would unpack to more than the file's own size."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
        raise ValueError("it holds compressed entries, which torch.save and numpy.savez do not write")
    if sum(e.file_size for e in entries) > size:
        raise ValueError("its entries overlap")


class _Budget:
    """What copies may take together.

    Bytes of tensors: twice the file's, since some may share a storage. Values: one for each byte of the file, which a
    list that is contained many times in another exceeds.
    """

    def __init__(self, file_size: int) -> None:
        self.bytes, self.values = 2 * file_size, file_size

    def spend(self, value: Any) -> None:
        self.values -= 1
        if self.values < 0:
            raise ValueError("its lists and dictionaries unfold to more values than the file has bytes")
        if isinstance(value, Tensor):
            if odd := _odd(value):
                raise ValueError(f"it holds a tensor that is {odd}; save it again with dense tensors of plain numbers")
            self.bytes -= math.prod(value.shape) * value.element_size()
            if self.bytes < 0:
                raise ValueError(f"it declares a tensor of shape {list(value.shape)}, more than the file holds")


def _odd(tensor: Tensor) -> str | None:
    """What a tensor is that is no array of numbers in memory; None for one that is."""
    if tensor.is_quantized:
        return f"quantised ({str(tensor.dtype).removeprefix('torch.')})"
    if tensor.device.type != "cpu":
        return f"on the {tensor.device} device, without numbers"
    return None if tensor.layout == torch.strided else str(tensor.layout).removeprefix("torch.").replace("_", " ")


def _copied(value: Any, budget: _Budget, strict: bool) -> Any:
    budget.spend(value)
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item, budget, strict) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item, budget, strict) for item in value)
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if strict:
        raise ValueError(f"it holds a {type(value).__name__}, neither a tensor nor a plain value")
    return None


def _must_be_plain(path: Path) -> None:
    if path.is_symlink():
        raise ValueError("it is a symbolic link")
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
