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
from pathlib import Path
from typing import Any

import PIL

from registry import UserError
from stylenat.data.archives import Spoilt
from stylenat.data.classes import Classes
from stylenat.data.formats import Unusable
from stylenat.data.ignored import none_below
from stylenat.data.images import (
    Crop,
    Filter,
    Fit,
    NotSquare,
    Storage,
    encode,
    enlarges,
    read_image,
    refuse_contradiction,
    square,
)
from stylenat.data.items import Item
from stylenat.data.lmdb_layout import looks_like_lmdb, open_layout
from stylenat.data.lmdb_progress import chained, differing
from stylenat.data.lmdb_unnumbered import UnnumberedLmdbSource
from stylenat.data.lmdb_writer import Writer
from stylenat.data.sources import LmdbSource, open_source, read

CHUNK = 8
"""Images that a worker takes at once: a message to it costs as much as a small image."""
AHEAD = 3
"""Chunks in flight for each worker: enough to keep the cores busy, few enough to bound the memory."""
BYTES_AHEAD = 2**27
"""And at most this many bytes for each worker, of images as they come and as they are stored."""
UNCLASSED = "in no folder, hence without a class"


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
    keep_profiles: bool
    fit: Fit = "crop"

    def cost(self, item: Item) -> int:
        """Bytes that an item may hold while it is in flight."""
        given = len(item.place[1]) if item.place[0] == "bytes" else 0
        return given + sum(3 * side**2 for side in self.resolutions)


@dataclass(frozen=True)
class Made:
    """One image, as stored at each resolution. ``noted``: what the writer counts of it."""

    records: tuple[bytes, ...]
    noted: tuple[str, ...]


def prepare(
    source: Path,
    out: Path,
    resolutions: int | Sequence[int],
    *,
    filter: Filter = "lanczos",
    crop: Crop = "center",
    fit: Fit = "crop",
    storage: Storage = "png",
    jpeg_quality: int = 95,
    max_images: int | None = None,
    labels: bool = False,
    keep_profiles: bool = False,
    follow_links: bool = False,
    workers: int = 2,
    progress: Callable[[int, int, int], None] = lambda images, position, size: None,
) -> Prepared:
    """Makes ``out`` from the images of ``source``, in the source's order; or goes on where an earlier call stopped.

    Images that cannot be used are skipped, counted and listed. A finished ``out`` with the same settings is left
    alone. Memory is bounded by a few images a worker, whatever the size of the source.

    Args:
        resolutions: all are made in the one pass, each from the original.
        labels: store each image's class: that of StyleGAN's ``dataset.json`` at the root of the source, else the name
            of the folder that holds it; of an LMDB, its class there.
        fit: what becomes of images that are not square, see ``square``.
        keep_profiles: do not convert embedded colour profiles to sRGB.
        follow_links: enter linked folders, too, each folder once.
        workers: processes; 1 works in this one.
        progress: called with images seen, and the source's position and size in units of its own.

    Raises:
        UserError: nothing to read, an image that is not square where nothing is to be cropped, labels that are
            ambiguous or damaged, an ``out`` that is something else, a damaged or vanished source, no disk space (what
            is finished stays, but of an archive whose checksum is wrong).
    """
    resolutions = (resolutions,) if isinstance(resolutions, int) else tuple(sorted(set(resolutions)))
    settings: dict[str, Any] = {
        "source": str(source.resolve()), "resolutions": list(resolutions), "filter": filter, "crop": crop,
        "storage": storage, "jpeg_quality": jpeg_quality if storage == "jpeg" else None, "max_images": max_images,
        "labels": labels, "keep_profiles": keep_profiles, "fit": fit, "follow_links": follow_links,
    }  # fmt: skip
    refuse_contradiction(crop, fit)
    if os.path.lexists(out):
        return _finished(out, settings)
    items = open_source(source, max(resolutions), follow_links)
    if labels and isinstance(items, LmdbSource) and not items.classes:
        raise UserError(f"{source} was made without --labels and has no classes; leave out --labels")
    if labels and isinstance(items, UnnumberedLmdbSource):
        raise UserError(f"{source} has keys of no layout that stores classes; leave out --labels")
    classes = Classes(items, source) if labels else None
    settings["labels_from"] = classes.origin if classes else None
    recipe = Recipe(resolutions, crop, filter, storage, jpeg_quality, keep_profiles, fit)
    listing = iter(items)
    first = next(listing, None)
    if first is None:
        raise UserError(none_below(source, items.ignored))

    with Writer(out, resolutions, settings) as writer, _discarded_if_spoilt(writer), _pool(workers) as pool:
        if writer.whole is not None:
            manifest = writer.finish({})
            return Prepared(manifest["count"], manifest["skipped"], continued=manifest["count"], manifest=manifest)
        state = writer.progress
        continued = state.consumed
        if classes and not continued:
            writer.number_classes(classes.names)
        todo = _chain(first, listing)
        if continued and not _passes(todo, continued, state.last, state.names):
            raise UserError(f"{source} has changed since {writer.partial} was started; remove that to start again")
        for item, made in _made(todo, recipe, pool, workers):
            if max_images is not None and state.count >= max_images:
                break
            if isinstance(made, NotSquare):
                if state.count == 0:
                    writer.discard()
                raise UserError(
                    f"{item.name} is {made}: leave out --crop none (--fit chooses crop, pad or stretch), or remove it "
                    f"from {source} and give the same command"
                )
            label = classes[item] if classes else None
            if isinstance(made, Made) and classes and label is None:
                made = Unusable(UNCLASSED)
            if isinstance(made, Made):
                writer.add(item.name, made.records, label, made.noted)
            else:
                writer.skip(item.name, str(made))
            progress(state.consumed, item.position, items.size)
        if state.count == 0:
            writer.discard()
            raise UserError(f"none of the {state.consumed} images in {source} is usable ({item.name}: {made})")
        ignored = {"ignored": items.ignored.total(), "ignored_by": dict(items.ignored)}
        manifest = writer.finish({"source_kind": items.kind, "pillow": PIL.__version__} | ignored)
    return Prepared(manifest["count"], manifest["skipped"], continued=continued, manifest=manifest)


