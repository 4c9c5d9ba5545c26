"""What writing files has in common, whatever is written, and where what can be made again is kept."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def cache_folder() -> Path:
    """``$STYLENAT_CACHE``, else ``stylenat`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    chosen = os.environ.get("STYLENAT_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stylenat"


def partial(path: Path) -> Path:
    """The name under which ``whole_file`` writes."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under its name only when it is complete and on the disk."""
    temporary = partial(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def disk_full(error: BaseException, folder: Path) -> bool:
    """Whether the error came of a full disk, or of a limit to what may be written.

    PyTorch, safetensors and LMDB lose the errno: then the text or the free space decides, so ask before anything is
    removed.
    """
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    if any(text in str(error) for text in ("No space left", "File too large", "quota exceeded")):
        return True
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return usage.total > 0 and usage.free < 2**20
