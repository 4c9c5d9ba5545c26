"""The endless training stream: which image comes when is a pure function of the seed, so a resume loses nothing."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from registry import UserError
from stylenat.interfaces import Dataset
from stylenat.training.random_streams import derived_seed

# Data sets that decode to less than this are decoded once and kept.
CACHE_BYTES = 512 * 2**20

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

        The memory format may be channels-last, as decoders write.
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
        loader = DataLoader(
            _Batches(self.dataset),
            sampler=_Endless(self, start),
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
        )
        batches = iter(loader)
        while True:
            try:
                batch = next(batches)
            except RuntimeError as error:
                if "exited unexpectedly" not in str(error):
                    raise
                raise UserError(
                    "a process that decodes images was killed, perhaps for want of memory; start again, with fewer "
                    "train.workers"
                ) from error
            if isinstance(batch, UserError):
                raise batch
            yield batch


class _Endless:
    def __init__(self, stream: ImageStream, start: int) -> None:
        self._stream, self._start = stream, start

    def __iter__(self) -> Iterator[Places]:
        return self._stream.places(self._start)


class _Batches(TorchDataset):
    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getitem__(self, places: Places) -> Tensor | UserError:
        """A user's error comes back as a value: raised in a worker it would carry the worker's traceback as text."""
        try:
            return self._batch(places)
        except UserError as error:
            return error

    def _batch(self, places: Places) -> Tensor:
        side = self._dataset.resolution
        # A decoder's images lie channels-last; copying them as they lie is ten times faster than turning them.
        batch = torch.empty(len(places), side, side, 3, dtype=torch.uint8)
        for slot, (index, flip) in zip(batch, places, strict=True):
            image = self._dataset[index].permute(1, 2, 0)
            slot.copy_(image.flip(1) if flip else image)
        return batch.permute(0, 3, 1, 2)