def _finished(out: Path, settings: dict[str, Any]) -> Prepared:
    if not out.exists() or not looks_like_lmdb(out):
        raise UserError(f"{out} exists and is no data set; choose another name")
    _, layout = open_layout(out)
    manifest = layout.manifest
    if manifest is None:
        raise UserError(f"{out} exists and was not written by this project; choose another name")
    # Format 1 knew one resolution and no labels; what earlier versions made is left as it is, whatever its profiles.
    earlier = {
        "resolutions": [manifest.get("resolution")], "labels": False, "keep_profiles": settings["keep_profiles"],
        "fit": "crop", "follow_links": False,
    }  # fmt: skip
    if other := differing(earlier | manifest, settings):
        raise UserError(f"{out} exists, made with {other}; remove it or choose another name")
    return Prepared(layout.count, manifest.get("skipped", {}), unchanged=True, manifest=manifest)


def convert(items: list[Item], recipe: Recipe) -> list[Made | Unusable]:
    """Each item as it is stored, or the reason why it is not."""
    made: list[Made | Unusable] = []
    for item in items:
        try:
            decoded = read_image(read(item), recipe.keep_profiles)
            image = decoded.image
            squares = (square(image, side, recipe.crop, recipe.filter, recipe.fit) for side in recipe.resolutions)
            records = tuple(encode(each, recipe.storage, recipe.jpeg_quality) for each in squares)
            enlarged = ("enlarged",) * enlarges(image, max(recipe.resolutions), recipe.fit)
            made.append(Made(records, decoded.notes + enlarged))
        except Unusable as error:
            made.append(error)
    return made


def _made(
    items: Iterator[Item], recipe: Recipe, pool: ProcessPoolExecutor | None, workers: int
) -> Iterator[tuple[Item, Made | Unusable]]:
    """Items and what became of them, in order."""
    if pool is None:
        for item in items:
            yield item, convert([item], recipe)[0]
        return
    waiting: deque[tuple[list[Item], int, Future[list[Made | Unusable]]]] = deque()
    chunks, held = _chunks(items, recipe), 0
    following = next(chunks, None)
    while waiting or following:
        while following and len(waiting) < AHEAD * workers:
            chunk, cost = following
            if waiting and held + cost > BYTES_AHEAD * workers:
                break
            waiting.append((chunk, cost, pool.submit(convert, chunk, recipe)))
            held += cost
            following = next(chunks, None)
        chunk, cost, future = waiting.popleft()
        try:
            yield from zip(chunk, future.result(), strict=True)
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, possibly out of memory or by a source that was truncated; finished work "
                "is kept: run the same command again to continue, with fewer --workers"
            ) from error
        held -= cost


def _chunks(items: Iterator[Item], recipe: Recipe) -> Iterator[tuple[list[Item], int]]:
    """Items that a worker takes at once and their cost: CHUNK of them, or fewer that are large."""
    chunk: list[Item] = []
    total = 0
    for item in items:
        cost = recipe.cost(item)
        if chunk and (len(chunk) == CHUNK or total + cost > BYTES_AHEAD // AHEAD):
            yield chunk, total
            chunk, total = [], 0
        chunk.append(item)
        total += cost
    if chunk:
        yield chunk, total


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
    try:
        pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker)
    except OSError as error:  # Its locks are semaphores, which lie in shared memory.
        raise UserError(
            f"cannot start worker processes: {error.strerror} (is /dev/shm writable?); use --workers 1"
        ) from error
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
