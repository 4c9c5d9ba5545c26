"""The real set as metrics need it: its statistics, from the cache where they are, and its part of the protocol."""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from registry import UserError
from stylenat.evaluation.cache import StatisticsCache
from stylenat.evaluation.collect import Collection, Progress, Stream, collect_images, described
from stylenat.evaluation.unfinished import Unfinished
from stylenat.interfaces import Accumulator, Dataset, Metric
from stylenat.random_streams import BLOCK
from stylenat.ranks import any_of_ranks, rank


class RealSet:
    """Statistics of the first ``count`` images of a data set, gathered on first use.

    Found again in the cache by (content hash, extractor with its checksum and resize, resolution, count) and by that
    key only. A data set without a content hash is read anew in every run.
    """

    def __init__(
        self,
        dataset: Dataset,
        metrics: Sequence[Metric],
        device: torch.device,
        cache: StatisticsCache | None,
        samples: int | None,
        batch: int = BLOCK,
    ) -> None:
        self.dataset, self._metrics, self._device, self._cache = dataset, metrics, device, cache
        self._samples, self._batch = samples, batch
        self._collection: Collection | None = None
        self._pixels: str | None = None

    @property
    def used(self) -> bool:
        """Whether any metric looks at real images; where none does, the data set is left alone."""
        return any(getattr(metric, "uses_real", True) for metric in self._metrics)

    @property
    def count(self) -> int:
        """Images that are used. Raises UserError when there are fewer than asked for."""
        there = len(self.dataset)
        if self._samples is not None and self._samples > there:
            raise UserError(f"{self.dataset.describe()} has {there} images, not {self._samples}")
        return self._samples or there

    @property
    def cache(self) -> StatisticsCache | None:
        """Where something of these images can be kept; None where nothing can."""
        return None if self._content() is None else self._cache

    def key(self) -> dict[str, Any]:
        """What everything that is kept of these images depends on, as far as they go."""
        return {"content": self._content(), "resolution": self.dataset.resolution, "count": self.count}

    @contextmanager
    def in_turn(self, wait: Callable[[], object] = lambda: None) -> Iterator[None]:
        """``StatisticsCache.in_turn`` for these images; at once where nothing of them can be kept."""
        with nullcontext() if self.cache is None else self.cache.in_turn(self.key(), wait):
            yield

    def collection(self, progress: Progress | None = None, unfinished: Unfinished | None = None) -> Collection:
        """One accumulator for each metric; of a metric that does not use real images, an empty one.

        Args:
            unfinished: where vectors are kept while they are gathered; None for nowhere.
        """
        if self._collection is None:
            used = Collection(self._metrics)
            wanted = {key: _wanted_streams(used, self._metrics, key) for key in used.streams}
            if self.used:
                used_streams = {key: stream for key, stream in wanted.items() if stream.accumulators}
                self._gather(used_streams, progress, unfinished)
            self._collection = used
        return self._collection

    def protocol(self) -> dict[str, Any]:
        """What a result says of the real set; nothing where it is not used."""
        if not self.used:
            return {}
        return {
            "described": self.dataset.describe(),
            "pixels_sha256": self._pixels,
            "content": self._content(),
            "count": self.count,
            "resolution": self.dataset.resolution,
        }

    def unread(self) -> dict[str, Any] | None:
        """What the images depend on that are still to be gathered; None for none, or where it is not known."""
        return self.key() if self.used and self._collection is None and self._content() is not None else None

    def _gather(self, streams: dict[str, Stream], progress: Progress | None, unfinished: Unfinished | None) -> None:
        missing = self._missing(list(streams.values()))
        if not missing and self._pixels is not None:
            return
        if self._to_be_kept(missing):
            with self.in_turn(lambda: progress and progress(0, self.count)):
                missing = self._missing(missing)  # Another run may have just computed them.
                if self._to_be_kept(missing):
                    return self._compute(missing, progress, unfinished)
        if missing or self._pixels is None:
            self._compute(missing, progress, unfinished)

    def _to_be_kept(self, streams: Sequence[Stream]) -> bool:
        """Whether other runs find again what is computed for any of these."""
        return any(self._key(stream, *part) is not None for stream in streams for part in stream.accumulators.items())

    def _missing(self, streams: Sequence[Stream]) -> list[Stream]:
        """Fills what the cache has; returns the rest."""
        missing = []
        for stream in streams:
            there = stream.accumulators.items()
            left = stream.part([name for name, accumulator in there if not self._found(stream, name, accumulator)])
            if left.accumulators:
                missing.append(left)
        return missing

    def _compute(self, missing: Sequence[Stream], progress: Progress | None, unfinished: Unfinished | None) -> None:
        images, to_the_end = self.dataset.__getitem__, self._pixels is None
        pixels = collect_images(
            missing, images, self.count, self._device, progress, to_the_end, self._batch, unfinished
        )
        self._pixels = self._pixels or pixels
        for stream in missing:
            for name, accumulator in stream.accumulators.items():
                key = None if name in stream.failed else self._key(stream, name, accumulator)
                if key is not None and self._cache is not None and rank() == 0:
                    self._cache.save(key, accumulator.state_dict(), {"pixels_sha256": self._pixels})

    def _found(self, stream: Stream, name: str, accumulator: Accumulator) -> bool:
        """Fills the accumulator from the cache; all processes must find it there, or none takes it."""
        key = self._key(stream, name, accumulator)
        entry = None
        if self._cache is not None and key is not None:
            dim = getattr(stream.source, "dim", 0)
            # Four times what a covariance and all vectors take in float64; small sets may have a larger header.
            most = 32 * dim * (dim + self.count) + 2**20
            entry = self._cache.load(key, most, lambda *found: _must_fit(accumulator, *found))
        if entry is not None and not all(tensor.sum(dtype=torch.float64).isfinite() for tensor in entry[0].values()):
            entry = None  # An older version kept what no metric can be computed from.
        if any_of_ranks(entry is None) or entry is None:
            return False
        tensors, notes = entry
        accumulator.load_state_dict(tensors)
        self._pixels = notes["pixels_sha256"]
        return True

    def _key(self, stream: Stream, name: str, accumulator: Accumulator) -> dict[str, Any] | None:
        """What the statistics depend on; None for those that cannot be kept."""
        content = self._content()
        lasting = all(hasattr(accumulator, part) for part in ("shared_as", "state_dict", "load_state_dict"))
        if content is None or not lasting or not hasattr(stream.source, "protocol"):
            return None
        return {
            "content": content,
            "extractor": described(stream.source),
            "statistics": name,
            "resolution": self.dataset.resolution,
            "count": self.count,
        }

    def _content(self) -> str | None:
        return self.dataset.content_hash() if hasattr(self.dataset, "content_hash") else None


def _must_fit(accumulator: Accumulator, tensors: dict[str, Tensor], notes: Any) -> None:
    """Raises KeyError, TypeError, ValueError or RuntimeError for what is not a state of this accumulator's."""
    copy.deepcopy(accumulator).load_state_dict(tensors)
    if not re.fullmatch("[0-9a-f]{64}", notes["pixels_sha256"]):
        raise ValueError("the checksum of the pixels is not one")


def _wanted_streams(used: Collection, metrics: Sequence[Metric], key: str) -> Stream:
    """The stream with only those accumulators that a metric compares with generated images."""
    stream = used.streams[key]
    looking = [n for n, m in enumerate(metrics) if getattr(m, "uses_real", True) and used.failure(n) is None]
    compared = {id(used[number]) for number in looking}
    return stream.part([name for name, part in stream.accumulators.items() if id(part) in compared])
