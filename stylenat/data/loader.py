"""The endless training stream: which image comes when is a pure function of the seed, so a resume loses nothing."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import cycle

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from registry import UserError
from stylenat.interfaces import Dataset
from stylenat.training.random_streams import derived_seed

# Data sets that decode to less than this are decoded once and kept.
CACHE_BYTES = 512 * 2**20

AHEAD = 3
"""Batches under way in each worker."""

Places = list[tuple[int, bool]]
"""Of one batch: each image's index, and whether it is flipped."""


class ImageOrder:
    """The k-th image of training: its index and whether it is flipped, from (seed, k) alone.

    Every epoch is a permutation of the data set; the next one begins where it ends, across batches.
    """

    def __init__(self, count: int, seed: int, horizontal_flips: bool) -> None:
        self.count, self.seed, self.horizontal_flips = count, seed, horizontal_flips

    @lru_cache(maxsize=2)  # noqa: B019 - two epochs of one stream, which lives as long as the run
    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(derived_seed(self.seed, "epoch", epoch))
        order = torch.randperm(self.count, generator=random)
        flips = torch.rand(self.count, generator=random) < 0.5
        return order, flips & self.horizontal_flips

    def __getitem__(self, k: int) -> tuple[int, bool]:
        order, flips = self._epoch(k // self.count)
        return int(order[k % self.count]), bool(flips[k % self.count])


class ImageStream:
    """An endless sequence of training batches.

    Of every batch of the run, process ``rank`` gets the images rank, rank + world_size, ...: no image twice, none
    left out, none repeated to fill up, and a run resumed on another number of processes sees the same batches.

    Args:
        dataset: already prepared.
        batch_size: images a batch, over all processes; may exceed the data set.
        workers: processes that decode ahead; 0 decodes in this one. The batches are the same. Raw pixels are
            copied here in any case: handing them between processes would take longer.

    Raises:
        UserError: no images, or a batch that does not divide evenly among the processes.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int,
        horizontal_flips: bool,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(dataset) == 0:
            raise UserError(f"{dataset.describe()} has no images")
        if batch_size % world_size:
            raise UserError(f"train.batch_size = {batch_size} does not divide among {world_size} processes")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        self.dataset, self.batch_size, self.workers = dataset, batch_size, workers
        self.rank, self.world_size = rank, world_size
        self.order = ImageOrder(len(dataset), seed, horizontal_flips)
        self._decoded: Tensor | None = None

    def batches(self, start: int) -> Iterator[Tensor]:
        """uint8 batches [batch_size / world_size, 3, resolution, resolution] from batch number ``start`` on.

        The memory format may be channels-last, as decoders write. A batch's memory is used again once the next one
        is asked for: keep a copy of what is needed longer.
        """
        if len(self.dataset) * 3 * self.dataset.resolution**2 <= CACHE_BYTES:
            return self._from_memory(start)
        return self._decoding(start)

    def places(self, start: int) -> Iterator[Places]:
        """Which images make up this process's batches."""
        k = start * self.batch_size
        while True:
            yield [self.order[k + i] for i in range(self.rank, self.batch_size, self.world_size)]
            k += self.batch_size

    def _from_memory(self, start: int) -> Iterator[Tensor]:
        if self._decoded is None:
            self._decoded = torch.stack([self.dataset[i] for i in range(len(self.dataset))])
        # Flipped copies stand behind the images, so that a batch is one gather.
        both = torch.cat([self._decoded, self._decoded.flip(-1)])
        for places in self.places(start):
            yield both[[index + flip * len(self.dataset) for index, flip in places]]

    def _decoding(self, start: int) -> Iterator[Tensor]:
        workers = 0 if getattr(self.dataset, "stored_raw", False) else self.workers
        # One more than are ever under way: the DataLoader asks for the next batch just before it hands one out.
        slots = AHEAD * workers + 1
        side = self.dataset.resolution
        # A decoder's images lie channels-last; copying them as they lie is ten times faster than turning them.
        ring = torch.empty(slots, self.batch_size // self.world_size, side, side, 3, dtype=torch.uint8)
        loader = DataLoader(
            _Decoder(self.dataset, ring.share_memory_() if workers else ring),
            sampler=_Jobs(self, start, slots),
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=AHEAD if workers else None,
        )
        slots_filled = iter(loader)
        while True:
            try:
                slot = next(slots_filled)
            except RuntimeError as error:
                if "exited unexpectedly" not in str(error):
                    raise
                raise UserError(
                    "a process that decodes images was killed, perhaps for want of memory; start again, with fewer "
                    "train.workers"
                ) from error
            if isinstance(slot, UserError):
                raise slot
            yield ring[slot].permute(0, 3, 1, 2)


class _Jobs:
    """An endless sampler: the slot that a batch goes to, and what goes there."""

    def __init__(self, stream: ImageStream, start: int, slots: int) -> None:
        self._stream, self._start, self._slots = stream, start, slots

    def __iter__(self) -> Iterator[tuple[int, Places]]:
        return zip(cycle(range(self._slots)), self._stream.places(self._start))  # noqa: B905 - both are endless


class _Decoder(TorchDataset):
    """Decodes batches into slots of one piece of memory, which worker processes share with the training process.

    Allocated once: new shared memory for every batch would take half as long as decoding JPEGs into it.
    """

    def __init__(self, dataset: Dataset, ring: Tensor) -> None:
        self._dataset, self._ring = dataset, ring

    def __getitem__(self, job: tuple[int, Places]) -> int | UserError:
        """A user's error comes back as a value: raised in a worker it would carry the worker's traceback as text."""
        slot, places = job
        try:
            for out, (index, flip) in zip(self._ring[slot], places, strict=True):
                image = self._dataset[index].permute(1, 2, 0)
                out.copy_(image.flip(1) if flip else image)
        except UserError as error:
            return error
        return slot
