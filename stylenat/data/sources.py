"""Where images come from: a folder tree, a zip, a tar, an LMDB, a text file of paths.

Every source lists its images one at a time in an order that never changes, and says how a worker process gets at
one image's bytes by itself, so that neither the list nor the images need to fit in memory.
"""

import errno
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import lmdb

from registry import UserError
from stylenat.data import lmdb_layout
from stylenat.data.archives import TarSource, ZipSource, is_tar, open_in_zip
from stylenat.data.contents import HEAD, content_of
from stylenat.data.folders import FolderSource
from stylenat.data.formats import Unusable
from stylenat.data.ignored import Ignored
from stylenat.data.items import MAX_FILE_BYTES, Item, Source
from stylenat.data.lmdb_unnumbered import UnnumberedLmdbSource, holds_image_files

ARCHIVES = (".zip", ".tar", ".tgz")
COMPRESSED = (".gz", ".bz2", ".xz")
LISTS = (".txt", ".lst", ".list")
MAX_LINE_BYTES = 2**16
"""Of a list of paths; no system has longer ones."""
ITS_OWN = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors that tell of one file; others, such as a share that is gone, tell of the source."""


def open_source(path: Path, resolution: int, follow_links: bool = False) -> Source:
    """The source at a path.

    Args:
        resolution: wanted; of an LMDB that holds several, this one is read, or else the largest.
        follow_links: of a folder, enter linked folders, too.

    Raises:
        UserError: nothing there, or not a source.
    """
    expected = "expected a folder, zip, tar, LMDB or text file of paths (.txt)"
    try:
        if not path.exists():
            raise UserError(f"there is nothing at {path}; {expected}")
        if not (path.is_dir() or path.is_file()):  # To open a named pipe would wait for ever.
            raise UserError(f"{path} is a named pipe, socket or device; {expected}")
        if lmdb_layout.looks_like_lmdb(path):
            return UnnumberedLmdbSource(path) if holds_image_files(path) else LmdbSource(path, resolution)
        if path.is_dir():
            return FolderSource(path, follow_links)
        if zipfile.is_zipfile(path):
            return ZipSource(path)
        if is_tar(path):
            return TarSource(path)
        if path.suffix.lower() in LISTS:
            return ListSource(path)
        with open(path, "rb") as file:
            content = content_of(file.read(HEAD))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    named = path.suffix.lower() in ARCHIVES or Path(path.stem).suffix.lower() == ".tar"
    if (content is None and path.suffix.lower() in COMPRESSED) or (content and not content.advice) or named:
        raise UserError(f"{path} is empty, damaged or incomplete; download or create it again")
    if content is None:
        raise UserError(f"{path} is an unsupported source; {expected}")
    raise UserError(f"{path} is an unsupported source: it is {content.name}; {content.advice}")


class ListSource:
    """Paths, one a line, relative to the text file's folder. Blank lines do not count."""

    kind = "list"

    def __init__(self, path: Path) -> None:
        self._path, self.ignored, self.size = path, Ignored(), path.stat().st_size

    def __iter__(self) -> Iterator[Item]:
        position = 0
        with open(self._path, "rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                if b"\0" in line or len(line) == MAX_LINE_BYTES:
                    raise UserError(
                        f"{self._path} is not a text file of paths: it must be UTF-8, with one path in each line"
                    )
                name = os.fsdecode((line if position else line.removeprefix(b"\xef\xbb\xbf")).strip())
                position += len(line)
                if name:
                    yield Item(name, ("listed", str(self._path.parent / name)), position)

    def names(self) -> Iterator[str]:
        return (item.name for item in self)

    def file(self, name: str, limit: int) -> bytes | None:
        return None


class LmdbSource:
    """Another LMDB of this layout; of several resolutions, the one wanted or else the largest.

    Attributes:
        classes: their names, empty where the LMDB has none.
    """

    kind = "lmdb"

    def __init__(self, path: Path, resolution: int) -> None:
        self._path, self.ignored = path, Ignored()
        _, layout = lmdb_layout.open_layout(path)
        self.classes: list[str] = (layout.manifest or {}).get("classes", [])
        self._resolution = resolution if resolution in layout.resolutions else max(layout.resolutions)
        self._raw, self.size = layout.raw, layout.count

    def __iter__(self) -> Iterator[Item]:
        for i in range(self.size):
            key = lmdb_layout.key(self._resolution, i)
            place = ("lmdb", str(self._path), key, self._resolution if self._raw else 0)
            if self.classes and i % lmdb_layout.BLOCK == 0:
                labels = self._labels(i // lmdb_layout.BLOCK)
            label = self.classes[labels[i % lmdb_layout.BLOCK]] if self.classes else None
            yield Item(key.decode(), place, i + 1, label)

    def names(self) -> Iterator[str]:
        return (lmdb_layout.key(self._resolution, i).decode() for i in range(self.size))

    def file(self, name: str, limit: int) -> bytes | None:
        return None

    def _labels(self, block: int) -> list[int]:
        with lmdb_layout.open_readonly(self._path).begin() as transaction:
            stored = lmdb_layout.stored(transaction, self._path, lmdb_layout.labels_key(block)) or b""
        labels = lmdb_layout.labels_of(stored)
        wanted = min(lmdb_layout.BLOCK, self.size - block * lmdb_layout.BLOCK)
        if len(labels) != wanted or not all(0 <= label < len(self.classes) for label in labels):
            raise UserError(f"{self._path} has damaged class labels; leave out --labels, or make it again")
        return labels


def read(item: Item) -> bytes:
    """The bytes of an image file.

    Raises:
        Unusable: there is none, or none that can be read.
        UserError: the source itself cannot be read any more.
    """
    how, *rest = item.place
    try:
        if how == "bytes":
            return rest[0]
        if how in ("file", "listed"):
            status = os.stat(rest[0])
            if not stat.S_ISREG(status.st_mode):
                raise Unusable("not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise Unusable(f"file of {status.st_size} bytes")
            return Path(rest[0]).read_bytes()
        if how == "zip":
            with open_in_zip(item) as file:
                return file.read()
        if how == "slice":
            if rest[2] > MAX_FILE_BYTES:
                raise Unusable(f"file of {rest[2]} bytes")
            with open(rest[0], "rb") as file:
                file.seek(rest[1])
                return file.read(rest[2])
        if how == "lmdb":
            return _lmdb_record(*rest)
    except OSError as error:
        # What a folder or an archive was seen to hold has to be there; what a list names need not.
        if (how in ("file", "listed") and error.errno in ITS_OWN) or (how == "listed" and error.errno == errno.ENOENT):
            raise Unusable(error.strerror or "unreadable") from error
        raise UserError(
            f"cannot read {rest[0]} any more ({error.strerror or error}); finished work is kept: put it back and "
            "run the same command again to continue"
        ) from error
    raise Unusable(rest[0])


def _lmdb_record(path: str, key: bytes, raw_resolution: int) -> bytes:
    try:
        with lmdb_layout.open_readonly(Path(path)).begin(buffers=True) as transaction:
            record = transaction.get(key)
            if record is None:
                raise Unusable("missing in the LMDB")
            if len(record) > MAX_FILE_BYTES:
                raise Unusable(f"record of {len(record)} bytes")
            data = bytes(record)
    except lmdb.Error as error:
        raise Unusable("damaged in the LMDB") from error
    if raw_resolution:  # As a file that the one decoder understands.
        return f"P6 {raw_resolution} {raw_resolution} 255\n".encode() + data
    return data
