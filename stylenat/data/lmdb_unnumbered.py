"""LMDBs of image files under keys of any kind and without a ``length``, as LSUN's exports: hashed names, WebP."""

import os
from collections.abc import Iterator
from pathlib import Path

import lmdb

from registry import UserError
from stylenat.data import lmdb_layout
from stylenat.data.contents import HEAD, content_of
from stylenat.data.ignored import Ignored
from stylenat.data.items import Item

AT_ONCE = 1000
"""Keys that one transaction reads."""
LOOKED_AT = 16
"""Records by which an LMDB is recognized."""


def holds_image_files(path: Path) -> bool:
    """Whether an LMDB has no ``length`` and no manifest, and all of its first records are image files."""
    try:
        with lmdb_layout.open_readonly(path).begin(buffers=True) as transaction:
            if transaction.get(b"length") is not None or transaction.get(b"manifest") is not None:
                return False
            heads = [bytes(value[:HEAD]) for _, (_, value) in zip(range(LOOKED_AT), transaction.cursor(), strict=False)]
    except lmdb.Error:  # ``open_layout`` says what is wrong with it.
        return False
    contents = [content_of(head) for head in heads]
    return bool(contents) and all(content is not None and content.is_image for content in contents)


class UnnumberedLmdbSource:
    """All records of such an LMDB, in the order of their keys."""

    kind = "unnumbered lmdb"

    def __init__(self, path: Path) -> None:
        self._path, self.ignored = path, Ignored()
        self.size: int = lmdb_layout.open_readonly(path).stat()["entries"]

    def __iter__(self) -> Iterator[Item]:
        for position, key in enumerate(self._keys(), 1):
            yield Item(os.fsdecode(key), ("lmdb", str(self._path), key, 0), position)

    def names(self) -> Iterator[str]:
        return map(os.fsdecode, self._keys())

    def file(self, name: str, limit: int) -> bytes | None:
        return None

    def _keys(self) -> Iterator[bytes]:
        last = b""
        while keys := self._keys_after(last):
            yield from keys
            last = keys[-1]

    def _keys_after(self, last: bytes) -> list[bytes]:
        """The next ``AT_ONCE`` keys: no transaction stays open while images are made."""
        try:
            with lmdb_layout.open_readonly(self._path).begin() as transaction:
                cursor = transaction.cursor()
                there = cursor.set_range(last) if last else cursor.first()
                if there and bytes(cursor.key()) == last:
                    there = cursor.next_nodup()
                if not there:
                    return []
                keys = cursor.iternext_nodup(keys=True, values=False)
                return [bytes(key) for _, key in zip(range(AT_ONCE), keys, strict=False)]
        except (lmdb.Error, OSError) as error:
            raise UserError(f"{self._path} is not a readable LMDB ({error}); download or make it again") from error
