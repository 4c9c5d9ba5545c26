"""Data set ``folder``: image files as they lie, decoded on every read. For small jobs."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from registry import UserError
from stylenat.data.identity import digest, spread
from stylenat.data.images import Crop, Filter, Unusable, advice, check, decode, find_images, square


class Folder:
    """Images below a folder, in the order of their paths, cropped and resized as ``tools/prepare.py`` does.

    Args:
        path: the folder; resolution: side that images are resized to.
        crop: ``center`` or ``none``; filter: of the resize.
    """

    def __init__(self, path: str, resolution: int, crop: Crop = "center", filter: Filter = "lanczos") -> None:
        self.path, self.resolution = Path(path), resolution
        self.crop, self.filter = crop, filter
        self._files: list[Path] | None = None

    def describe(self) -> str:
        return f"folder {self.path} resized to {self.resolution}x{self.resolution}"

    def prepare(self) -> None:
        if not self.path.is_dir():
            raise UserError(f"there is no folder {self.path}; bind dataset.folder.path to the folder of images")
        files = find_images(self.path)
        if not files:
            raise UserError(f"there are no images below {self.path}")
        for path in files:  # What a header tells is better known now than amid training.
            try:
                check(path, self.crop)
            except Unusable as error:
                raise UserError(f"{path}: {error}; {advice(error)}") from error
        self._files = files

    def _found(self) -> list[Path]:
        if self._files is None:
            self.prepare()
        assert self._files is not None
        return self._files

    def identity(self) -> dict[str, str]:
        """Digests of all files' names and sizes, and of the bytes of some."""
        files = self._found()
        names = (f"{path.relative_to(self.path)} {path.stat().st_size}" for path in files)
        return {
            "names": digest(os.fsencode(name) for name in names),
            "bytes": digest(files[i].read_bytes() for i in spread(len(files))),
        }

    def __len__(self) -> int:
        return len(self._found())

    def __getitem__(self, index: int) -> Tensor:
        path = self._found()[index]
        try:
            image = square(decode(path.read_bytes()), self.resolution, self.crop, self.filter)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        except Unusable as error:
            raise UserError(f"{path}: {error}; {advice(error)}") from error
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
