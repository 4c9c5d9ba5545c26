"""Data set ``lfw_faces``: a hundred real faces that ship with scikit-image, for a first run without a download."""

import io
from pathlib import Path

from PIL import Image

from registry import UserError
from stylenat.data.images import square
from stylenat.data.lmdb_images import LmdbImages
from stylenat.data.lmdb_writer import write

FACES = 100
"""The first half of scikit-image's lfw_subset are faces, the rest are not."""


class LfwFaces(LmdbImages):
    """Grey 25x25 faces of Labeled Faces in the Wild, resized (Lanczos) and written to an LMDB on first use.

    Args:
        resolution: side that they are resized to.
        path: the LMDB; ``data/lfw_faces_RESOLUTION.lmdb`` by default.
    """

    def __init__(self, resolution: int, path: str | None = None) -> None:
        super().__init__(path or f"data/lfw_faces_{resolution}.lmdb", resolution)

    def describe(self) -> str:
        return f"{FACES} faces of scikit-image's lfw_subset at {self.path}, written on first use"

    @property
    def creates(self) -> Path | None:
        """The LMDB, while it is not there."""
        return None if self.path.exists() else self.path

    def __len__(self) -> int:
        return super().__len__() if self.path.exists() else FACES

    def prepare(self) -> None:
        if not self.path.exists():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"cannot make the folder {self.path.parent}: {error.strerror}") from error
            write(self.path, self.resolution, self._encoded(), {"source": "scikit-image lfw_subset", "skipped": {}})
        self.open()

    def _encoded(self):
        from skimage.data import lfw_subset

        for face in lfw_subset()[:FACES]:
            grey = Image.fromarray((face * 255).round().astype("uint8"))
            out = io.BytesIO()
            square(grey.convert("RGB"), self.resolution, "none", "lanczos").save(out, format="png")
            yield out.getvalue()
