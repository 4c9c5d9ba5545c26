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

from stylenat.data.pixels import NotFinite
from stylenat.evaluation.failures import attempted, say
from stylenat.interfaces import Accumulator, Features, Metric, Sampler, Walk
from stylenat.ranks import gathered, known_to_all, rank, world_size
from stylenat.training.random_streams import BLOCK

Progress = Callable[[int, int], None]
"""Told (images done, images in all) after each round of blocks."""


class Stream:
    """The accumulators of one need: the images themselves, an embedding, or a walk.

    Attributes:
        failed: why accumulators, by name, hold nothing that may be compared.
        broken: whether no more vectors are made; the same in every process.
    """

    def __init__(self, source: Features | Walk | None) -> None:
        self.source = source
        self.accumulators: dict[str, Accumulator] = {}
        self.failed: dict[str, str] = {}
        self.broken = False

    def part(self, names: Sequence[str]) -> "Stream":
        """A stream of only these accumulators, whose failures this one knows."""
        part = Stream(self.source)
        part.accumulators = {name: self.accumulators[name] for name in names}
        part.failed = self.failed
        return part

    @property
    def of_generator(self) -> bool:
        """Whether its vectors come from the generator rather than from images."""
        return hasattr(self.source, "along")

    def wants(self, start: int) -> bool:
        """Whether an accumulator still takes the images from this index on."""
        # Not whether it failed: that may differ between processes, which must go on together.
        limits = [getattr(accumulator, "limit", None) for accumulator in self.accumulators.values()]
        return not self.broken and any(limit is None or start < limit for limit in limits)

    def vectors(self, images: Tensor) -> Tensor:
        """[batch, dim] of images; the images themselves where nothing else is needed."""
        return images if self.source is None else _checked(self.source(images), len(images))

    def along(self, sampler: Any, start: int, count: int) -> Tensor:
        """[count, dim] of the generator's samples."""
        return _checked(self.source.along(sampler, start, count), count)

    def update(self, vectors: Tensor) -> None:
        for name, accumulator in self.accumulators.items():
            if name not in self.failed:
                _, problem = attempted(lambda accumulator=accumulator: accumulator.update(vectors))
                if problem is not None:
                    self.failed[name] = problem

    def fail(self, problem: str) -> None:
        """Takes no more; what it holds is not compared."""
        self.broken = True
        self.failed.update({name: self.failed.get(name, problem) for name in self.accumulators})


class Collection:
    """What some metrics collect of one set of images; metrics that need the same share it."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.streams: dict[str, Stream] = {}
        made = [attempted(lambda metric=metric: (identity(_needs(metric)), metric.accumulator())) for metric in metrics]
        self._failed = known_to_all([problem for _, problem in made])
        self._places: list[tuple[Stream, str] | None] = []
        for number, (metric, (parts, _)) in enumerate(zip(metrics, made, strict=True)):
            if parts is None or self._failed[number] is not None:
                self._places.append(None)
                continue
            key, accumulator = parts
            stream = self.streams.setdefault(key, Stream(_needs(metric)))
            name = getattr(accumulator, "shared_as", None) or f"metric {number}"
            stream.accumulators.setdefault(name, accumulator)
            self._places.append((stream, name))

    def __getitem__(self, number: int) -> Accumulator:
        """What the metric of that number collected."""
        place = self._places[number]
        assert place is not None, self._failed[number]
        return place[0].accumulators[place[1]]

    def failure(self, number: int) -> str | None:
        """Why the metric of that number has nothing that may be compared; None where it has."""
        place = self._places[number]
        return self._failed[number] if place is None else place[0].failed.get(place[1])


def _needs(metric: Metric) -> Features | Walk | None:
    return getattr(metric, "needs", None)


def _checked(vectors: Any, count: int) -> Tensor:
    """Vectors that the processes can exchange. Raises TypeError for what is no [count, dim]."""
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or len(vectors) != count:
        shape = list(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        raise TypeError(f"features must be [{count}, dim] of {count} images; got {shape}")
    return vectors


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
            wanting = [stream for stream in streams if stream.wants(BLOCK * first)]
            images, refused = None, None
            if not all(stream.of_generator for stream in wanting):
                images, refused = _drawn(generate, start, device)

            def made(stream: Stream, start: int = start, images: Any = images) -> Tensor:
                return stream.along(generate, start, BLOCK) if stream.of_generator else stream.vectors(images)

            outside = start >= count
            refusals = [None if outside or stream.of_generator else refused for stream in wanting]
            _share(wanting, made, refusals, first, count, "generated")
            if progress:
                progress(min(count, BLOCK * (first + world_size())), count)
    return found


def _drawn(generate: Callable[[int, int], Tensor], start: int, device: torch.device) -> tuple[Tensor, str | None]:
    """A block of images; where they are not finite, also the reason to refuse them."""
    try:
        return generate(start, BLOCK).to(device), None
    except NotFinite as error:
        return error.pixels.to(device), str(error)


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
            wanting = [stream for stream in streams if stream.wants(BLOCK * first)]
            _share(wanting, lambda stream, images=images: stream.vectors(images), [None] * len(wanting), first, count)
            if progress:
                progress(min(count, BLOCK * (first + world_size())), count)
    return whole.hexdigest()


def generated_images(generate: Callable[[int, int], Tensor], count: int) -> Tensor:
    """The samples 0 to ``count`` themselves, uint8 [count, 3, height, width], in every process.

    They are there to be looked at: pixels that are not finite are black, which a line says.
    """
    parts: list[Tensor] = []
    problem: str | None = None
    for first in range(0, blocks_of(count), world_size()):
        start = BLOCK * (first + rank())
        images, refused = _drawn(generate, start, torch.device("cpu"))
        problem = problem or (refused if start < count else None)
        parts += gathered(images)
    if line := known_to_all([problem])[0]:
        say(f"samples: {line}; such pixels are black")
    return torch.cat(parts)[:count]


def blocks_of(count: int) -> int:
    """Blocks of 16 that hold so many."""
    return -(-count // BLOCK)


def _share(
    streams: Sequence[Stream],
    made: Callable[[Stream], Tensor],
    refusals: Sequence[str | None],
    first: int,
    count: int,
    images: str = "real",
) -> None:
    """Feeds every process with the vectors of all, in block order.

    Args:
        made: this process's vectors. refusals: by stream, why there are none. images: what they are called.

    A stream that fails in one process fails in all.
    """
    attempts = [
        (None, refusal) if refusal is not None else attempted(lambda stream=stream: made(stream))
        for stream, refusal in zip(streams, refusals, strict=True)
    ]
    problems = known_to_all([problem for _, problem in attempts])
    for stream, (vectors, _), problem in zip(streams, attempts, problems, strict=True):
        if problem is not None or vectors is None:
            stream.fail(str(problem))
            continue
        for place, part in enumerate(gathered(vectors)):
            start = BLOCK * (first + place)
            part = part[: max(0, count - start)]
            if not len(part) or stream.broken:
                continue
            if not part.is_floating_point() or part.isfinite().all():
                stream.update(part)
            else:
                name = getattr(stream.source, "name", type(stream.source).__name__)
                stream.fail(f"{name} is not finite for {images} images (first among {start} to {start + len(part)})")


def _digest(images: Tensor) -> Tensor:
    pixels = images.contiguous().numpy().tobytes()
    return torch.frombuffer(bytearray(hashlib.sha256(pixels).digest()), dtype=torch.uint8)
