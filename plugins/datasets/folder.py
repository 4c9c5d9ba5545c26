"""Data set ``folder``: image files as they lie, decoded on every read. For small jobs."""

import os
from pathlib import Path

from torch import Tensor

from plugins.datasets.image_files import training_pixels
from registry import UserError
from stylenat.data.identity import digest, spread
from stylenat.data.images import Crop, Filter, Unusable, advice, check, find_images
from stylenat.data.items import Item
from stylenat.data.sources import read


class Folder:
    """Images below a folder, in the order of their paths, cropped and resized as ``tools/prepare.py`` does.

    Args:
        path: the folder; resolution: side that images are resized to.
        crop: ``center`` or ``none``; filter: of the resize.
        keep_profiles: do not convert embedded colour profiles to sRGB.
    """

    def __init__(
        self, path: str, resolution: int, crop: Crop = "center", filter: Filter = "lanczos", keep_profiles: bool = False
    ) -> None:
        self.path, self.resolution = Path(path), resolution
        self.crop, self.filter, self.keep_profiles = crop, filter, keep_profiles
        self._files: list[Path] | None = None

    def describe(self) -> str:
        return f"folder {self.path} resized to {self.resolution}x{self.resolution}"

    def prepare(self) -> None:
        if not self.path.is_dir():
            raise UserError(f"there is no folder {self.path}; bind dataset.folder.path to the folder of images")
        files = find_images(self.path)
        if not files:
            raise UserError(f"there are no images below {self.path}")
        for path in files:  # Header errors are better reported now than during training.
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

    def _pixels(self, data: bytes) -> Tensor:
        return training_pixels(data, self.path, self.resolution, self.crop, self.filter, self.keep_profiles)

    def __len__(self) -> int:
        return len(self._found())

    def __getitem__(self, index: int) -> Tensor:
        path = self._found()[index]
        try:
            return self._pixels(read(Item(str(path), ("file", str(path)), index)))
        except Unusable as error:
            raise UserError(f"{path}: {error}; {advice(error)}") from error
