"""Data set ``folder``: image files as they lie, decoded on every read. For small jobs."""

import os
from pathlib import Path

from torch import Tensor

from plugins.datasets.image_files import training_pixels, warn_of_ignored
from registry import UserError
from stylenat.data.folders import FolderSource
from stylenat.data.identity import digest, spread
from stylenat.data.ignored import none_below
from stylenat.data.images import Crop, Filter, Fit, Unusable, advice, check, refuse_contradiction
from stylenat.data.items import Item
from stylenat.data.sources import read


class Folder:
    """Images below a folder, in the order of their paths, cropped and resized as ``tools/prepare.py`` does.

    Args:
        path: the folder; resolution: side that images are resized to.
        crop: ``center``, or ``none``: images that are not square are an error; filter: of the resize.
        keep_profiles: do not convert embedded colour profiles to sRGB.
        fit: of images that are not square: ``crop`` to the centre, ``pad`` with black, or ``stretch``.
        follow_links: enter linked folders, too, each folder once.
    """

    def __init__(
        self,
        path: str,
        resolution: int,
        crop: Crop = "center",
        filter: Filter = "lanczos",
        keep_profiles: bool = False,
        fit: Fit = "crop",
        follow_links: bool = False,
    ) -> None:
        refuse_contradiction(crop, fit)
        self.path, self.resolution = Path(path), resolution
        self.crop, self.filter, self.keep_profiles, self.fit = crop, filter, keep_profiles, fit
        self.follow_links = follow_links
        self._files: list[Path] | None = None

    def describe(self) -> str:
        return f"folder {self.path} resized to {self.resolution}x{self.resolution}"

    def prepare(self) -> None:
        if not self.path.is_dir():
            raise UserError(f"there is no folder {self.path}; bind dataset.folder.path to the folder of images")
        source = FolderSource(self.path, self.follow_links)
        files = [self.path / item.name for item in source]
        if not files:
            raise UserError(none_below(self.path, source.ignored))
        for path in files:  # Header errors are better reported now than during training.
            try:
                check(path, self.crop)
            except Unusable as error:
                raise UserError(f"{path}: {error}; {advice(error)}") from error
        warn_of_ignored(self.path, source.ignored)
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
        return training_pixels(data, self.path, self.resolution, self.crop, self.filter, self.keep_profiles, self.fit)

    def __len__(self) -> int:
        return len(self._found())

    def __getitem__(self, index: int) -> Tensor:
        path = self._found()[index]
        try:
            return self._pixels(read(Item(str(path), ("file", str(path)), index)))
        except Unusable as error:
            raise UserError(f"{path}: {error}; {advice(error)}") from error
