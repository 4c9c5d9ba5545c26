"""Images in a zip or a tar. Archives are untrusted: what a header declares is checked before it is read."""

import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from registry import UserError
from stylenat.data.formats import Unusable, is_image_name
from stylenat.data.ignored import HIDDEN, LINK, SPECIAL, Ignored
from stylenat.data.items import MAX_FILE_BYTES, Item

MAX_HEADER_BYTES = 2**16
"""A tar's extended headers hold names and attributes; tarfile would read one of any size."""
MAX_GLOBAL_HEADERS = 100
MACOS = "__MACOSX/"
"""Folder of attributes in zips that macOS makes."""
EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class ZipSource:
    """Image files in a zip, in the order of their names. Of members with the same name each is an image."""

    kind = "zip"

    def __init__(self, path: Path) -> None:
        self._path = path
        members = list(enumerate(_zip(str(path)).infolist()))
        self._images = sorted((_zip_name(info), index) for index, info in members if _is_image(info))
        self.size, self.ignored = len(self._images), Ignored()
        for _, info in members:
            if not info.is_dir() and not _is_image(info):
                _count(self.ignored, _zip_name(info))

    def __iter__(self) -> Iterator[Item]:
        members = _zip(str(self._path)).infolist()
        for position, (name, index) in enumerate(self._images, 1):
            yield Item(name, ("zip", str(self._path), index, members[index].filename), position)

    def names(self) -> Iterator[str]:
        return (name for name, _ in self._images)

    def file(self, name: str, limit: int) -> bytes | None:
        for index, info in enumerate(_zip(str(self._path)).infolist()):
            if _zip_name(info) == name:
                try:
                    with _open_member(str(self._path), index, info.filename) as file:
                        return file.read(limit + 1)
                except Unusable as error:
                    raise UserError(f"{self._path}: {name}: {error}; download or create it again") from error
        return None


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Some Windows programs separate folders by backslashes, against the zip format."""
    return info.filename.replace("\\", "/")


def _is_image(info: zipfile.ZipInfo) -> bool:
    name = _zip_name(info)
    return not info.is_dir() and is_image_name(name) and not name.startswith(MACOS)


def _count(ignored: Ignored, name: str) -> None:
    if name.startswith(MACOS):
        ignored.add(HIDDEN)
    else:
        ignored.add_file(name)


@contextmanager
def open_in_zip(item: Item) -> Iterator[IO[bytes]]:
    """An image file of a zip, for as much of it as is wanted. Raises Unusable when it cannot be read."""
    _, path, index, name = item.place
    with _open_member(path, index, name) as file:
        yield file


@contextmanager
def _open_member(path: str, index: int, name: str) -> Iterator[IO[bytes]]:
    try:
        archive = _zip(path)
        members = archive.infolist()
        if index >= len(members) or members[index].filename != name:
            raise UserError(f"{path} has changed while it was read; run the same command again")
        if members[index].file_size > MAX_FILE_BYTES:
            raise Unusable(f"file of {members[index].file_size} bytes")
        with archive.open(members[index]) as file:  # Not by its name, which others may have, too.
            yield file
    except OSError as error:
        if error.errno is not None:  # Of the disk; the decompressors raise OSError without a number.
            raise
        raise Unusable("damaged in the zip") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, EOFError) as error:
        raise Unusable("damaged in the zip") from error
    except (RuntimeError, NotImplementedError) as error:
        raise Unusable("encrypted in the zip, or compressed in an unsupported way") from error


def _zip(path: str) -> zipfile.ZipFile:
    status = os.stat(path)
    # A forked process needs its own: two would move one file position.
    return _opened_zip(path, os.getpid(), status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _opened_zip(path: str, *identity: int) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, struct.error) as error:
        raise UserError(f"{path} is a damaged zip ({error}); download or create it again") from error


class Spoilt(UserError):
    """Nothing that was made of this source is to be kept: it may be wrong as well, or can never be completed."""


class _Refused(Exception):
    """A tar that may be sound, but cannot be read in bounded memory."""


class _Header(tarfile.TarInfo):
    """An error for a damaged or missing header, which tarfile takes for the archive's end, and for an excessive one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # The mark of the end.
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if header.size < 0:
            raise tarfile.ReadError("negative size")
        if header.type in EXTENDED and header.size > MAX_HEADER_BYTES:
            raise _Refused(f"has a header of {header.size} bytes, more than {MAX_HEADER_BYTES}; make it again")
        if header.type == tarfile.GNUTYPE_SPARSE:
            cls._refuse_sparse()
        return header

    @classmethod
    def _refuse_sparse(cls) -> None:
        raise _Refused("has a sparse member, which is not read; make it again without --sparse")

    def _proc_gnusparse_10(self, *arguments: object) -> None:
        """tarfile's hook for the newer form of sparse members: it would read a list of any length."""
        self._refuse_sparse()


