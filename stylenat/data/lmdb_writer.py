"""Writes an LMDB of images that is whole or not there, and can be continued after any interruption.

Everything goes to ``.NAME.partial`` beside the target. Records and the account of how far the source was read are
committed in one transaction, so that a killed process leaves a consistent beginning; the last commit removes the
account, and the folder is renamed.
"""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import stat
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lmdb

from registry import UserError
from stylenat.data.lmdb_layout import BLOCK, FORMAT_VERSION, digests_key, key, labels_key, labels_of
from stylenat.data.lmdb_progress import EARLIER, NOTED, Progress, chained, differing
from stylenat.files import disk_full, partial

COMMIT_BYTES = 2**25
PROGRESS = b".progress"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def skipped_key(index: int) -> bytes:
    return f".skipped-{index:09d}".encode()


class Writer:
    """A context that ends with ``finish``; leaving it earlier commits what there is and keeps it.

    Args:
        path: of the LMDB to come; resolutions: each item becomes one record of each.
        settings: how the images are made; what was begun with others is refused.

    Raises:
        UserError: the disk is full, the place cannot be written, another process is writing it.
    """

    def __init__(self, path: Path, resolutions: Sequence[int], settings: dict[str, Any]) -> None:
        self.path, self.resolutions = path, resolutions
        self.partial = partial(path)
        self.progress = Progress(settings)
        self.whole: dict[str, Any] | None = None
        """The manifest of what an earlier process completed and then was killed before it had its name."""
        self._digests: list[list[bytes]] = [[] for _ in resolutions]
        self._labels: list[int] = []
        self._numbers: dict[str, int] = {}
        self._uncommitted = 0
        self._held = ExitStack()

    def __enter__(self) -> "Writer":
        with self._faults():
            self.partial.mkdir(parents=True, exist_ok=True)
            self._refuse_links()
            self._lock = self._held.enter_context(open(self.partial / "lock", "w"))
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                raise UserError(f"another process is preparing {self.path}; wait for it or stop it") from None
            self._drop_a_stump()
            self._environment = lmdb.open(os.fsencode(self.partial), map_size=2**42, lock=False, mode=0o666)
            self._held.callback(self._environment.close)  # Which drops an open transaction.
            self._refuse_if_cut()
            self._transaction = self._environment.begin(write=True)
            self._continue()
        return self

    def _refuse_links(self) -> None:
        """A folder from elsewhere may hold links to files that would be overwritten, or pipes that wait for ever."""
        for path in (self.partial / "lock", self.partial / "data.mdb"):
            if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
                raise UserError(f"{path} is not a regular file; remove {self.partial} to start again")

    def _drop_a_stump(self) -> None:
        """A full disk may have let LMDB write but one of the two pages that any file of its begins with."""
        data = self.partial / "data.mdb"
        if data.exists() and data.stat().st_size < 2 * mmap.PAGESIZE:
            data.unlink()

    def _refuse_if_cut(self) -> None:
        """Reading beyond the file's end would kill the process. Only pages that were given back need not be there."""
        needed = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        data = self.partial / "data.mdb"
        size = data.stat().st_size
        if size < needed - 16 * mmap.PAGESIZE:
            raise lmdb.CorruptedError(f"cut to {size} of {needed} bytes")
        if size < needed:
            os.truncate(data, needed)

    def _continue(self) -> None:
        """Takes up a beginning, with the digests as of when its records were made."""
        manifest, text = self._transaction.get(b"manifest"), self._transaction.get(PROGRESS)
        if text is None and manifest is None:
            return
        try:
            if manifest is not None:
                self.whole = json.loads(manifest)
                self.progress.count = self.progress.consumed = self.whole["count"]
            begun = Progress.read(json.loads(text)) if text is not None else self.progress
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self.close()
            raise UserError(f"{self.partial} is damaged, or of a later version; remove it to start again") from error
        if other := differing(EARLIER | (self.whole or begun.settings), self.progress.settings):
            self.close()
            raise UserError(f"{self.partial} was started with {other}; repeat that command to continue, or remove it")
        self.progress = begun
        self._numbers = {name: number for number, name in enumerate(begun.classes)}
        if self.whole is not None:
            return
        first = begun.count // BLOCK * BLOCK
        for digests, resolution in zip(self._digests, self.resolutions, strict=True):
            known = self._transaction.get(digests_key(resolution, begun.count // BLOCK)) or b""
            digests += [known[i : i + 32] for i in range(0, len(known), 32)]
            if len(digests) != begun.count - first:  # Begun by an earlier version.
                records = (self._stored(key(resolution, i)) for i in range(first, begun.count))
                digests[:] = [hashlib.sha256(record).digest() for record in records]
        self._labels = labels_of(self._transaction.pop(labels_key(begun.count // BLOCK)) or b"")
        if len(self._labels) != (begun.count - first if begun.classes else 0):
            self.close()
            raise UserError(f"the class labels in {self.partial} are damaged; remove it to start again")

    def _stored(self, name: bytes) -> bytes:
        """What an earlier process has to have stored."""
        value = self._transaction.get(name)
        if value is None:
            raise lmdb.CorruptedError(f"{name.decode()} is missing")
        return value

    def add(self, name: str, records: Sequence[bytes], label: str | None = None, noted: Iterable[str] = ()) -> None:
        """One image at every resolution; ``noted``: which of NOTED are true of it."""
        progress, transaction = self.progress, self._transaction
        with self._faults():
            for digests, resolution, data in zip(self._digests, self.resolutions, records, strict=True):
                transaction.put(key(resolution, progress.count), data)
                digests.append(hashlib.sha256(data).digest())
                self._uncommitted += len(data)
            if label is not None:
                if label not in self._numbers:
                    self._numbers[label] = len(progress.classes)
                    progress.classes.append(label)
                self._labels.append(self._numbers[label])
            progress.count += 1
            for note in noted:
                setattr(progress, note, getattr(progress, note) + 1)
            if progress.count % BLOCK == 0:
                self._close_block(progress.count // BLOCK - 1)
        self._consumed(name)

    def number_classes(self, names: Sequence[str]) -> None:
        """Fixes the numbers of the classes, before the first image; else they are numbered as they appear."""
        self.progress.classes = list(names)
        self._numbers = {name: number for number, name in enumerate(names)}

    def skip(self, name: str, reason: str) -> None:
        """Notes why an item became no record."""
        self._transaction.put(skipped_key(self.progress.skipped), json.dumps([name, reason]).encode())
        self.progress.skipped += 1
        self._consumed(name)

    def _consumed(self, name: str) -> None:
        self.progress.consumed += 1
        self.progress.last = name
        if self.progress.names or self.progress.consumed == 1:
            self.progress.names = chained(self.progress.names, name)
        if self._uncommitted >= COMMIT_BYTES:
            self.commit()

    def _close_block(self, block: int) -> None:
        self._save_digests(block)
        self._save_labels(block)
        self._digests = [[] for _ in self.resolutions]
        self._labels = []

    def _save_digests(self, block: int) -> None:
        for digests, resolution in zip(self._digests, self.resolutions, strict=True):
            if digests:
                self._transaction.put(digests_key(resolution, block), b"".join(digests))

    def _save_labels(self, block: int) -> None:
        if self._labels:
            labels = array("i", self._labels)
            self._transaction.put(labels_key(block), labels.tobytes())

    def commit(self) -> None:
        """From here on, what was added so far survives a kill."""
        with self._faults():
            self._save_digests(self.progress.count // BLOCK)
            self._save_labels(self.progress.count // BLOCK)
            self._transaction.put(PROGRESS, json.dumps(asdict(self.progress)).encode())
            self._transaction.commit()
            self._transaction = self._environment.begin(write=True)
            self._uncommitted = 0

    def finish(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Completes the manifest and puts the LMDB in its place. Returns the manifest as written."""
        with self._faults():
            if self.whole is not None:
                self._put_in_place()
                return self.whole
            transaction, progress = self._transaction, self.progress
            self._close_block(progress.count // BLOCK)
            skipped: dict[str, str] = {}
            again: Counter[str] = Counter()
            for i in range(progress.skipped):
                name, reason = json.loads(self._stored(skipped_key(i)))
                transaction.delete(skipped_key(i))
                again[name] += 1
                skipped[name if again[name] == 1 else f"{name} ({again[name]})"] = reason
            content = hashlib.sha256()
            for resolution in self.resolutions:
                for block in range(-(-progress.count // BLOCK)):
                    content.update(self._stored(digests_key(resolution, block)))
            labels = hashlib.sha256()
            for block in range(-(-progress.count // BLOCK) if progress.classes else 0):
                labels.update(transaction.get(labels_key(block)) or b"")
            manifest = progress.settings | manifest
            manifest |= {
                "format_version": FORMAT_VERSION, "resolution": self.resolutions[0],
                "resolutions": list(self.resolutions), "count": progress.count,
                "classes": progress.classes, "skipped": skipped, "content_sha256": content.hexdigest(),
                "labels_sha256": labels.hexdigest() if progress.classes else None,
            }  # fmt: skip
            manifest |= {name: getattr(progress, name) for name in NOTED}
            transaction.put(b"length", str(progress.count).encode())
            transaction.put(b"manifest", json.dumps(manifest).encode())
            transaction.delete(PROGRESS)
            transaction.commit()
            self._put_in_place()
        return manifest

    def _put_in_place(self) -> None:
        self._transaction.abort()  # One that was opened to look only.
        self._environment.sync(True)
        self._environment.close()
        (self.partial / "lock").unlink()
        self.partial.rename(self.path)
        self.close()

    def discard(self) -> None:
        """Leaves nothing behind."""
        self.close()
        shutil.rmtree(self.partial)

    def close(self) -> None:
        """Drops what is not committed and keeps the rest."""
        self._held.close()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._lock.closed:
            return
        try:
            # After a fault of the storage itself, or one of ours, nothing more is written.
            if self.whole is None and kind is not None and issubclass(kind, (UserError, KeyboardInterrupt)):
                self.commit()
        except (UserError, lmdb.Error):
            pass  # The error that ended the context is the one to report.
        finally:
            self.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (OSError, lmdb.Error) as error:
            self.close()
            number = getattr(error, "errno", None)
            texts = ("No space left", "File too large", "quota exceeded")
            full = number in FULL or isinstance(error, lmdb.MapFullError) or any(text in str(error) for text in texts)
            # A short write comes as a mere "Input/output error": then the free space decides.
            if full or (isinstance(error, lmdb.Error) and disk_full(error, self.path.parent)):
                raise UserError(
                    f"no disk space left for {self.path}; finished work is kept in {self.partial}: "
                    "free some space and run the same command again to continue"
                ) from error
            if isinstance(error, lmdb.MemoryError):
                raise UserError(
                    f"cannot map {self.partial}: this shell's processes may address too little; run the command again "
                    "after `ulimit -v unlimited`"
                ) from error
            if isinstance(error, OSError) and not isinstance(error, lmdb.Error):
                raise UserError(f"cannot write {self.path}: {error.strerror}") from error
            if isinstance(error, (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError)):
                raise UserError(f"{self.partial} is damaged ({error}); remove it to start again") from error
            if "Input/output error" in str(error):
                raise UserError(
                    f"cannot write {self.path}: the disk reports an error, or a quota or limit to a file's size is "
                    f"reached; finished work is kept in {self.partial}: fix that and run the same command again to "
                    "continue"
                ) from error
            raise


def write(path: Path, resolution: int, images: Iterable[bytes], manifest: dict[str, Any]) -> dict[str, Any]:
    """Writes a small set of encoded images at once; returns the manifest as written. Raises UserError as Writer."""
    with Writer(path, [resolution], {}) as writer:
        for i, data in enumerate(images):
            if i >= writer.progress.consumed:
                writer.add(str(i), [data])
        return writer.finish(manifest)
