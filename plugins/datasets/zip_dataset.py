"""Data set ``zip``: the images in a zip as they lie, decoded on every read. For small jobs."""

import zipfile
from pathlib import Path

from torch import Tensor

from plugins.datasets.image_files import training_pixels, warn_of_ignored
from registry import UserError
from stylenat.data.archives import ZipSource, open_in_zip
from stylenat.data.identity import digest
from stylenat.data.ignored import none_below
from stylenat.data.images import Crop, Filter, Fit, Unusable, advice, check, refuse_contradiction
from stylenat.data.items import Item
from stylenat.data.sources import open_source, read


class Zip:
    """Images in a zip, in the order of their names, cropped and resized as ``tools/prepare.py`` does.

    Args:
        path: the zip; resolution: side that images are resized to.
        crop: ``center``, or ``none``: images that are not square are an error; filter: of the resize.
        keep_profiles: do not convert embedded colour profiles to sRGB.
        fit: of images that are not square: ``crop`` to the centre, ``pad`` with black, or ``stretch``.
    """

    def __init__(
        self,
        path: str,
        resolution: int,
        crop: Crop = "center",
        filter: Filter = "lanczos",
        keep_profiles: bool = False,
        fit: Fit = "crop",
    ) -> None:
        refuse_contradiction(crop, fit)
        self.path, self.resolution = Path(path), resolution
        self.crop, self.filter, self.keep_profiles, self.fit = crop, filter, keep_profiles, fit
        self._items: list[Item] | None = None

    def describe(self) -> str:
        return f"zip {self.path} resized to {self.resolution}x{self.resolution}"

    def prepare(self) -> None:
        source = open_source(self.path, self.resolution)
        if not isinstance(source, ZipSource):
            raise UserError(f"{self.path} is not a zip; bind dataset.zip.path to one, or prepare it: tools/prepare.py")
        items = list(source)
        if not items:
            raise UserError(none_below(self.path, source.ignored))
        for item in items:  # Header errors are better reported now than during training.
            try:
                with open_in_zip(item) as file:
                    check(file, self.crop)
            except Unusable as error:
                raise self._refused(item, error) from error
        warn_of_ignored(self.path, source.ignored)
        self._items = items

    def _found(self) -> list[Item]:
        if self._items is None:
            self.prepare()
        assert self._items is not None
        return self._items

    def identity(self) -> dict[str, str]:
        """A digest of all members' names, sizes and CRCs, which the zip's directory holds."""
        with zipfile.ZipFile(self.path) as archive:
            members = (f"{m.filename} {m.file_size} {m.CRC}" for m in archive.infolist())
            return {"members": digest(member.encode(errors="backslashreplace") for member in members)}

    def _pixels(self, data: bytes) -> Tensor:
        return training_pixels(data, self.path, self.resolution, self.crop, self.filter, self.keep_profiles, self.fit)

    def __len__(self) -> int:
        return len(self._found())

    def __getitem__(self, index: int) -> Tensor:
        item = self._found()[index]
        try:
            return self._pixels(read(item))
        except Unusable as error:
            raise self._refused(item, error) from error

    def _refused(self, item: Item, error: Unusable) -> UserError:
        return UserError(f"{self.path}: {item.name}: {error}; {advice(error)}")
