"""From any source of images to an LMDB: decoded, cropped, resized and encoded on all cores, in one pass."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import PIL

from registry import UserError
from stylenat.data.images import NOT_SQUARE, Crop, Filter, Storage, Unusable, decode, encode, square
from stylenat.data.lmdb_layout import looks_like_lmdb, open_layout
from stylenat.data.lmdb_writer import Writer, chained, differing
from stylenat.data.sources import Item, LmdbSource, Spoilt, open_source, read

CHUNK = 8
"""Images that a worker takes at once: a message to it costs as much as a small image."""
NO_CLASS = ("", ".", "..")
"""Not names of folders; ``..`` would lead an export out of its own."""
AHEAD = 3
"""Chunks in flight for each worker: enough to keep the cores busy, few enough to bound the memory."""


@dataclass
class Prepared:
    """What became of a source. ``skipped`` maps a name to the reason; ``continued`` counts items of earlier runs."""

    count: int
    skipped: dict[str, str] = field(default_factory=dict)
    unchanged: bool = False
    continued: int = 0
    manifest: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """How every image is made."""

    resolutions: tuple[int, ...]
    crop: Crop
    filter: Filter
    storage: Storage
    jpeg_quality: int


@dataclass(frozen=True)
class Made:
    """One image, as stored at each resolution. ``enlarged``: it was smaller than one of them."""

    records: tuple[bytes, ...]
    enlarged: bool


def prepare(
    source: Path,
    out: Path,
    resolutions: int | Sequence[int],
    *,
    filter: Filter = "lanczos",
    crop: Crop = "center",
    storage: Storage = "png",
    jpeg_quality: int = 95,
    max_images: int | None = None,
    labels: bool = False,
    workers: int = 2,
    progress: Callable[[int, int, int], None] = lambda images, position, size: None,
) -> Prepared:
    """Makes ``out`` from the images of ``source``, in the source's order; or goes on where an earlier call stopped.

    Images that cannot be used are skipped, counted and listed. A finished ``out`` with the same settings is left
    alone. Memory is bounded by a few images a worker, whatever the size of the source.

    Args:
        resolutions: all are made in the one pass, each from the original.
        labels: store each image's class, which is the name of the folder that holds it, or its class in an LMDB.
        workers: processes; 1 works in this one.
        progress: called with images seen, and the source's position and size in units of its own.

    Raises:
        UserError: nothing to read, an image that is not square where nothing is to be cropped, an ``out`` that is
            something else, a damaged or vanished source, no disk space (what is finished stays, but of an archive
            whose checksum is wrong).
    """
    resolutions = (resolutions,) if isinstance(resolutions, int) else tuple(sorted(set(resolutions)))
    settings: dict[str, Any] = {
        "source": str(source.resolve()), "resolutions": list(resolutions), "filter": filter, "crop": crop,
        "storage": storage, "jpeg_quality": jpeg_quality if storage == "jpeg" else None, "max_images": max_images,
        "labels": labels,
    }  # fmt: skip
    if os.path.lexists(out):
        return _finished(out, settings)
    items = open_source(source, max(resolutions))
    if labels and isinstance(items, LmdbSource) and not items.classes:
        raise UserError(f"{source} was made without --labels and has no classes; leave out --labels")
    recipe = Recipe(resolutions, crop, filter, storage, jpeg_quality)
    listing = iter(items)
    first = next(listing, None)
    if first is None:
        raise UserError(f"there are no images below {source}")

    with Writer(out, resolutions, settings) as writer, _discarded_if_spoilt(writer), _pool(workers) as pool:
        if writer.whole is not None:
            manifest = writer.finish({})
            return Prepared(manifest["count"], manifest["skipped"], continued=manifest["count"], manifest=manifest)
        state = writer.progress
        continued = state.consumed
        todo = _chain(first, listing)
        if continued and not _passes(todo, continued, state.last, state.names):
            raise UserError(f"{source} has changed since {writer.partial} was begun; remove that to begin anew")
        for item, made in _made(todo, recipe, pool, workers):
            if max_images is not None and state.count >= max_images:
                break
            if isinstance(made, str) and made.startswith(NOT_SQUARE):
                if state.count == 0:
                    writer.discard()
                raise UserError(
                    f"{item.name} is {made}: take --crop center, or take it out of {source} and give the same command"
                )
            label = (item.label or item.name.rpartition("/")[0].rpartition("/")[2]) if labels else None
            if isinstance(made, Made) and label not in NO_CLASS:
                writer.add(item.name, made.records, label, made.enlarged)
            else:
                writer.skip(item.name, made if isinstance(made, str) else "in no folder, hence without a class")
            progress(state.consumed, item.position, items.size)
        if state.count == 0:
            writer.discard()
            reason = made if isinstance(made, str) else "in no folder, hence without a class"
            raise UserError(f"none of the {state.consumed} images in {source} is usable ({item.name}: {reason})")
        manifest = writer.finish({"source_kind": items.kind, "ignored": items.ignored, "pillow": PIL.__version__})
    return Prepared(manifest["count"], manifest["skipped"], continued=continued, manifest=manifest)


def _finished(out: Path, settings: dict[str, Any]) -> Prepared:
    if not out.exists() or not looks_like_lmdb(out):
        raise UserError(f"{out} exists and is no data set; choose another name")
    _, layout = open_layout(out)
    manifest = layout.manifest
    if manifest is None:
        raise UserError(f"{out} exists and is not of this project's making; choose another name")
    # Format 1 knew one resolution and no labels.
    made = {"resolutions": [manifest.get("resolution")], "labels": False} | manifest
    if other := differing(made, settings):
        raise UserError(f"{out} exists, made with {other}; remove it or choose another name")
    return Prepared(manifest["count"], manifest["skipped"], unchanged=True, manifest=manifest)


def convert(items: list[Item], recipe: Recipe) -> list[Made | str]:
    """Each item as it is stored, or the reason why it is not."""
    made: list[Made | str] = []
    for item in items:
        try:
            image = decode(read(item))
            records = tuple(
                encode(square(image, resolution, recipe.crop, recipe.filter), recipe.storage, recipe.jpeg_quality)
                for resolution in recipe.resolutions
            )
            made.append(Made(records, min(image.size) < max(recipe.resolutions)))
        except Unusable as error:
            made.append(str(error))
    return made


def _made(
    items: Iterator[Item], recipe: Recipe, pool: ProcessPoolExecutor | None, workers: int
) -> Iterator[tuple[Item, Made | str]]:
    """Items and what became of them, in order."""
    if pool is None:
        for item in items:
            yield item, convert([item], recipe)[0]
        return
    waiting: deque[tuple[list[Item], Future[list[Made | str]]]] = deque()
    more = True
    while waiting or more:
        while more and len(waiting) < AHEAD * workers:
            chunk = list(islice(items, CHUNK))
            more = bool(chunk)
            if chunk:
                waiting.append((chunk, pool.submit(convert, chunk, recipe)))
        if waiting:
            chunk, future = waiting.popleft()
            try:
                yield from zip(chunk, future.result(), strict=True)
            except BrokenProcessPool as error:
                raise UserError(
                    "a worker process was killed, perhaps for want of memory; what is finished is kept: give the same "
                    "command to go on, with fewer --workers"
                ) from error


@contextmanager
def _discarded_if_spoilt(writer: Writer) -> Iterator[None]:
    try:
        yield
    except Spoilt:
        writer.discard()
        raise


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    if workers == 1:
        yield None
        return
    # Spawned, not forked: a fork would inherit the writer's lock and outlive a killed parent with it.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker)
    try:
        # All start with the first task. A Ctrl-C while they do so is the parent's, too.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pool.submit(os.getpid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides when to stop.
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _passes(items: Iterator[Item], count: int, last: str, names: str) -> bool:
    """Takes the first ``count`` items; whether they are those of which an earlier call kept the account."""
    chain, name = "", ""
    for _ in range(count):
        if (item := next(items, None)) is None:
            return False
        name = item.name
        chain = chained(chain, name)
    return name == last and names in ("", chain)


def _chain(first: Item, rest: Iterator[Item]) -> Iterator[Item]:
    yield first
    yield from rest