def is_tar(path: Path) -> bool:
    """As ``tarfile.is_tarfile``, in bounded memory."""
    try:
        with tarfile.open(path, tarinfo=_Header):
            return True
    except (_Refused, RecursionError):  # Reading it says why it cannot be read.
        return True
    except tarfile.TarError:
        return False


class TarSource:
    """Image files in a tar, compressed or not, in the order in which they lie there; read once, front to back."""

    kind = "tar"

    def __init__(self, path: Path) -> None:
        self._path, self.ignored, self.size = path, Ignored(), path.stat().st_size
        with open(path, "rb") as file:
            self._plain = file.read(262)[257:] == b"ustar"

    def __iter__(self) -> Iterator[Item]:
        self.ignored = Ignored()
        with self._opened() as (file, tar):
            for member in self._members(tar):
                if member.isfile() and is_image_name(member.name):
                    yield Item(member.name, self._place(tar, member), file.tell())
                elif member.isfile():
                    self.ignored.add_file(member.name)
                else:
                    self.ignored.add(LINK if member.islnk() or member.issym() else SPECIAL)

    def names(self) -> Iterator[str]:
        with self._opened() as (_, tar):
            for member in self._members(tar):
                if member.isfile() and is_image_name(member.name):
                    yield member.name

    def file(self, name: str, limit: int) -> bytes | None:
        content = None
        with self._opened() as (_, tar):
            for member in self._members(tar):
                if member.isfile() and member.name.removeprefix("./") == name:
                    content = tar.extractfile(member).read(limit + 1)  # type: ignore[union-attr]
        return content

    @contextmanager
    def _opened(self) -> Iterator[tuple[IO[bytes], tarfile.TarFile]]:
        try:
            mode = "r:" if self._plain else "r:*"
            with open(self._path, "rb") as file, tarfile.open(fileobj=file, mode=mode, tarinfo=_Header) as tar:
                yield file, tar
                while not self._plain and tar.fileobj.read(2**20):  # The checksum of all comes last.
                    pass
        except _Refused as error:
            raise Spoilt(f"{self._path} {error}") from error
        except (
            tarfile.TarError,
            EOFError,
            OSError,
            lzma.LZMAError,
            zlib.error,
            OverflowError,
            RecursionError,
        ) as error:
            kind = UserError if self._plain else Spoilt
            raise kind(f"{self._path} is damaged or incomplete ({error}); download or create it again") from error

    def _members(self, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        """All but folders."""
        while (member := tar.next()) is not None:
            tar.members = []  # It would remember every member.
            if member.size < 0:  # From an extended header: tarfile would go back, and never end.
                raise tarfile.ReadError("negative size")
            if len(tar.pax_headers) > MAX_GLOBAL_HEADERS:
                raise _Refused(f"has more than {MAX_GLOBAL_HEADERS} global headers; make it again")
            if self._plain and member.isfile() and member.offset_data + member.size > self.size:
                raise tarfile.ReadError(f"{member.name} is cut")
            if not member.isdir():
                yield member

    def _place(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[Any, ...]:
        if self._plain:
            return "slice", str(self._path), member.offset_data, member.size
        if member.size > MAX_FILE_BYTES:
            return "unusable", f"file of {member.size} bytes"
        return "bytes", tar.extractfile(member).read()  # type: ignore[union-attr]
