"""The layout of images in an LMDB, read and written by this project. A promise: it changes only with its version.

``{resolution}-{index:05d}`` holds an encoded image, ``length`` the count in ASCII: so far the layout of
stylegan2-pytorch, StyleSwin and StyleNAT. Ours adds

* ``manifest``: JSON that says how the images were made (format 1 and 2);
* ``sha256-{resolution}-{block:06d}``: the digests, 32 bytes each, of BLOCK records in a row (format 2);
* ``labels-{block:06d}``: their class numbers, int32 little-endian, where there are classes (format 2).

Format 2 may hold raw pixels, several resolutions and labels; format 1 holds one resolution of PNG or JPEG.
"""

import json
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import lmdb

from registry import UserError

FORMAT_VERSION = 2
BLOCK = 4096
MAX_RESOLUTIONS = 64
LEAST_RECORD_BYTES = 16
"""LMDB's node header and the shortest key."""


def key(resolution: int, index: int) -> bytes:
    return f"{resolution}-{index:05d}".encode()


def digests_key(resolution: int, block: int) -> bytes:
    return f"sha256-{resolution}-{block:06d}".encode()


def labels_key(block: int) -> bytes:
    return f"labels-{block:06d}".encode()


def labels_of(stored: bytes) -> list[int]:
    """The class numbers of a block; none where its bytes are no such list."""
    return [number for (number,) in struct.iter_unpack("<i", stored)] if len(stored) % 4 == 0 else []


def looks_like_lmdb(path: Path) -> bool:
    """A folder with ``data.mdb``, or a file that begins as LMDB's do."""
    if path.is_dir():
        return (path / "data.mdb").is_file()
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(20)[16:20] == b"\xde\xc0\xef\xbe"


_environments: WeakValueDictionary[bytes, lmdb.Environment] = WeakValueDictionary()
_identities: dict[bytes, tuple[int, ...]] = {}


def open_readonly(path: Path) -> lmdb.Environment:
    """Without locks, so that any number of processes and a read-only disk will do.

    LMDB allows a file to be open once in a process, so all its readers here share one environment, which nobody
    closes: it goes with the last of them. A forked child must not use its parent's and opens its own.

    Raises lmdb.Error when it is missing, damaged or shorter than it says: reading beyond a file's end would kill
    the process.
    """
    # As bytes: a name need not be text.
    place, file = os.fsencode(path.resolve()), path / "data.mdb" if path.is_dir() else path
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):  # To open a named pipe would wait for ever.
        raise lmdb.InvalidError("not a regular file")
    identity = (os.getpid(), status.st_ino, status.st_size, status.st_mtime_ns)
    environment = _environments.get(place)
    if environment is not None and _identities[place] != identity:  # Forked, or the file is another one now.
        environment.close()
        environment = None
    if environment is None:
        environment = lmdb.open(
            place, subdir=path.is_dir(), readonly=True, lock=False, readahead=False, max_readers=256
        )
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if status.st_size < needed:
            environment.close()
            raise lmdb.CorruptedError(f"truncated to {status.st_size} of {needed} bytes")
        _environments[place], _identities[place] = environment, identity
    return environment


@dataclass(frozen=True)
class Layout:
    """What an LMDB holds. ``manifest`` is None for one that this project did not make."""

    count: int
    resolutions: tuple[int, ...]
    manifest: dict[str, Any] | None

    @property
    def raw(self) -> bool:
        return self.manifest is not None and self.manifest.get("storage") == "raw"

    @classmethod
    def read(cls, path: Path, environment: lmdb.Environment, transaction: lmdb.Transaction) -> "Layout":
        """Raises UserError for another layout or a later version, lmdb.Error for damage."""
        length, text = transaction.get(b"length"), transaction.get(b"manifest")
        try:
            manifest = None if text is None else json.loads(text)
            version = 0 if manifest is None else manifest["format_version"]
            count = 0 if length is None else int(length)
            kinds = {"format_version": int, "skipped": dict, "classes": list}
            if any(not isinstance((manifest or {}).get(name, kind()), kind) for name, kind in kinds.items()):
                raise TypeError("an entry of another type")
            if not all(isinstance(name, str) for name in (manifest or {}).get("classes", [])):
                raise TypeError("a class that is no text")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise lmdb.CorruptedError("its manifest or length is damaged") from error
        if version > FORMAT_VERSION:
            raise UserError(f"{path} was made by a later version of this project; upgrade to read it")
        resolutions = _resolutions(transaction)
        if length is None or not resolutions:
            raise UserError(
                f"{path} has no `length` or no images: it is not a data set that can be read; of image files under "
                "other keys (LSUN's), make one with tools/prepare.py"
            )
        if len(resolutions) > MAX_RESOLUTIONS:
            raise UserError(f"{path} has images of more than {MAX_RESOLUTIONS} resolutions: it is not a data set")
        # A false length would let readers allocate for images that are not there.
        pages = environment.info()["last_pgno"] + 1
        stored = min(environment.stat()["entries"], pages * environment.stat()["psize"] // LEAST_RECORD_BYTES)
        if not 0 <= count <= stored:
            raise lmdb.CorruptedError(f"`length` is {count}, but only {stored} records are stored")
        return cls(count, resolutions, manifest)


def _resolutions(transaction: lmdb.Transaction) -> tuple[int, ...]:
    found, cursor = [], transaction.cursor()
    at = cursor.first()
    while at:
        prefix, _, index = bytes(cursor.key()).partition(b"-")
        if prefix.isdigit() and index.isdigit():
            found.append(int(prefix))
        # "." follows "-": past every image of this resolution.
        at = cursor.set_range(prefix + b".") if index else cursor.next()
    return tuple(sorted(found))


def stored(transaction: lmdb.Transaction, path: Path, name: bytes) -> Any:
    """What is stored under a name, None for nothing. Raises UserError where the LMDB's own pages are damaged."""
    try:
        return transaction.get(name)
    except lmdb.Error as error:
        raise UserError(f"{path} is damaged ({error}); make it again or give another") from error


def open_layout(path: Path) -> tuple[lmdb.Environment, Layout]:
    """An existing LMDB and what it holds. Raises UserError when it cannot be read."""
    if not path.exists():
        raise UserError(f"there is no data set at {path}; make it with `python tools/prepare.py SOURCE {path} ...`")
    try:
        environment = open_readonly(path)
        with environment.begin() as transaction:
            return environment, Layout.read(path, environment, transaction)
    except (lmdb.Error, OSError) as error:
        raise UserError(f"{path} is not a readable LMDB ({error}); make it again or give another") from error
