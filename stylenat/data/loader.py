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


class ImageOrder:
    """The k-th image of training: its index and whether it is flipped, from (seed, k) alone.

    Every epoch is a permutation of the data set; the next one begins where it ends, across batches.
    """

    def __init__(self, count: int, seed: int, horizontal_flips: bool) -> None:
        self.count, self.seed, self.horizontal_flips = count, seed, horizontal_flips

    @lru_cache(maxsize=2)  # noqa: B019 - two epochs of one stream, which lives as long as the run
    def _epoch(self, epoch: int) -> tuple[list[int], list[bool]]:
        random = torch.Generator().manual_seed(derived_seed(self.seed, "epoch", epoch))
        order = torch.randperm(self.count, generator=random)
        flips = torch.rand(self.count, generator=random) < 0.5
        return order.tolist(), (flips & self.horizontal_flips).tolist()

    def __getitem__(self, k: int) -> tuple[int, bool]:
        order, flips = self._epoch(k // self.count)
        return order[k % self.count], flips[k % self.count]


class ImageStream:
    """An endless sequence of training batches.

    Args:
        dataset: already prepared.
        batch_size: images a batch; may exceed the data set.
        workers: processes that decode ahead; 0 decodes in this one. The batches are the same.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, *, seed: int, horizontal_flips: bool, workers: int = 0
    ) -> None:
        if len(dataset) == 0:
            raise UserError(f"{dataset.describe()} has no images")
        self.dataset, self.batch_size, self.workers = dataset, batch_size, workers
        self.order = ImageOrder(len(dataset), seed, horizontal_flips)
        self._decoded: Tensor | None = None

    def batches(self, start: int) -> Iterator[Tensor]:
        """uint8 batches [batch, 3, resolution, resolution] from batch number ``start`` on."""
        if len(self.dataset) * 3 * self.dataset.resolution**2 <= CACHE_BYTES:
            return self._from_memory(start)
        return self._decoding(start)

    def _from_memory(self, start: int) -> Iterator[Tensor]:
        if self._decoded is None:
            self._decoded = torch.stack([self.dataset[i] for i in range(len(self.dataset))])
        # Flipped copies stand behind the images, so that a batch is one gather.
        both = torch.cat([self._decoded, self._decoded.flip(-1)])
        for places in self._places(start):
            yield both[[index + flip * len(self.dataset) for index, flip in places]]

    def _decoding(self, start: int) -> Iterator[Tensor]:
        loader = DataLoader(
            _Flipping(self.dataset),
            batch_sampler=_Endless(self, start),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )
        return iter(loader)

    def _places(self, start: int) -> Iterator[list[tuple[int, bool]]]:
        k = start * self.batch_size
        while True:
            yield [self.order[k + i] for i in range(self.batch_size)]
            k += self.batch_size


class _Endless:
    def __init__(self, stream: ImageStream, start: int) -> None:
        self._stream, self._start = stream, start

    def __iter__(self) -> Iterator[list[tuple[int, bool]]]:
        return self._stream._places(self._start)


class _Flipping(TorchDataset):
    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getitem__(self, place: tuple[int, bool]) -> Tensor:
        index, flip = place
        image = self._dataset[index]
        return image.flip(-1) if flip else image
