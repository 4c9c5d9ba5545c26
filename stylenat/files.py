"""Files: written completely or not at all, opened only where that is safe, and where the user's own ones lie.

A run folder may have come from someone else. What lies in it is read with a bound and written through no link.
"""

import atexit
import errno
import functools
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor

from registry import UserError

NAME_BYTES = 255
"""The longest name of a file on common file systems."""


def cache_folder() -> Path:
    """``$STYLENAT_CACHE``, else ``stylenat`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    A user without a home folder, as in some containers, gets a folder of this process's own, since anybody could make
    one of a known name in ``/tmp`` first.
    """
    if chosen := os.environ.get("STYLENAT_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stylenat"
    except RuntimeError:  # There is neither $HOME nor an entry of the user.
        return _of_this_process()


@functools.cache
def _of_this_process() -> Path:
    folder = tempfile.mkdtemp(prefix="stylenat-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file; never waits, as opening a FIFO would.

    Raises:
        OSError: it cannot be read. ValueError: it is no regular file, or longer than ``limit`` bytes.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return data


def open_in_folder(path: Path, flags: int) -> int:
    """A descriptor of a file to write in a run folder, created where it is missing.

    Args:
        flags: of ``os.open``, such as ``os.O_WRONLY | os.O_APPEND``.

    Raises:
        UserError: it is a link (symbolic or hard) or no regular file: what is written would land elsewhere.
        OSError: it cannot be opened.
    """
    refused = UserError(
        f"{path} is a link or not a regular file, so nothing is written to it; remove it, or replace it by a copy"
    )
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # A symbolic link, a FIFO, a folder.
            raise refused from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise refused
    return descriptor


def partial(path: Path) -> Path:
    """The name under which ``whole_file`` writes. It is no longer than a name may be where the path's own is not."""
    name = f".{path.name}.partial"
    if len(os.fsencode(name)) > NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.partial"
    return path.with_name(name)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Gives an ``OSError`` of writing the file's name; those of ``write`` and ``fsync`` have none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under its name only when it is complete and on the disk."""
    temporary = partial(path)
    try:
        # Never the file that something of that name leads to: a run folder may hold links.
        temporary.unlink(missing_ok=True)
        with named(path), open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, whose files appear in ``path`` only when all are complete. Nothing remains of a failure.

    Raises:
        OSError: ``path`` is a folder that is not empty, or cannot be made.
    """
    new = not path.exists()
    made = [parent for parent in path.absolute().parents if not parent.exists()]
    if not new and any(path.iterdir()):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
    # An existing folder is kept: it may be a link, another file system, or have a mode of its own.
    temporary = partial(path) if new else path / ".partial"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if new:
            temporary.rename(path)
        else:
            for entry in temporary.iterdir():
                entry.rename(path / entry.name)
            temporary.rmdir()
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


def save_tensors(tensors: Mapping[str, "Tensor"], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file with the mode that the umask gives, as all other files have.

    safetensors replaces the file by one of its own, always of mode 0600. What is there before shows the mode: to ask
    for the umask is to change it, for all threads.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    from safetensors.torch import save_file  # Here, since it imports PyTorch.

    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    path.chmod(mode)


def disk_full(error: BaseException, folder: Path) -> bool:
    """Whether the error came of a full disk, or of a limit to what may be written.

    PyTorch, safetensors and LMDB lose the errno: then the text or the free space of ``folder`` decides, so ask before
    anything is removed.
    """
    if (number := getattr(error, "errno", None)) is not None:
        return number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if any(text in str(error) for text in ("No space left", "File too large", "quota exceeded")):
        return True
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return usage.total > 0 and usage.free < 2**20
