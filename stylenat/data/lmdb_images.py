"""Reads images from an LMDB of ``lmdb_layout``."""

import hashlib
import os
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
from torch import Tensor

from registry import UserError
from stylenat.data import lmdb_layout
from stylenat.data.decoders import decode_pixels
from stylenat.data.identity import digest, spread


class LmdbImages:
    """Images of one resolution. Opens on first use, in each process for itself, and never locks.

    Args:
        path: the LMDB; resolution: of the images wanted.
    """

    def __init__(self, path: str, resolution: int) -> None:
        self.path, self.resolution = Path(path), resolution
        self._environment: lmdb.Environment | None = None
        self._process = 0
        self._layout: lmdb_layout.Layout | None = None
        self._labels: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_environment": None}

    def open(self) -> None:
        """Checks the layout. Raises UserError when it is missing, damaged or of another resolution."""
        prepare = f"python tools/prepare.py SOURCE {self.path} --resolution {self.resolution}"
        if not self.path.exists():
            raise UserError(
                f"there is no data set at {self.path}; make it with `{prepare}` (add --labels if it has classes)"
            )
        environment, layout = lmdb_layout.open_layout(self.path)
        if self.resolution not in layout.resolutions:
            holds = ", ".join(map(str, layout.resolutions))
            raise UserError(
                f"{self.path} holds images at resolution {holds}, not {self.resolution}; bind that one, or make one of "
                f"another name: `{prepare.replace(str(self.path), 'OTHER.lmdb')}`"
            )
        with environment.begin() as transaction:
            if (
                layout.count < 1
                or lmdb_layout.stored(transaction, self.path, lmdb_layout.key(self.resolution, layout.count - 1))
                is None
            ):
                raise UserError(
                    f"{self.path} is truncated: it lacks image {layout.count - 1}; make it again with `{prepare}`"
                )
        self._environment, self._layout, self._process = environment, layout, os.getpid()

    @property
    def layout(self) -> lmdb_layout.Layout:
        self._ready()
        assert self._layout is not None
        return self._layout

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty when none were stored."""
        return (self.layout.manifest or {}).get("classes", [])

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def class_names(self) -> list[str]:
        return self.classes

    def label(self, index: int) -> int:
        """The class of an image. Raises UserError when none were stored."""
        if self._labels is None:
            self._labels = self.labels()
        return int(self._labels[index])

    def content_hash(self) -> str | None:
        """Of all records and the resolution that is read; None where the LMDB has no manifest or an old one."""
        content = (self.layout.manifest or {}).get("content_sha256")
        return content and f"{content} at {self.resolution}"

    def identity(self) -> dict[str, Any]:
        """A digest of some of the records, for an LMDB that has no content hash."""
        with self._ready().begin() as transaction:
            keys = (lmdb_layout.key(self.resolution, index) for index in spread(len(self)))
            return {"records": digest(lmdb_layout.stored(transaction, self.path, key) or b"" for key in keys)}

    def labels(self) -> Tensor:
        """int64 [count]: each image's class, an index into ``classes``. Raises UserError when none were stored."""
        if not self.classes:
            raise UserError(f"{self.path} has no classes; make it with `python tools/prepare.py ... --labels`")
        with self._ready().begin() as transaction:
            blocks = range(-(-len(self) // lmdb_layout.BLOCK))
            data = b"".join(
                lmdb_layout.stored(transaction, self.path, lmdb_layout.labels_key(block)) or b"" for block in blocks
            )
        wanted = (self.layout.manifest or {}).get("labels_sha256")
        whole = len(data) == 4 * len(self) and wanted in (None, hashlib.sha256(data).hexdigest())
        labels = torch.from_numpy(np.frombuffer(data, "<i4").astype(np.int64)) if whole else torch.tensor([-1])
        if labels.min() < 0 or labels.max() >= len(self.classes):
            raise UserError(f"{self.path}: its labels are damaged; make the data set again")
        return labels

    def __len__(self) -> int:
        return self.layout.count

    def __getitem__(self, index: int) -> Tensor:
        """uint8 [3, resolution, resolution], a view of [resolution, resolution, 3]. Raises UserError if damaged."""
        environment, side = self._ready(), self.resolution
        assert self._layout is not None
        try:
            with environment.begin(buffers=True) as transaction:
                data = lmdb_layout.stored(transaction, self.path, lmdb_layout.key(side, index))
                if data is None:
                    raise ValueError("is missing")
                if not self._layout.raw:
                    pixels = decode_pixels(data, side)
                elif len(data) == 3 * side**2:
                    pixels = torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(side, side, 3)
                else:
                    raise ValueError(f"has {len(data)} bytes")
        except ValueError as error:
            raise UserError(f"{self.path}: image {index} {error}, it is damaged; make the data set again") from error
        return pixels.permute(2, 0, 1)

    def _ready(self) -> lmdb.Environment:
        if self._environment is None or self._process != os.getpid():
            self.open()
        assert self._environment is not None
        return self._environment
