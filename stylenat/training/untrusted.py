"""Reads checkpoint files as if a stranger had written them: no code is run, and nothing is allocated that the file's
own size does not cover."""

import math
import zipfile
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
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > HEADER_BYTES:
            raise ValueError(f"its header declares {header} bytes")
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"cannot read weights from {path}: {_reason(error)}") from error


def read_values(path: Path) -> Any:
    """Plain values and tensors that ``torch.save`` wrote; the tensors are copies.

    Raises:
        UserError: it is missing, a link, would run code, or declares more than it holds.
    """
    try:
        _must_be_plain(path)
        with zipfile.ZipFile(path) as archive:
            size = path.stat().st_size
            entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
            raise ValueError("it holds compressed entries, which torch.save does not write")
        if sum(e.file_size for e in entries) > size:
            raise ValueError("its entries overlap")
        # Mapped, not read: a storage that declares more bytes than there are fails instead of being allocated.
        mapped = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
        return _copied(mapped, _Budget(size))
    except Exception as error:  # Whatever PyTorch's reader meets in bytes that were made to upset it.
        raise UserError(f"cannot read {path}: {_reason(error)}") from error


class _Budget:
    """Bytes that copies may take together: those of the file, with room for tensors that share some."""

    def __init__(self, file_size: int) -> None:
        self.left = 2 * file_size

    def spend(self, tensor: Tensor) -> None:
        self.left -= math.prod(tensor.shape) * tensor.element_size()
        if self.left < 0:
            raise ValueError(f"it declares a tensor of shape {list(tensor.shape)}, more than the file holds")


def _copied(value: Any, budget: _Budget) -> Any:
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu":
            raise ValueError(f"it holds a tensor that is {value.layout} on {value.device}")
        budget.spend(value)
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item, budget) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item, budget) for item in value)
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise ValueError(f"it holds a {type(value).__name__}, neither a tensor nor a plain value")


def _must_be_plain(path: Path) -> None:
    if path.is_symlink():
        raise ValueError("it is a symbolic link")
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
