"""A folder of samples: a PNG each, written as they are made in bounded memory, and a note of what they are of."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from registry import UserError
from stylenat.files import disk_full, partial, read_bounded, whole_file
from stylenat.grids import image_grid, save_image, save_png

NOTE, NOTE_BYTES, FORMAT_VERSION = "samples.json", 2**16, 1
ARRAY = "samples.npy"
"""All images in one file, instead of a file for each."""
GRID = 64
"""Images in the grid, the first ones."""
WRITERS = 4
"""Threads that encode: zlib runs outside of Python's lock, so a GPU does not wait for it."""


class Images(Protocol):
    """Images by number, such as a ``stylenat.sampling.Sampler``."""

    def batch_of(self, index: int) -> range:
        """The numbers that are made at once with this one."""

    def images(self, batch: range) -> Tensor:
        """uint8 [len(batch), 3, resolution, resolution]. Raises NotFinite."""


class SampleFolder:
    """Samples of one network: ``seed-000003.png`` is sample number 3.

    Args:
        folder: made with the first image.
        origin: what all images of the folder must share, plain values by name.
        kind: ``png``, or ``webp`` (lossless).
        stem: how the names of the files begin.

    Raises:
        UserError: the folder has images of another origin or of none that is known, or holds something else.
    """

    def __init__(self, folder: Path, origin: Mapping[str, Any], kind: str = "png", stem: str = "seed") -> None:
        self.kind, self.stem = kind, stem
        self.folder, self._note = folder, {"format_version": FORMAT_VERSION, **origin}
        noted = _noted(folder)
        if noted is None and any(folder.glob(f"{stem}-*.{kind}")):
            raise UserError(f"{folder} has images but no {NOTE}, so their origin is unknown; choose another --out")
        if noted is None and folder.is_dir() and set(folder.iterdir()) - self._begun():
            raise UserError(
                f"{folder} is not empty and has no {NOTE}, so it holds something else; choose another --out"
            )
        names = self._note | noted if noted is not None else ()  # Of either: what is not said is another value, too.
        other = [name for name in names if noted.get(name) != self._note.get(name)]
        if other:
            raise UserError(f"{folder} has images of another {' and '.join(other)} ({NOTE}); choose another --out")

    def _begun(self) -> set[Path]:
        """What a command that was killed before its note was complete leaves; the next one writes it anew."""
        return {partial(self.folder / name) for name in (NOTE, ARRAY)}

    def path(self, index: int) -> Path:
        return self.folder / f"{self.stem}-{index:06d}.{self.kind}"

    def missing(self, indices: Sequence[int]) -> list[int]:
        """Those that have no file yet, in ascending order. A file is complete: it is written whole or not at all."""
        there = {path.name for path in self.folder.glob(f"{self.stem}-*.{self.kind}")}
        return sorted(i for i in indices if self.path(i).name not in there)

    def write(self, sampler: Images, indices: Sequence[int], progress: Callable[[int], None]) -> None:
        """Makes and writes these samples.

        Args:
            indices: distinct and ascending.
            progress: called with the number of images made so far.

        Raises:
            NotFinite: the generator gives NaN or infinite values. UserError: an image cannot be written.
        """
        done = 0
        writing: list[Future[None]] = []
        with ThreadPoolExecutor(WRITERS) as pool:
            for batch, some in groupby(indices, key=sampler.batch_of):
                images = sampler.images(batch).cpu()
                if not done:
                    self._begin()
                self._wait(writing)  # At most two batches are in memory.
                writing = [pool.submit(save_image, self.path(i), images[i - batch.start]) for i in some]
                done += len(writing)
                progress(done)
            self._wait(writing)

    def write_grid(self, indices: Sequence[int], resolution: int) -> None:
        """``grid.png`` of these samples, which have been written.

        Raises:
            UserError: a file of the folder is not such an image, or the grid cannot be written.
        """
        images = torch.stack([_read(self.path(i), resolution) for i in indices])
        self.write_grid_of(images)

    def write_grid_of(self, images: Tensor) -> None:
        """``grid.png`` of uint8 [count, 3, side, side]. Raises UserError where it cannot be written."""
        with self._writing():
            save_png(self.folder / "grid.png", image_grid(images))

    def write_note(self) -> None:
        """The folder, and the note of what its images are of. ``write`` does this too."""
        self._begin()

    def _begin(self) -> None:
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self.folder / NOTE) as file:
                file.write(json.dumps(self._note, indent=2).encode() + b"\n")

    def _wait(self, files: Sequence[Future[None]]) -> None:
        with self._writing():
            for file in files:
                file.result()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            again = "; free some space and run the same command again" if disk_full(error, self.folder) else ""
            raise UserError(f"cannot write to {self.folder}: {error.strerror or error}{again}") from error


def _noted(folder: Path) -> dict[str, Any] | None:
    """What the folder's note says; None where there is no note. Raises UserError for what is not one."""
    try:
        noted = json.loads(read_bounded(folder / NOTE, NOTE_BYTES))
        if not isinstance(noted, dict):
            raise ValueError("it holds no names")
        return noted
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder / NOTE} cannot be read ({error}); choose another --out") from error


def _read(path: Path, resolution: int) -> Tensor:
    """uint8 [3, resolution, resolution] of a file. Raises UserError when it is not such an image."""
    try:
        with Image.open(path, formats=["PNG", "WEBP"]) as image:
            if image.size != (resolution, resolution):
                raise ValueError(f"it is {image.width}x{image.height}")
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path} is not an image of {resolution}x{resolution} ({error}); remove it") from error
