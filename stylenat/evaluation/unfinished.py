"""The vectors of a pass over images that is not finished: a killed evaluation goes on where they end.

They are kept in the user's cache and not in the run folder, which may have come from someone else: whoever writes the
vectors decides the result. Feeding the same vectors in the same blocks gives accumulators of the same bits.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylenat.evaluation.cache import StatisticsCache
from stylenat.random_streams import BLOCK
from stylenat.ranks import any_of_ranks, rank

if TYPE_CHECKING:
    from stylenat.evaluation.collect import Stream

EVERY = 60.0
"""Seconds of work that a kill may cost."""
PART_BYTES = 2**26
"""Vectors that are held until they are written."""
LARGEST_PART = 2**30
VECTORS_BYTES, IMAGES_BYTES = 2**31, 2**29
"""What is kept at most, of one kind of vectors (262,144 images in 2,048 dimensions) and of images themselves."""
OLDEST = 30 * 24 * 3600.0
"""Seconds after which the vectors of an evaluation that nobody continued are removed."""


class Unfinished:
    """Of one pass. Process 0 writes; all read.

    Args:
        cache: where the files are.
        key: plain values that the vectors depend on, beside what they are of.
        images: whether images themselves are kept as well, for metrics that take them; not where reading them again is
            as fast.
    """

    def __init__(self, cache: StatisticsCache, key: Mapping[str, Any], images: bool) -> None:
        self._cache, self._key, self._images = cache, key, images
        self._kept: dict[str, _Kept] = {}
        self._saved, self._full = time.monotonic(), False
        if rank() == 0:
            cache.forget(OLDEST)

    def take_up(self, streams: Sequence["Stream"], device: torch.device) -> None:
        """Feeds the streams with what an earlier process kept; ``stream.done`` says how many images these are."""
        for stream in streams:
            if self._lasts(stream):
                kept = self._kept.setdefault(stream.key, _Kept())
                while (rows := self._load(stream, kept)) is not None:
                    for block in rows.to(device).split(BLOCK):
                        stream.update(block)
                    kept.add(rows)
                    stream.done = kept.images

    def note(self, stream: "Stream", vectors: Tensor) -> None:
        """Vectors that the stream was just fed with, in its order."""
        if rank() == 0 and not self._full and self._lasts(stream):
            kept = self._kept.setdefault(stream.key, _Kept())
            if kept.bytes < (IMAGES_BYTES if stream.source is None else VECTORS_BYTES):
                kept.pending.append(vectors)

    def save_if_due(self) -> None:
        """Writes what was noted, once a minute or where it is much. To be called between blocks."""
        waiting = sum(vectors.nbytes for kept in self._kept.values() for vectors in kept.pending)
        if waiting >= PART_BYTES or (waiting and time.monotonic() - self._saved >= EVERY):
            self.save()

    def save(self) -> None:
        """Writes what was noted. Where it cannot be written, a line says so and nothing more is kept."""
        for name, kept in self._kept.items():
            if kept.pending and not self._full:
                rows = torch.cat(kept.pending).cpu()
                kept.pending.clear()
                self._full = not self._cache.save(self._named(name, kept.parts), {"rows": rows}, {"at": kept.images})
                kept.add(rows)
        self._saved = time.monotonic()

    def remove(self, names: Iterable[str]) -> None:
        """Removes what is kept of the streams of these keys: the pass is finished, and its results are there."""
        for name in names if rank() == 0 else ():
            number = 0
            while self._cache.remove(self._named(name, number)):
                number += 1

    def _lasts(self, stream: "Stream") -> bool:
        return self._images if stream.source is None else hasattr(stream.source, "protocol")

    def _named(self, name: str, number: int) -> dict[str, Any]:
        return {"unfinished": self._key, "vectors": name, "part": number}

    def _load(self, stream: "Stream", kept: "_Kept") -> Tensor | None:
        """The next part; None where there is none for one of the processes."""

        def check(tensors: dict[str, Tensor], notes: Any) -> None:
            if notes["at"] != kept.images or not len(tensors["rows"]):
                raise ValueError("it does not follow the part before it")

        entry = self._cache.load(self._named(stream.key, kept.parts), LARGEST_PART, check)
        return None if any_of_ranks(entry is None) or entry is None else entry[0]["rows"]


class _Kept:
    """Of one kind of vectors: what is in files, and what waits to be written."""

    def __init__(self) -> None:
        self.parts = self.images = self.bytes = 0
        self.pending: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        self.parts, self.images, self.bytes = self.parts + 1, self.images + len(rows), self.bytes + rows.nbytes
