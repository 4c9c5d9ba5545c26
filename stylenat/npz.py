"""Weights as NumPy's .npz files, for systems whose own files only their framework can read. Files are untrusted."""

import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format
from torch import Tensor

from stylenat.untrusted import check_zip

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
"""What TensorFlow's checkpoints add to the names of variables."""


def variables_of(path: Path, networks: Collection[str]) -> dict[str, Any]:
    """The tensors of a regular .npz file by name, without ``SUFFIX``; by network, where all names begin with one of
    ``networks`` and a slash.

    Raises ValueError where it holds anything but numbers, or declares more than it holds. Damaged bytes may raise any
    other Exception.
    """
    check_zip(path, path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        entries = {}
        for entry in archive.infolist():
            with archive.open(entry) as file:
                entries[entry.filename.removesuffix(".npy")] = array_of(file, entry.file_size, entry.filename)
    named = {name.removesuffix(SUFFIX): tensor for name, tensor in entries.items()}
    if not named or not all(name.partition("/")[0] in networks for name in named):
        return named
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in named.items():
        network, _, rest = name.partition("/")
        parts.setdefault(network, {})[rest] = tensor
    return parts


def array_of(file: IO[bytes], size: int, name: str) -> Tensor:
    """The array of an opened .npy file of so many bytes, as a tensor.

    Raises ValueError where it is none, holds anything but real numbers, or declares more than it holds. Damaged bytes
    may raise any other Exception.
    """
    version = format.read_magic(file)
    read = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"{name} is a .npy file of version {version}")
    shape, in_columns, dtype = read(file)
    if dtype.kind not in "fiub":
        raise ValueError(f"{name} holds {dtype}, not numbers; leave it out")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} declares the shape {list(shape)}, which the file does not hold")
    flat = np.frombuffer(file.read(), dtype, math.prod(shape))
    values = flat.reshape(shape, order="F" if in_columns else "C")
    return torch.from_numpy(np.array(values, dtype.newbyteorder("="), order="C"))


def write_variables(file: IO[bytes], states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Writes states by network as ``variables_of`` reads them."""
    named = {f"{network}/{name}": tensor.numpy() for network, state in states.items() for name, tensor in state.items()}
    np.savez(file, **named)
