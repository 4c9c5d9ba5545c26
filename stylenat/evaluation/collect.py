"""One pass over a set of images for all metrics: each embedding once a block, blocks shared among processes.

Images are made and summed in fixed blocks of 16 indices. Every process computes its blocks' vectors, all hear all of
them in block order, so that one, two and four processes end with the same bits.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stylenat.interfaces import Accumulator, Features, Metric, Sampler, Walk
from stylenat.ranks import gathered, rank, world_size
from stylenat.training.random_streams import BLOCK

Progress = Callable[[int, int], None]
"""Told (images done, images in all) after each round of blocks."""


class Stream:
    """The accumulators of one need: the images themselves, an embedding, or a walk."""

    def __init__(self, source: Features | Walk | None) -> None:
        self.source = source
        self.accumulators: dict[str, Accumulator] = {}

    @property
    def of_generator(self) -> bool:
        """Whether its vectors come from the generator rather than from images."""
        return hasattr(self.source, "along")

    def wants(self, start: int) -> bool:
        """Whether an accumulator still takes the images from this index on."""
        limits = [getattr(accumulator, "limit", None) for accumulator in self.accumulators.values()]
        return any(limit is None or start < limit for limit in limits)

    def update(self, vectors: Tensor) -> None:
        for accumulator in self.accumulators.values():
            accumulator.update(vectors)


class Collection:
    """What some metrics collect of one set of images; metrics that need the same share it."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.streams: dict[str, Stream] = {}
        self._accumulators: list[Accumulator] = []
        for number, metric in enumerate(metrics):
            needs, accumulator = getattr(metric, "needs", None), metric.accumulator()
            stream = self.streams.setdefault(identity(needs), Stream(needs))
            name = getattr(accumulator, "shared_as", None) or f"metric {number}"
            self._accumulators.append(stream.accumulators.setdefault(name, accumulator))

    def __getitem__(self, number: int) -> Accumulator:
        """What the metric of that number collected."""
        return self._accumulators[number]


def identity(needs: Features | Walk | None) -> str:
    """Equal for needs that give equal vectors: their protocol, or the object itself where it has none."""
    if needs is None:
        return "images"
    return json.dumps(needs.protocol(), sort_keys=True) if hasattr(needs, "protocol") else f"object {id(needs)}"


def described(needs: Features | Walk | None) -> Mapping[str, Any] | None:
    """What a result's protocol says of its metric's needs."""
    if needs is None:
        return None
    if hasattr(needs, "protocol"):
        return needs.protocol()
    kind = type(needs)
    return {"name": needs.name, "class": f"{kind.__module__}.{kind.__qualname__}"}


def collect_generated(
    metrics: Sequence[Metric],
    generate: Sampler | Callable[[int, int], Tensor],
    count: int,
    device: torch.device,
    progress: Progress | None = None,
) -> Collection:
    """Of the samples 0 to ``count``. Blocks are made whole: what lies beyond ``count`` is left out."""
    found = Collection(metrics)
    streams = list(found.streams.values())
    with torch.no_grad():
        for first in range(0, blocks_of(count), world_size()):
            start = BLOCK * (first + rank())  # Beyond the end, a block that nobody uses.
            of_images = [s for s in streams if not s.of_generator]
            images = generate(start, BLOCK).to(device) if any(s.wants(BLOCK * first) for s in of_images) else None
            for stream in streams:
                if stream.of_generator:
                    vectors = stream.source.along(generate, start, BLOCK)
                elif stream.wants(BLOCK * first):
                    vectors = images if stream.source is None else stream.source(images)
                else:
                    continue
                _share(stream, vectors, first, count)
            if progress:
                progress(min(count, BLOCK * (first + world_size())), count)
    return found


def collect_images(
    streams: Sequence[Stream],
    image: Callable[[int], Tensor],
    count: int,
    device: torch.device,
    progress: Progress | None = None,
    to_the_end: bool = True,
) -> str | None:
    """Feeds the streams with the images of indices 0 to ``count``.

    Args:
        image: index to uint8 [3, height, width].
        to_the_end: read all images, for their checksum, also when no stream wants more.

    Returns:
        The SHA-256 of all pixels: of the digests of blocks of 16, in order. None where not all were read.
    """
    whole = hashlib.sha256()
    with torch.no_grad():
        for first in range(0, blocks_of(count), world_size()):
            if not to_the_end and not any(stream.wants(BLOCK * first) for stream in streams):
                return None
            start = BLOCK * (first + rank())
            indices = [min(i, count - 1) for i in range(start, start + BLOCK)]
            images = torch.stack([image(i) for i in indices])
            for place, digest in enumerate(gathered(_digest(images[: max(0, count - start)]).to(device))):
                if first + place < blocks_of(count):
                    whole.update(digest.cpu().numpy().tobytes())
            images = images.to(device)
            for stream in streams:
                if stream.wants(BLOCK * first):
                    _share(stream, images if stream.source is None else stream.source(images), first, count)
            if progress:
                progress(min(count, BLOCK * (first + world_size())), count)
    return whole.hexdigest()


def generated_images(generate: Callable[[int, int], Tensor], count: int) -> Tensor:
    """The samples 0 to ``count`` themselves, uint8 [count, 3, height, width], in every process."""
    rounds = range(0, blocks_of(count), world_size())
    return torch.cat([images for first in rounds for images in gathered(generate(BLOCK * (first + rank()), BLOCK))])[
        :count
    ]


def blocks_of(count: int) -> int:
    """Blocks of 16 that hold so many."""
    return -(-count // BLOCK)


def _share(stream: Stream, vectors: Tensor, first: int, count: int) -> None:
    """Feeds every process with the vectors of all, in block order."""
    for place, part in enumerate(gathered(vectors)):
        here = min(BLOCK, count - BLOCK * (first + place))
        if here > 0:
            stream.update(part[:here])


def _digest(images: Tensor) -> Tensor:
    pixels = images.contiguous().numpy().tobytes()
    return torch.frombuffer(bytearray(hashlib.sha256(pixels).digest()), dtype=torch.uint8)
