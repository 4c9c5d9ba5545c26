"""The endless training stream: which image comes when is a pure function of the seed, so a resume loses nothing."""

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import count

import numpy as np
import torch
from torch import Tensor

from registry import UserError
from stylenat.data.workers import decoded_ahead
from stylenat.draws import derived_seed
from stylenat.interfaces import Dataset
from stylenat.native.build import library
from stylenat.pixels import IMAGENET, PixelSpace, place

# The images of data sets that decode to less than this are decoded once and kept.
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
    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        random = torch.Generator().manual_seed(derived_seed(self.seed, "epoch", epoch))
        order = torch.randperm(self.count, generator=random)
        flips = torch.rand(self.count, generator=random) < 0.5
        return order.numpy(), (flips & self.horizontal_flips).numpy()

    def __getitem__(self, k: int) -> tuple[int, bool]:
        order, flips = self._epoch(k // self.count)
        return int(order[k % self.count]), bool(flips[k % self.count])


class DecodedOnce:
    """Images of a data set, each decoded when it is first needed and then kept: a run need not wait for all of them."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, side = dataset, dataset.resolution
        self._pixels = torch.empty(len(dataset), side, side, 3, dtype=torch.uint8)  # As decoders write them.
        self._there = bytearray(len(dataset))

    def __getitem__(self, index: int) -> Tensor:
        """uint8 [3, resolution, resolution]; what is not of this form is passed on and not kept."""
        kept = self._pixels[index].permute(2, 0, 1)
        if not self._there[index]:
            image = self._dataset[index]
            if image.shape != kept.shape or image.dtype != kept.dtype:
                return image
            kept.copy_(image)
            self._there[index] = True
        return kept


class ImageStream:
    """An endless sequence of training batches.

    Of every batch of the run, process ``rank`` gets the images rank, rank + world_size, ...: no image twice, none
    left out, none repeated to fill up, and a run resumed on another number of processes sees the same batches.

    Args:
        dataset: already prepared.
        batch_size: images a batch, over all processes; may exceed the data set.
        workers: processes that decode ahead; 0 decodes in this one. The batches are the same.
        normalised: whether batches are in the networks' space already, as a CPU wants them; for a GPU the pixels
            are a quarter of the bytes to send, and normalising them there costs it nothing.

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
        normalised: bool = False,
        pixel_space: PixelSpace = IMAGENET,
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
        self._pixel_space = pixel_space
        self._dtype = torch.float32 if normalised else torch.uint8
        self._kept: DecodedOnce | None = None

    def batches(self, start: int) -> Iterator[Tensor]:
        """Batches [batch_size / world_size, 3, resolution, resolution]: uint8, or float32 if ``normalised``.

        Args:
            start: images that the run has seen, over all processes; the next one comes first.

        A batch's memory is used again once the next one is asked for: keep a copy of what is needed longer.

        Raises:
            UserError: an image that does not decode, or that is not of the data set's resolution.
        """
        side = self.dataset.resolution
        shape = (self.batch_size // self.world_size, 3, side, side)
        small = len(self.dataset) * 3 * side**2 <= CACHE_BYTES
        if small and self._kept is None:
            self._kept = DecodedOnce(self.dataset)
        if self.workers and not small:
            library()  # Built before there are processes that would each do it.
            return decoded_ahead(partial(self.fill, start), self.workers, shape, self._dtype)
        return self._decoded_here(start, torch.empty(shape, dtype=self._dtype))

    def _decoded_here(self, start: int, batch: Tensor) -> Iterator[Tensor]:
        for number in count():
            self.fill(start, number, batch)
            yield batch

    def places(self, seen: int) -> Places:
        """Which images make up this process's part of the batch after ``seen`` images."""
        return [self.order[seen + i] for i in range(self.rank, self.batch_size, self.world_size)]

    def labels(self, seen: int) -> Tensor:
        """int64 [batch_size / world_size]: the classes of this process's part of the batch after ``seen`` images."""
        return torch.tensor([self.dataset.label(index) for index, _ in self.places(seen)])

    def fill(self, start: int, number: int, batch: Tensor) -> None:
        """Decodes this process's part of the batch ``number``, counted from ``start``, into memory for it."""
        images = self.dataset if self._kept is None else self._kept
        for out, (index, flip) in zip(batch, self.places(start + number * self.batch_size), strict=True):
            image = images[index]
            if image.shape != out.shape or image.dtype != torch.uint8:
                raise UserError(
                    f"{self.dataset.describe()}: image {index} is {image.dtype} {list(image.shape)}; data sets give "
                    f"torch.uint8 {list(out.shape)}"
                )
            place(image, out, flip, self._pixel_space)
