"""One pass over a set of images for all metrics: each embedding once a block, blocks shared among processes.

Images are summed in fixed blocks of 16 indices. Every process computes its blocks' vectors, and all processes get all
of them in block order, so that one, two and four processes end with the same bits. How many images are embedded at
once (``batch``) changes the last bits of vectors, not their order.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stylenat.devices import sent
from stylenat.evaluation.failures import attempted, say
from stylenat.evaluation.unfinished import Unfinished
from stylenat.interfaces import Accumulator, Features, Metric, Sampler, Walk
from stylenat.pixels import NotFinite
from stylenat.random_streams import BLOCK, blocks_of
from stylenat.ranks import gathered, known_to_all, rank, world_size

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) after each round of blocks."""


class Stream:
    """The accumulators of one need: the images themselves, an embedding, or a walk.

    Attributes:
        key: equal for streams of equal vectors, see ``identity``.
        failed: why accumulators, by name, hold nothing that may be compared.
        broken: whether no more vectors are made; the same in every process.
        done: images whose vectors came from an earlier process (``unfinished``).
    """

    def __init__(self, source: Features | Walk | None, key: str) -> None:
        self.source, self.key = source, key
        self.done = 0
        self.accumulators: dict[str, Accumulator] = {}
        self.failed: dict[str, str] = {}
        self.broken = False

    def part(self, names: Sequence[str]) -> "Stream":
        """A stream of only these accumulators, whose failures this one knows."""
        part = Stream(self.source, self.key)
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
        return not self.broken and start >= self.done and any(limit is None or start < limit for limit in limits)

    def vectors(self, images: Tensor, batch: int) -> Tensor:
        """[count, dim] of images, so many at once; the images themselves where nothing else is needed."""
        if self.source is None:
            return images
        return torch.cat([_checked(self.source(part), len(part)) for part in images.split(batch)])

    def along(self, sampler: Any, start: int, count: int, batch: int) -> Tensor:
        """[count, dim] of the generator's samples, so many at once."""
        parts = [(i, min(batch, start + count - i)) for i in range(start, start + count, batch)]
        return torch.cat([_checked(self.source.along(sampler, i, images), images) for i, images in parts])

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
            stream = self.streams.setdefault(key, Stream(_needs(metric), key))
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
    batch: int = BLOCK,
    unfinished: Unfinished | None = None,
) -> Collection:
    """Of the samples 0 to ``count``. Blocks are made whole: what lies beyond ``count`` is left out.

    Args:
        batch: images that are embedded at once.
        unfinished: what an interrupted pass kept, and where this one keeps its vectors; None for nowhere.
    """
    found = Collection(metrics)
    streams, span = list(found.streams.values()), BLOCK * blocks_of(batch)
    with torch.no_grad():
        if unfinished is not None:
            unfinished.take_up(streams, device)
        done = max((stream.done for stream in streams), default=0)
        for first in range(0, count, span * world_size()):
            start = first + span * rank()  # Beyond the end, blocks that are not used.
            wanting = [stream for stream in streams if stream.wants(first)]
            if not wanting and first < done:
                continue  # An earlier process did this.
            images, refused = None, None
            if not all(stream.of_generator for stream in wanting):
                images, refused = _drawn(generate, start, span, device)

            def made(stream: Stream, start: int = start, images: Any = images) -> Tensor:
                if stream.of_generator:
                    return stream.along(generate, start, span, batch)
                return stream.vectors(images, batch)

            outside = start >= count
            refusals = [None if outside or stream.of_generator else refused for stream in wanting]
            _share(wanting, made, refusals, first, count, "generated", unfinished)
            if progress:
                progress(min(count, first + span * world_size()), count)
    return found


def _drawn(
    generate: Callable[[int, int], Tensor], start: int, count: int, device: torch.device
) -> tuple[Tensor, str | None]:
    """Images of those indices; where they are not finite, also the reason to refuse them."""
    try:
        return generate(start, count).to(device), None
    except NotFinite as error:
        return error.pixels.to(device), str(error)


