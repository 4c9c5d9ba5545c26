"""Data set ``lmdb``: what ``tools/prepare.py`` makes, and what users of the reference code already have."""

from stylenat.data.lmdb_images import LmdbImages


class LmdbDataset(LmdbImages):
    """Images from an LMDB, this project's or of stylegan2-pytorch's layout.

    Args:
        path: the LMDB; resolution: side of its images in pixels.
    """

    def describe(self) -> str:
        return f"LMDB {self.path} at {self.resolution}x{self.resolution}"

    def prepare(self) -> None:
        self.open()
