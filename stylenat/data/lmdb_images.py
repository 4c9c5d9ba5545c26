"""Images in an LMDB: ``{resolution}-{index:05d}`` to an encoded image, ``length`` to the count in ASCII.

That is the layout of stylegan2-pytorch, StyleSwin and StyleNAT. Ours adds ``manifest``: JSON that says how the images
were made.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from registry import UserError
from stylenat.files import disk_full

FORMAT_VERSION = 1
COMMIT_EVERY = 256


class LmdbImages:
    """Reads such an LMDB. Opens on first use, in each process for itself, and never locks.

    Args:
        path: the LMDB; resolution: of the images wanted.
    """

    def __init__(self, path: str, resolution: int) -> None:
        self.path, self.resolution = Path(path), resolution
        self._environment: lmdb.Environment | None = None
        self._process = 0
        self._length = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_environment": None}

    def open(self) -> None:
        """Checks the layout. Raises UserError when it is missing, damaged or of another resolution."""
        prepare = f"python tools/prepare.py SOURCE {self.path} --resolution {self.resolution}"
        if not self.path.exists():
            raise UserError(f"there is no data set at {self.path}; make it with `{prepare}`")
        try:
            self._environment = lmdb.open(
                str(self.path), subdir=self.path.is_dir(), readonly=True, lock=False, readahead=False, max_readers=256
            )
            _check_size(self._environment, self.path)
            with self._environment.begin() as transaction:
                length = transaction.get(b"length")
                manifest = transaction.get(b"manifest")
                first = transaction.get(self._key(0))
                last = transaction.get(self._key(int(length) - 1)) if length else None
                sample = next((bytes(key) for key, _ in transaction.cursor()), b"")
        except (lmdb.Error, ValueError) as error:
            raise UserError(f"{self.path} is not a readable LMDB ({error}); make it again with `{prepare}`") from error
        if manifest is not None and json.loads(manifest)["format_version"] > FORMAT_VERSION:
            raise UserError(f"{self.path} was made by a later version of this project; upgrade to read it")
        if length is None:
            raise UserError(f"{self.path} has no `length`: it is not a data set of images; make one with `{prepare}`")
        if first is None:
            holds = sample.split(b"-")[0].decode("ascii", "replace")
            raise UserError(
                f"{self.path} holds images at resolution {holds}, not {self.resolution}; bind that one, or `{prepare}`"
            )
        if last is None:
            raise UserError(
                f"{self.path} is truncated: it lacks image {int(length) - 1}; make it again with `{prepare}`"
            )
        self._length = int(length)
        self._process = os.getpid()

    def __len__(self) -> int:
        self._ready()
        return self._length

    def __getitem__(self, index: int) -> Tensor:
        """uint8 [3, resolution, resolution]. Raises UserError for a damaged record."""
        with self._ready().begin() as transaction:
            data = transaction.get(self._key(index))
        try:
            pixels = np.array(Image.open(io.BytesIO(data or b"")).convert("RGB"))
        except OSError as error:
            raise UserError(f"{self.path}: image {index} is damaged; make the data set again") from error
        if pixels.shape != (self.resolution, self.resolution, 3):
            raise UserError(f"{self.path}: image {index} is {pixels.shape[1]}x{pixels.shape[0]}, not {self.resolution}")
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def _ready(self) -> lmdb.Environment:
        if self._environment is None or self._process != os.getpid():
            self.open()
        assert self._environment is not None
        return self._environment

    def _key(self, index: int) -> bytes:
        return f"{self.resolution}-{index:05d}".encode()


def _check_size(environment: lmdb.Environment, path: Path) -> None:
    """Raises lmdb.CorruptedError for a file that ends early: reading beyond its end would kill the process."""
    file = path / "data.mdb" if path.is_dir() else path
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if file.stat().st_size < needed:
        raise lmdb.CorruptedError(f"truncated to {file.stat().st_size} of {needed} bytes")


def manifest_of(path: Path) -> dict[str, Any] | None:
    """The manifest of one of this project's LMDBs; None for one of another's. Raises UserError if unreadable."""
    try:
        with lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False) as environment:
            _check_size(environment, path)
            with environment.begin() as transaction:
                manifest = transaction.get(b"manifest")
    except lmdb.Error as error:
        raise UserError(f"{path} is not a readable LMDB ({error}); remove it or choose another name") from error
    return None if manifest is None else json.loads(manifest)


def write(path: Path, resolution: int, images: Iterable[bytes], manifest: dict[str, Any]) -> dict[str, Any]:
    """Writes encoded images to a new LMDB: under a temporary name, flushed, renamed when complete.

    Args:
        manifest: how they were made; format version, count and content hash are added. It is read only when the last
            image has been taken, so that a generator of images may complete it.

    Returns:
        The manifest as written.

    Raises:
        UserError: no image at all, the disk is full, or the place cannot be written. Nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        count, content = 0, hashlib.sha256()
        with lmdb.open(str(temporary), map_size=2**40, writemap=False) as environment:
            transaction = environment.begin(write=True)
            for data in images:
                transaction.put(f"{resolution}-{count:05d}".encode(), data)
                content.update(hashlib.sha256(data).digest())
                count += 1
                if count % COMMIT_EVERY == 0:
                    transaction.commit()
                    transaction = environment.begin(write=True)
            if count == 0:
                raise UserError("no usable image was found; nothing was written")
            manifest = manifest | {"format_version": FORMAT_VERSION, "resolution": resolution, "count": count}
            manifest["content_sha256"] = content.hexdigest()
            transaction.put(b"length", str(count).encode())
            transaction.put(b"manifest", json.dumps(manifest).encode())
            transaction.commit()
            environment.sync(True)
        (temporary / "lock.mdb").unlink(missing_ok=True)
        temporary.rename(path)
    except BaseException as error:
        full = isinstance(error, (OSError, lmdb.Error)) and disk_full(error, path.parent)
        shutil.rmtree(temporary, ignore_errors=True)
        if full:
            raise UserError(f"no disk space left for {path}; nothing was written") from error
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        raise
    return manifest