def collect_images(
    streams: Sequence[Stream],
    image: Callable[[int], Tensor],
    count: int,
    device: torch.device,
    progress: Progress | None = None,
    to_the_end: bool = True,
    batch: int = BLOCK,
    unfinished: Unfinished | None = None,
) -> str | None:
    """Feeds the streams with the images of indices 0 to ``count``.

    Args:
        image: index to uint8 [3, height, width].
        to_the_end: read all images, for their checksum, also when no stream wants more.
        batch: images that are embedded at once.
        unfinished: as for ``collect_generated``. All images are read all the same, for their checksum.

    Returns:
        The SHA-256 of all pixels: of the digests of blocks of 16, in order. None where not all were read.
    """
    whole, span = hashlib.sha256(), BLOCK * blocks_of(batch)
    with torch.no_grad():
        if unfinished is not None:
            unfinished.take_up(streams, device)
        for first in range(0, count, span * world_size()):
            if not to_the_end and not any(stream.wants(first) for stream in streams):
                return None
            start = first + span * rank()
            images = torch.stack([image(min(i, count - 1)) for i in range(start, start + span)])
            # Hashed where they were read. The processes exchange digests on the CPU: no GPU waits for them.
            digests = torch.cat(gathered(_digests(images, count - start)))
            whole.update(digests[: blocks_of(count - first)].numpy().tobytes())
            images = sent(images, device)
            wanting = [stream for stream in streams if stream.wants(first)]
            refusals = [None] * len(wanting)
            made = partial(Stream.vectors, images=images, batch=batch)
            _share(wanting, made, refusals, first, count, "real", unfinished)
            if progress:
                progress(min(count, first + span * world_size()), count)
    return whole.hexdigest()


def generated_images(generate: Callable[[int, int], Tensor], count: int) -> Tensor:
    """The samples 0 to ``count`` themselves, uint8 [count, 3, height, width], in every process.

    They are there to be looked at: pixels that are not finite are black, which a line says.
    """
    parts: list[Tensor] = []
    problem: str | None = None
    for first in range(0, blocks_of(count), world_size()):
        start = BLOCK * (first + rank())
        images, refused = _drawn(generate, start, BLOCK, torch.device("cpu"))
        problem = problem or (refused if start < count else None)
        parts += gathered(images)
    if line := known_to_all([problem])[0]:
        say(f"samples: {line}; such pixels are black")
    return torch.cat(parts)[:count]


def _share(
    streams: Sequence[Stream],
    made: Callable[[Stream], Tensor],
    refusals: Sequence[str | None],
    first: int,
    count: int,
    images: str,
    unfinished: Unfinished | None,
) -> None:
    """Feeds every process with the vectors of all, in block order.

    Args:
        made: this process's vectors, as many in every process. refusals: by stream, why there are none.
        first: index of the first process's first image. images: what they are called.
        unfinished: where the vectors are kept.

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
            start = first + len(part) * place
            part = part[: max(0, count - start)]
            if not len(part) or stream.broken:
                continue
            if not part.is_floating_point() or part.isfinite().all():
                for block in part.split(BLOCK):
                    stream.update(block)
                if unfinished is not None:
                    unfinished.note(stream, part)
            else:
                name = getattr(stream.source, "name", type(stream.source).__name__)
                stream.fail(f"{name} is not finite for {images} images (first among {start} to {start + len(part)})")
    if unfinished is not None:
        unfinished.save_if_due()


def _digests(images: Tensor, count: int) -> Tensor:
    """uint8 [blocks, 32]: the SHA-256 of each block of 16 of the images, of which only ``count`` count."""
    blocks = images[: max(0, count)].contiguous().numpy()
    digests = [hashlib.sha256(blocks[i : i + BLOCK]).digest() for i in range(0, len(images), BLOCK)]
    return torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(-1, 32)
