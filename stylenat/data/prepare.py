"""From a folder of images to an LMDB: decoded, cropped, resized and encoded on all cores, in one pass."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from registry import UserError
from stylenat.data import lmdb_images
from stylenat.data.images import Crop, Filter, Unusable, decode, find_images, square

Storage = Literal["png", "jpeg"]
AHEAD = 64
"""Images in flight: enough to keep the cores busy, few enough to bound the memory."""


@dataclass
class Prepared:
    """What became of a source. ``skipped`` maps a path to the reason."""

    count: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    unchanged: bool = False


def prepare(
    source: Path,
    out: Path,
    resolution: int,
    *,
    filter: Filter = "lanczos",
    crop: Crop = "center",
    storage: Storage = "png",
    jpeg_quality: int = 95,
    max_images: int | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Makes ``out`` from the images below ``source``, in the order of their paths.

    Images that do not decode are skipped, counted and listed. A finished ``out`` with the same settings is left alone.

    Raises:
        UserError: nothing to read, an ``out`` that is something else, no disk space.
    """
    if not source.is_dir():
        raise UserError(f"there is no folder {source}; give the folder that holds the images")
    settings: dict[str, Any] = {
        "source": str(source.resolve()), "filter": filter, "crop": crop, "storage": storage,
        "jpeg_quality": jpeg_quality if storage == "jpeg" else None, "max_images": max_images,
    }  # fmt: skip
    if out.exists():
        manifest = lmdb_images.manifest_of(out)
        wanted = settings | {"resolution": resolution}
        if manifest is None or any(manifest.get(key) != value for key, value in wanted.items()):
            raise UserError(f"{out} exists and was made otherwise; remove it or choose another name")
        return Prepared(manifest["count"], manifest["skipped"], unchanged=True)
    paths = find_images(source)
    if not paths:
        raise UserError(f"there are no images below {source}")
    result = Prepared()
    manifest = settings | {"skipped": result.skipped}

    def encoded(pool: ProcessPoolExecutor) -> Iterator[bytes]:
        waiting: list[tuple[Path, Future[bytes]]] = []
        todo = iter(paths)
        while max_images is None or result.count < max_images:
            while len(waiting) < AHEAD and (path := next(todo, None)) is not None:
                waiting.append((path, pool.submit(encode, path, resolution, crop, filter, storage, jpeg_quality)))
            if not waiting:
                break
            path, future = waiting.pop(0)
            try:
                data = future.result()
            except Unusable as error:
                result.skipped[str(path.relative_to(source))] = str(error)
            else:
                result.count += 1
                yield data
            progress(result.count + len(result.skipped), len(paths))
        for _, future in waiting:
            future.cancel()

    with ProcessPoolExecutor(workers) as pool:
        try:
            lmdb_images.write(out, resolution, encoded(pool), manifest)
        except UserError:
            if not result.count and result.skipped:
                reason = next(iter(result.skipped.values()))
                raise UserError(f"none of the {len(paths)} images below {source} is usable ({reason})") from None
            raise
    return result


def encode(path: Path, resolution: int, crop: Crop, filter: Filter, storage: Storage, jpeg_quality: int) -> bytes:
    """One image file as it is stored. Raises Unusable with the reason."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unusable(error.strerror or "unreadable") from error
    image = square(decode(data), resolution, crop, filter)
    out = io.BytesIO()
    if storage == "png":
        image.save(out, format="png")
    else:
        image.save(out, format="jpeg", quality=jpeg_quality, subsampling=0)
    return out.getvalue()
