"""Image files below a folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from registry import UserError
from stylenat.data.formats import is_image_name
from stylenat.data.ignored import HIDDEN, LINK, LINKED_FOLDER, SPECIAL, Ignored
from stylenat.data.items import Item


@dataclass
class _Walk:
    """What one walk has seen: files that it ignored and, where links are followed, folders that it entered."""

    ignored: Ignored = field(default_factory=Ignored)
    entered: set[tuple[int, int]] = field(default_factory=set)


class FolderSource:
    """Image files below a folder, in the order of their paths.

    Args:
        follow_links: enter linked folders, too. Each folder is entered once, under the first of its names in the
            order of paths: links in a circle end there, and no image comes twice.

    Raises:
        UserError: a folder that cannot be read.
    """

    kind = "folder"

    def __init__(self, path: Path, follow_links: bool = False) -> None:
        self._path, self._follow_links = path, follow_links
        self.size = sum(1 for _ in self.names())
        self.ignored = Ignored()

    def __iter__(self) -> Iterator[Item]:
        walk = _Walk()
        self.ignored = walk.ignored
        for i, name in enumerate(self._walk(self._path, "", walk)):
            yield Item(name, ("file", str(self._path / name)), i + 1)

    def names(self) -> Iterator[str]:
        return self._walk(self._path, "", _Walk())

    def file(self, name: str, limit: int) -> bytes | None:
        path = self._path / name
        if not os.path.lexists(path):
            return None
        if not path.is_file():  # A link to nothing, say: what it should hold must not be ignored.
            raise UserError(f"{path} is not a file, or is a link that leads to none; repair or remove it")
        try:
            with open(path, "rb") as file:
                return file.read(limit + 1)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error

    def _walk(self, folder: Path, prefix: str, walk: _Walk) -> Iterator[str]:
        if self._follow_links and not _is_first(folder, walk):
            walk.ignored.add(LINKED_FOLDER)
            return
        try:
            with os.scandir(folder) as entries:
                names, others = _names(entries)
        except OSError as error:
            raise UserError(f"cannot read {folder}: {error.strerror}") from error
        for name in names:
            kind = others.get(name, "file")
            if kind == "folder" or (kind == LINKED_FOLDER and self._follow_links):
                if name.startswith("."):
                    walk.ignored.add(HIDDEN)
                else:
                    yield from self._walk(folder / name, f"{prefix}{name}/", walk)
            elif kind != "file":
                walk.ignored.add(kind)
            elif is_image_name(name):
                yield prefix + name
            else:
                walk.ignored.add_file(name)


def _names(entries: Iterator[os.DirEntry[str]]) -> tuple[list[str], dict[str, str]]:
    """All names in order, and the kinds of those that are not files: a folder may hold millions of files."""
    names, others = [], {}
    for entry in entries:
        names.append(entry.name)
        if (kind := _kind(entry)) != "file":
            others[entry.name] = kind
    names.sort()
    return names, others


def _is_first(folder: Path, walk: _Walk) -> bool:
    """Whether a folder is entered for the first time."""
    try:
        status = folder.stat()
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error
    known = len(walk.entered)
    walk.entered.add((status.st_dev, status.st_ino))
    return len(walk.entered) > known


def _kind(entry: os.DirEntry[str]) -> str:
    """``file`` (or a link to one), ``folder``, or why it is ignored."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        if entry.is_dir():
            return LINKED_FOLDER
        if entry.is_file():
            return "file"
    except OSError:  # A link that leads in a circle.
        return LINK
    return LINK if entry.is_symlink() else SPECIAL
