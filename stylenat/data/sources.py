"""Where images come from: a folder tree, a zip, a tar, an LMDB, a text file of paths.

Every source lists its images one at a time in an order that never changes, and says how a worker process gets at
one image's bytes by itself, so that neither the list nor the images need to fit in memory.
"""

import errno
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Protocol

import lmdb

from registry import UserError
from stylenat.data import lmdb_layout
from stylenat.data.images import Unusable, is_image_name

MAX_FILE_BYTES = 2**29
"""A file beyond 512 MiB is not read: no image that fits MAX_PIXELS needs as much."""
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")
ITS_OWN = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors that tell of one file; others, such as a share that is gone, tell of the source."""


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        name: its path within the source; place: what ``read`` needs; position: in units of the source's ``size``.
        label: its class, where the source says so by other means than the name of a folder.
    """

    name: str
    place: tuple[Any, ...]
    position: int
    label: str | None = None


class Source(Protocol):
    """``kind`` names the sort; ``size`` is the position behind the last item; ``ignored`` counts what has no
    image's suffix, as far as it was walked."""

    kind: str
    size: int
    ignored: int

    def __iter__(self) -> Iterator[Item]: ...


def open_source(path: Path, resolution: int) -> Source:
    """The source at a path.

    Args:
        resolution: wanted; of an LMDB that holds several, this one is read, or else the largest.

    Raises:
        UserError: nothing there, or not a source.
    """
    if not path.exists():
        raise UserError(f"there is nothing at {path}; give a folder, zip, tar, LMDB or text file of paths")
    try:
        if lmdb_layout.looks_like_lmdb(path):
            return LmdbSource(path, resolution)
        if path.is_dir():
            return FolderSource(path)
        if zipfile.is_zipfile(path):
            return ZipSource(path)
        if tarfile.is_tarfile(path):
            return TarSource(path)
        if path.suffix.lower() in (".txt", ".lst", ".list"):
            return ListSource(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if path.suffix.lower() in ARCHIVES:
        raise UserError(f"{path} is empty, damaged or incomplete; fetch or make it again")
    raise UserError(f"{path} is no folder, zip, tar, LMDB or text file of paths (.txt); nothing can be read from it")


class FolderSource:
    """Image files below a folder, in the order of their paths. Linked folders are not entered."""

    kind = "folder"

    def __init__(self, path: Path) -> None:
        self._path, self.ignored = path, 0
        self.size = sum(1 for _ in self._walk(path, ""))
        self.ignored = 0

    def __iter__(self) -> Iterator[Item]:
        self.ignored = 0
        for i, name in enumerate(self._walk(self._path, "")):
            yield Item(name, ("file", str(self._path / name)), i + 1)

    def _walk(self, folder: Path, prefix: str) -> Iterator[str]:
        try:
            with os.scandir(folder) as entries:
                found = sorted((e.name, e.is_dir(follow_symlinks=False), _is_file(e)) for e in entries)
        except OSError as error:
            raise UserError(f"cannot read {folder}: {error.strerror}") from error
        for name, is_folder, is_file in found:
            if is_folder:
                if not name.startswith("."):
                    yield from self._walk(folder / name, f"{prefix}{name}/")
            elif is_file and is_image_name(name):
                yield prefix + name
            else:
                self.ignored += 1


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Or a link to one; False for a link that leads in a circle."""
    try:
        return entry.is_file()
    except OSError:
        return False


class ListSource:
    """Paths, one a line, relative to the text file's folder. Blank lines do not count."""

    kind = "list"

    def __init__(self, path: Path) -> None:
        self._path, self.ignored, self.size = path, 0, path.stat().st_size

    def __iter__(self) -> Iterator[Item]:
        position = 0
        with open(self._path, "rb") as lines:
            for line in lines:
                if b"\0" in line:
                    raise UserError(f"{self._path} is no text file of paths: it has to be UTF-8, one path a line")
                name = os.fsdecode((line if position else line.removeprefix(b"\xef\xbb\xbf")).strip())
                position += len(line)
                if name:
                    yield Item(name, ("listed", str(self._path.parent / name)), position)


class ZipSource:
    """Image files in a zip, in the order of their names."""

    kind = "zip"

    def __init__(self, path: Path) -> None:
        self._path, self.ignored = path, 0
        names = [info.filename for info in _zip(str(path)).infolist() if not info.is_dir()]
        self._names = sorted(name for name in names if is_image_name(name) and not name.startswith("__MACOSX/"))
        self.size, self.ignored = len(self._names), len(names) - len(self._names)

    def __iter__(self) -> Iterator[Item]:
        for i, name in enumerate(self._names):
            yield Item(name, ("zip", str(self._path), name), i + 1)


class Spoilt(UserError):
    """What was read of the source before this may be wrong as well."""


class _Header(tarfile.TarInfo):
    """A damaged or missing header is an error; tarfile takes it for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # The mark of the end.
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


class TarSource:
    """Image files in a tar, compressed or not, in the order in which they lie there; read once, front to back."""

    kind = "tar"

    def __init__(self, path: Path) -> None:
        self._path, self.ignored, self.size = path, 0, path.stat().st_size
        with open(path, "rb") as file:
            self._plain = file.read(262)[257:] == b"ustar"

    def __iter__(self) -> Iterator[Item]:
        self.ignored = 0
        try:
            yield from self._items()
        except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            kind = UserError if self._plain else Spoilt
            raise kind(f"{self._path} is damaged or incomplete ({error}); fetch or make it again") from error

    def _items(self) -> Iterator[Item]:
        mode = "r:" if self._plain else "r:*"
        with open(self._path, "rb") as file, tarfile.open(fileobj=file, mode=mode, tarinfo=_Header) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # It would remember every member.
                if member.isdir():
                    continue
                if not (member.isfile() and is_image_name(member.name)):
                    self.ignored += 1
                    continue
                if self._plain:
                    place: tuple[Any, ...] = ("slice", str(self._path), member.offset_data, member.size)
                    if member.offset_data + member.size > self.size:
                        raise tarfile.ReadError(f"{member.name} is cut")
                elif member.size > MAX_FILE_BYTES:
                    place = ("unusable", f"file of {member.size} bytes")
                else:
                    extracted = tar.extractfile(member)
                    assert extracted is not None
                    place = ("bytes", extracted.read())
                yield Item(member.name, place, file.tell())
            if not self._plain:
                while tar.fileobj.read(2**20):  # The checksum of all comes last.
                    pass


class LmdbSource:
    """Another LMDB of this layout; of several resolutions, the one wanted or else the largest.

    Attributes:
        classes: their names, empty where the LMDB has none.
    """

    kind = "lmdb"

    def __init__(self, path: Path, resolution: int) -> None:
        self._path, self.ignored = path, 0
        _, layout = lmdb_layout.open_layout(path)
        self.classes: list[str] = (layout.manifest or {}).get("classes", [])
        self._resolution = resolution if resolution in layout.resolutions else max(layout.resolutions)
        self._raw, self.size = layout.raw, layout.count

    def __iter__(self) -> Iterator[Item]:
        for i in range(self.size):
            key = lmdb_layout.key(self._resolution, i).decode()
            place = ("lmdb", str(self._path), key, self._resolution if self._raw else 0)
            if self.classes and i % lmdb_layout.BLOCK == 0:
                labels = self._labels(i // lmdb_layout.BLOCK)
            yield Item(key, place, i + 1, self.classes[labels[i % lmdb_layout.BLOCK]] if self.classes else None)

    def _labels(self, block: int) -> list[int]:
        with lmdb_layout.open_readonly(self._path).begin() as transaction:
            labels = array(
                "i", lmdb_layout.stored(transaction, self._path, lmdb_layout.labels_key(block)) or b""
            ).tolist()
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
                raise Unusable("no file")
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
            f"cannot read {rest[0]} any more ({error.strerror or error}); what is finished is kept: put it back and "
            "give the same command to go on"
        ) from error
    raise Unusable(rest[0])


@contextmanager
def open_in_zip(item: Item) -> Iterator[IO[bytes]]:
    """An image file of a zip, for as much of it as is wanted. Raises Unusable when it cannot be read."""
    _, path, name = item.place
    try:
        archive = _zip(path)
        if archive.getinfo(name).file_size > MAX_FILE_BYTES:
            raise Unusable(f"file of {archive.getinfo(name).file_size} bytes")
        with archive.open(name) as file:
            yield file
    except (zipfile.BadZipFile, zipfile.zlib.error, RuntimeError, NotImplementedError, EOFError) as error:  # type: ignore[attr-defined]
        raise Unusable("damaged or encrypted in the zip") from error


def _zip(path: str) -> zipfile.ZipFile:
    status = os.stat(path)
    # A forked process needs its own: two would move one file position.
    return _opened_zip(path, os.getpid(), status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _opened_zip(path: str, *identity: int) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is a damaged zip ({error}); fetch or make it again") from error


def _lmdb_record(path: str, key: str, raw_resolution: int) -> bytes:
    try:
        with lmdb_layout.open_readonly(Path(path)).begin() as transaction:
            data = transaction.get(key.encode())
    except lmdb.Error as error:
        raise Unusable("damaged in the LMDB") from error
    if data is None:
        raise Unusable("missing in the LMDB")
    if raw_resolution:  # As a file that the one decoder understands.
        return f"P6 {raw_resolution} {raw_resolution} 255\n".encode() + data
    return data
