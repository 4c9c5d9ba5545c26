"""Samples as one file: a NumPy array, or an LMDB that ``tools/evaluate.py --data`` and ``dataset.lmdb`` read."""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from registry import UserError
from stylenat.data.lmdb_writer import Writer
from stylenat.evaluation.samples import Images
from stylenat.files import disk_full, whole_file


def _drawn(images: Images, indices: Sequence[int], progress: Callable[[int], None]) -> Iterator[tuple[int, Tensor]]:
    """Each index with its image, uint8 [height, width, 3], in ascending order."""
    done = 0
    for batch, some in groupby(indices, key=images.batch_of):
        made = images.images(batch).permute(0, 2, 3, 1).cpu()
        for i in some:
            yield i, made[i - batch.start]
            done += 1
        progress(done)


def write_array(
    path: Path, images: Images, indices: Sequence[int], resolution: int, progress: Callable[[int], None]
) -> None:
    """uint8 [images, height, width, 3] in NPY format, in ascending order of the indices, written as they are made.

    Raises:
        UserError: the file exists or cannot be written. NotFinite: the generator gives NaN or infinite values.
    """
    if path.exists():
        raise UserError(f"{path} exists; choose another --out")
    drawn = _drawn(images, indices, progress)
    first = list(islice(drawn, 1))  # Without it nothing is made, such as of a generator that diverged.
    new = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(indices), resolution, resolution, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            for _, image in chain(first, drawn):
                file.write(image.contiguous().numpy().tobytes())
    except OSError as error:
        again = "; free some space and run the same command again" if disk_full(error, path.parent) else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}{again}") from error
    finally:
        if new and not path.exists():
            with suppress(OSError):
                path.parent.rmdir()


def write_lmdb(
    path: Path,
    images: Images,
    indices: Sequence[int],
    resolution: int,
    origin: Mapping[str, Any],
    progress: Callable[[int], None],
) -> None:
    """An LMDB of this project's format. What an interrupted command left is continued.

    Raises:
        UserError: it exists, cannot be written, or was begun with other images. NotFinite: as ``write_array``.
    """
    if path.exists():
        raise UserError(f"{path} exists; choose another --out")
    settings = {"samples": json.dumps({**origin, "indices": _ranges(indices)}, sort_keys=True)}
    with Writer(path, [resolution], settings) as writer:
        there = writer.progress.consumed
        for i, image in _drawn(images, indices[there:], lambda done: progress(there + done)):
            out = io.BytesIO()
            Image.fromarray(image.numpy()).save(out, format="png")
            writer.add(str(i), [out.getvalue()])
        writer.finish({"source": "samples of a generator"})


def _ranges(indices: Sequence[int]) -> list[list[int]]:
    """Ascending numbers as [first, last] of each run of consecutive ones."""
    ranges: list[list[int]] = []
    for i in indices:
        if ranges and i == ranges[-1][1] + 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    return ranges
