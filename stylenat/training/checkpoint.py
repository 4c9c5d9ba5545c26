"""Checkpoint folders: written whole or not at all, checked when read, free of pickled code.

``step-000001000/`` holds ``generator``, ``discriminator`` and ``ema`` as safetensors, ``state.pt`` (plain values and
tensors, read with ``weights_only=True``) and ``manifest.json`` with the format's version and checksums.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from registry import UserError
from stylenat.files import disk_full

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


class Damaged(Exception):
    """A checkpoint that is incomplete or whose checksums do not match."""


def checkpoint_path(directory: Path, step: int) -> Path:
    return directory / f"step-{step:09d}"


def save(directory: Path, step: int, networks: Mapping[str, nn.Module], state: dict[str, Any], keep: int) -> Path:
    """Writes ``directory/step-...`` under a temporary name, flushes, renames; then drops all but the newest ``keep``.

    Raises:
        UserError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    final = checkpoint_path(directory, step)
    temporary = directory / f".partial-{final.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, network in networks.items():
            tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
            save_file(tensors, temporary / f"{name}.safetensors")
        torch.save(state, temporary / "state.pt")
        files = sorted(path for path in temporary.iterdir())
        manifest = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "sha256": {path.name: _checksum(path) for path in files},
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in temporary.iterdir():
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _flush(directory)
    except (OSError, SafetensorError, RuntimeError) as error:
        full = disk_full(error, directory)
        shutil.rmtree(temporary, ignore_errors=True)
        if full:
            raise UserError(
                f"no disk space left for {final}; earlier checkpoints are kept, free some and go on"
            ) from error
        if isinstance(error, PermissionError):
            raise UserError(f"cannot write {final}: {error.strerror}") from error
        raise
    for old in found(directory)[:-keep]:
        shutil.rmtree(old)
    return final


def found(directory: Path) -> list[Path]:
    """Checkpoint folders, oldest first, unchecked."""
    return sorted(path for path in directory.glob("step-*") if path.is_dir())


def verify(path: Path) -> dict[str, Any]:
    """The manifest of a complete, undamaged checkpoint.

    Raises:
        Damaged: a file is missing or differs. UserError: a later version of this project wrote it.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version, sums = manifest["format_version"], manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} has no readable {MANIFEST}") from error
    if type(version) is not int or not isinstance(sums, dict) or not sums:
        raise Damaged(f"{path / MANIFEST} is not a checkpoint's manifest")
    if version > FORMAT_VERSION:
        raise UserError(f"{path} has checkpoint format {version}; this version reads up to {FORMAT_VERSION}: upgrade")
    for name, expected in sums.items():
        file = path / name
        if Path(name).name != name or not file.is_file() or _checksum(file) != expected:
            raise Damaged(f"{file} is missing or damaged")
    return manifest


def newest_good(directory: Path, warn: Any) -> Path | None:
    """The newest undamaged checkpoint; ``warn`` is called with a line for each damaged one passed over."""
    for path in reversed(found(directory)):
        try:
            verify(path)
            return path
        except Damaged as error:
            warn(f"{error}; passing it over")
    return None


def weights(path: Path, name: str) -> dict[str, Tensor]:
    """One network's tensors from a checkpoint folder. Raises UserError when they are not there."""
    file = path / f"{name}.safetensors"
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read weights from {file}: {error}") from error


def state(path: Path) -> dict[str, Any]:
    """Everything of a checkpoint but the weights. Raises UserError when it is not there or would run code."""
    try:
        return torch.load(path / "state.pt", weights_only=True, map_location="cpu")
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise UserError(f"cannot read {path / 'state.pt'}: {str(error).splitlines()[0]}") from error


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
