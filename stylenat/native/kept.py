"""A cache of compiled code: an entry is loaded only if no other user can have written it.

A library that is loaded runs. A cache folder may be shared, or lie below a folder that others can write to, so owner,
mode and digest are those of the very file that is then loaded.
"""

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def refused(folder: Path) -> str | None:
    """Makes ``folder`` for this user alone. Returns why code cannot be kept there, or None when it can."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode):
            return "is not a folder"
        if about.st_uid != os.geteuid():
            return "belongs to another user"
        if stat.S_IMODE(about.st_mode) != 0o700:
            folder.chmod(0o700)
        return None
    except OSError as error:
        return f"cannot be used ({error.strerror})"


def keep(built: Path, folder: Path, name: str) -> None:
    """Moves a library into ``folder``, its digest in its file name."""
    built.chmod(0o700)
    with open(built, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(built, folder / f"{name}-{digest}.so")


def opened(folder: Path, name: str) -> Path | None:
    """A path to load a kept library from, None where there is none. Others of that name are removed.

    Where the system has ``/proc``, the path is of the open file that was checked: it cannot be replaced meanwhile. The
    file stays open, since the loader takes two libraries of one path for the same.
    """
    for path in sorted(folder.glob(f"{name}-*.so")):
        descriptor = _checked(path)
        if descriptor is not None:
            of_process = Path(f"/proc/self/fd/{descriptor}")
            return of_process if of_process.exists() else path
        with suppress(FileNotFoundError):  # Another process removed it.
            path.unlink()
    return None


def _checked(path: Path) -> int | None:
    """The open file, if it is a plain file of this user's that no one else can write and has the digest of its name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # Of a pipe, at once.
    except OSError:
        return None
    about = os.fstat(descriptor)
    ours = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and about.st_nlink == 1
    if ours and not about.st_mode & WRITABLE_BY_OTHERS:
        with open(descriptor, "rb", closefd=False) as file:
            if path.stem.endswith(f"-{hashlib.file_digest(file, 'sha256').hexdigest()}"):
                return descriptor
    os.close(descriptor)
    return None
