"""What an LMDB of images holds: statistics, a contact sheet, a check of every record, and the way back to files."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from registry import UserError
from stylenat.data.classes import NO_CLASS
from stylenat.data.lmdb_images import LmdbImages
from stylenat.data.lmdb_layout import BLOCK, digests_key, key, open_layout, stored
from stylenat.grids import image_grid, save_png

SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}


class Inspection:
    """One LMDB at one resolution; the largest by default. Raises UserError when it cannot be read."""

    def __init__(self, path: Path, resolution: int | None = None) -> None:
        self.path = path
        self._environment, self.layout = open_layout(path)
        self.resolution = max(self.layout.resolutions) if resolution is None else resolution
        self.images = LmdbImages(str(path), self.resolution)
        self.images.open()

    def size_bytes(self) -> int:
        """Of the file."""
        return ((self.path / "data.mdb") if self.path.is_dir() else self.path).stat().st_size

    def records(self, resolution: int) -> Iterator[bytes | None]:
        """As stored, in order; None for one that is missing."""
        return (self._stored(key(resolution, i)) for i in range(self.layout.count))

    def _stored(self, name: bytes) -> bytes | None:
        with self._environment.begin() as transaction:
            return stored(transaction, self.path, name)

    def mean_and_std(self, sample: int) -> tuple[Tensor, Tensor]:
        """Of R, G and B in 0..1, over at most ``sample`` images spread evenly."""
        # Counts of values, without PyTorch's threads, which wait for one another on a busy machine.
        counts = np.zeros((3, 256))
        for i in self.spread(sample):
            counts += [np.bincount(colour.ravel(), minlength=256) for colour in self.images[i].numpy()]
        shares, values = torch.from_numpy(counts / counts.sum(axis=1, keepdims=True)), torch.arange(256).double() / 255
        mean = shares @ values
        return mean, (shares @ values.square() - mean.square()).clamp(min=0).sqrt()

    def spread(self, sample: int) -> list[int]:
        """At most ``sample`` indices, evenly over the set."""
        return torch.linspace(0, self.layout.count - 1, min(sample, self.layout.count)).round().long().tolist()

    def repeated(self) -> int:
        """Images whose record equals that of an image before them, by the digests that are stored with the records."""
        blocks = range(-(-self.layout.count // BLOCK))
        stored = b"".join(self._stored(digests_key(self.resolution, block)) or b"" for block in blocks)
        if len(stored) != 32 * self.layout.count:  # A format without digests, or damaged ones.
            stored = b"".join(hashlib.sha256(record or b"").digest() for record in self.records(self.resolution))
        return self.layout.count - len(np.unique(np.frombuffer(stored, "V32")))

    def sheet(self, path: Path, sample: int = 64) -> None:
        """Writes a contact sheet as PNG."""
        try:
            save_png(path, image_grid(torch.stack([self.images[i] for i in self.spread(sample)])))
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error

    def problems(self) -> Iterator[str | None]:
        """For every record of every resolution, what is wrong with it or None; last, of the whole."""
        content, manifest = hashlib.sha256(), self.layout.manifest or {}
        has_digests = manifest.get("format_version", 0) >= 2
        for resolution in self.layout.resolutions:
            images, digests = LmdbImages(str(self.path), resolution), b""
            for i in range(self.layout.count):
                try:
                    if has_digests and i % BLOCK == 0:
                        digests = self._stored(digests_key(resolution, i // BLOCK)) or b""
                    record = self._stored(key(resolution, i))
                except UserError as error:
                    yield f"image {i} at {resolution} cannot be read: {error}"
                    continue
                digest = hashlib.sha256(record or b"").digest()
                content.update(digest)
                place = 32 * (i % BLOCK)
                if record is None:
                    yield f"image {i} at {resolution} is missing"
                elif has_digests and digests[place : place + 32] != digest:
                    yield f"image {i} at {resolution} is not what was stored: its hash differs"
                else:
                    yield self._undecodable(images, i)
        if "content_sha256" in manifest and manifest["content_sha256"] != content.hexdigest():
            yield "the content hash in the manifest differs from that of the records"

        if self.images.classes:
            try:
                self.images.labels()
            except UserError as error:
                yield str(error)

    def _undecodable(self, images: LmdbImages, index: int) -> str | None:
        try:
            images[index]
        except UserError as error:
            return str(error)
        return None

    def export(self, folder: Path) -> Iterator[Path]:
        """Writes each record as an image file, raw pixels as PNG; into sub-folders where there are classes."""
        classes = self.images.classes
        labels = self.images.labels().tolist() if classes else []
        if not all(_names_a_folder(name) for name in classes):
            raise UserError(f"{self.path} has classes that are not names of folders; it cannot be exported")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise UserError(f"{folder} exists; choose a new folder to export to") from None
        except OSError as error:
            raise UserError(f"cannot make {folder}: {error.strerror}") from error
        for i, record in enumerate(self.records(self.resolution)):
            if record is None:
                raise UserError(f"{self.path}: image {i} is missing; make the data set again")
            place = folder / classes[labels[i]] if labels else folder
            try:
                place.mkdir(exist_ok=True)
                path = place / f"{i:05d}{_suffix(record, self.layout.raw)}"
                if self.layout.raw:
                    Image.fromarray(self.images[i].permute(1, 2, 0).numpy()).save(path)
                else:
                    path.write_bytes(record)
            except OSError as error:
                raise UserError(f"cannot write below {place}: {error.strerror or error}") from error
            yield path

    def summary(self) -> dict[str, Any]:
        """What can be said without decoding."""
        manifest = dict(self.layout.manifest or {"layout": "without a manifest (not made by this project)"})
        manifest["skipped"] = len(manifest.get("skipped", {}))
        shown = {"resolution": self.resolution}
        return {"images": self.layout.count, "resolutions": list(self.layout.resolutions)} | manifest | shown


def _names_a_folder(name: str) -> bool:
    """Not ".." or "a/b", which would lead out of the folder, nor what no file system takes."""
    try:
        return name not in NO_CLASS and "/" not in name and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _suffix(record: bytes, raw: bool) -> str:
    return ".png" if raw else next((s for magic, s in SUFFIXES.items() if record.startswith(magic)), ".img")
