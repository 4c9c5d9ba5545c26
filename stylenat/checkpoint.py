"""Checkpoint folders: written whole or not at all, checked when read, free of pickled code.

``step-000001000/`` holds ``generator``, ``discriminator`` and ``ema`` as safetensors, ``state.pt`` (plain values and
tensors, read with ``weights_only=True``) and ``manifest.json`` with the format's version and checksums.

Format 2 adds to the state what is still due at its step, the best steps and the guards' counts; format 1 is read.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from registry import UserError
from stylenat import ranks
from stylenat.files import disk_full, read_bounded, save_tensors
from stylenat.untrusted import read_tensors, read_values

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
MANIFEST_BYTES = 2**20
PARTIAL, REPLACED = ".partial-", ".replaced-"

Needed = Callable[[Collection[str]], Collection[str]]
"""From the names of a checkpoint's files to those of the files that will be read."""


class Damaged(Exception):
    """A checkpoint that is incomplete or whose checksums do not match."""


def checkpoint_path(directory: Path, step: int) -> Path:
    return directory / f"step-{step:09d}"


def step_of(path: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(path.name.removeprefix("step-"))


def save(directory: Path, step: int, networks: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]) -> Path:
    """Writes ``directory/step-...`` under a temporary name, flushes, renames.

    Args:
        networks: state dicts by name; state: plain values and tensors.

    Raises:
        UserError: the disk is full or not writable; earlier checkpoints are untouched.
        FileNotFoundError: the run folder around ``directory`` was removed or renamed. It is not made again: without its
            config it would be no run folder.
    """
    final = checkpoint_path(directory, step)
    temporary, replaced = directory / f"{PARTIAL}{final.name}", directory / f"{REPLACED}{final.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        directory.mkdir(exist_ok=True)
        temporary.mkdir()
        for name, weights in networks.items():
            tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
            save_tensors(tensors, temporary / f"{name}.safetensors")
        torch.save(state, temporary / "state.pt")
        files = sorted(path for path in temporary.iterdir())
        manifest = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "images": state.get("images"),
            "classes": state.get("classes"),
            "pixel_space": state.get("pixel_space"),
            "dataset": state.get("dataset"),
            "sha256": {path.name: _checksum(path) for path in files},
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in [*temporary.iterdir(), temporary]:
            _flush(path)
        # A folder that is not empty cannot be replaced by renaming: one of the two is there at any moment.
        if final.exists():
            final.rename(replaced)
        temporary.rename(final)
        _flush(directory)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        if not directory.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(directory)) from error
        full = disk_full(error, directory)
        shutil.rmtree(temporary, ignore_errors=True)
        if full:
            raise UserError(
                f"no disk space left for {final}; earlier checkpoints are kept; free some space and continue"
            ) from error
        if isinstance(error, OSError):
            raise UserError(f"cannot write {final}: {error.strerror}") from error
        raise
    return final


def tidy(directory: Path) -> None:
    """Removes what a killed process left while writing. Do not call it while another process writes."""
    for path in directory.glob(f"{REPLACED}*"):
        final = directory / path.name.removeprefix(REPLACED)
        if final.exists():
            shutil.rmtree(path)
        else:
            path.rename(final)
    for path in directory.glob(f"{PARTIAL}*"):
        shutil.rmtree(path)


def prune(directory: Path, written: int, newest: int, every: int | None, best: int | None) -> None:
    """Removes checkpoints that no rule keeps.

    Args:
        written: step of the one just written. What lies beyond it is of a future that was given up (it was damaged, or
            another checkpoint was chosen): it stays until it is written again, and takes no one's place.
        newest: how many of the newest stay; every: steps that are its multiples stay; best: a step that stays.
    """
    for path in [path for path in found(directory) if step_of(path) <= written][:-newest]:
        step = step_of(path)
        if step != best and (every is None or step % every):
            shutil.rmtree(path)


def found(directory: Path) -> list[Path]:
    """Checkpoint folders, oldest first, unchecked."""
    named = (path for path in directory.glob("step-*") if re.fullmatch(r"step-\d{9,12}", path.name))
    return sorted((path for path in named if path.is_dir() and not path.is_symlink()), key=step_of)


def verify(path: Path, needed: Needed | None = None) -> dict[str, Any]:
    """The manifest of a complete, undamaged checkpoint.

    Args:
        needed: files whose checksums are compared, None for all: the state of an optimizer takes seconds.

    Raises:
        Damaged: a file is missing, differs, or has no checksum. UserError: a later version of this project wrote it.
    """
    try:
        manifest = json.loads(read_bounded(path / MANIFEST, MANIFEST_BYTES))
        version, sums = manifest["format_version"], manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{path} has no readable {MANIFEST}") from error
    if type(version) is not int or version < 1 or not isinstance(sums, dict) or not sums:
        raise Damaged(f"{path / MANIFEST} is not a checkpoint's manifest")
    if version > FORMAT_VERSION:
        raise UserError(f"{path} has checkpoint format {version}; this version reads up to {FORMAT_VERSION}: upgrade")
    wanted = sums if needed is None else needed(sums)
    for name, expected in sums.items():
        # Names, not paths: a manifest has no say over what lies outside of its folder.
        if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name, re.ASCII):
            raise Damaged(f"{path / MANIFEST} names {name!r}, which is not a file of a checkpoint")
        file = path / name
        if file.is_symlink() or not file.is_file() or (name in wanted and _checksum(file) != expected):
            raise Damaged(f"{file} is missing or damaged")
    used = (name for name in os.listdir(path) if name.endswith(".safetensors") or name in ("state.pt", "config.gin"))
    if unlisted := [name for name in used if name not in sums]:
        raise Damaged(f"{path / MANIFEST} has no checksum of {unlisted[0]}")
    return manifest


def newest_good(directory: Path, warn: Callable[[str], object], needed: Needed | None = None) -> Path | None:
    """The newest undamaged checkpoint; ``warn`` is called with a line for each damaged one passed over. ``needed``: as
    of ``verify``."""
    for path in reversed(found(directory)):
        try:
            verify(path, needed)
            return path
        except Damaged as error:
            warn(f"{error}; passing it over")
    return None


def newest_for_all(directory: Path, warn: Any, needed: Needed | None = None) -> Path | None:
    """``newest_good`` as process 0 finds it, the same in all: the others may see the disk later."""
    newest = newest_good(directory, warn, needed) if ranks.rank() == 0 else None
    return Path(chosen) if (chosen := ranks.as_first("" if newest is None else str(newest))) else None


def weights(path: Path, name: str) -> dict[str, Tensor]:
    """One network's tensors from a checkpoint folder. Raises UserError when they are not there."""
    return read_tensors(path / f"{name}.safetensors")


def state(path: Path) -> dict[str, Any]:
    """Everything of a checkpoint but the weights. Raises UserError when it is not there or would run code."""
    values = read_values(path / "state.pt")
    if not isinstance(values, dict):
        raise UserError(f"{path / 'state.pt'} holds no state but a {type(values).__name__}")
    return values


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
