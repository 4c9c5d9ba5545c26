"""Data set ``subset``: fewer images of another one, to see what a small data set does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from registry import Count, UserError
from stylenat.data.identity import identity
from stylenat.interfaces import Dataset
from stylenat.random_streams import derived_seed


class Subset:
    """``count`` images of a data set, drawn from ``seed``; a larger subset of the same seed holds the smaller one.

    Args:
        dataset: the whole, such as ``@dataset.lmdb()``.
        count: images to keep.
        seed: of the draw; the run's own seed makes no difference.
    """

    def __init__(self, dataset: Dataset, count: Count, seed: int = 0) -> None:
        self.dataset, self.count, self.seed = dataset, count, seed
        self.resolution = dataset.resolution
        self._chosen: list[int] | None = None

    @property
    def creates(self) -> Path | None:
        """That of the whole set."""
        return getattr(self.dataset, "creates", None)

    def describe(self) -> str:
        return f"{self.count} of {self.dataset.describe()}"

    def prepare(self) -> None:
        """Raises UserError where the whole has fewer images."""
        self.dataset.prepare()
        whole = len(self.dataset)
        if self.count > whole:
            raise UserError(f"dataset.subset.count = {self.count}, but there are {whole} images; ask for fewer")
        random = torch.Generator().manual_seed(derived_seed(self.seed, "subset"))
        self._chosen = sorted(torch.randperm(whole, generator=random)[: self.count].tolist())

    @property
    def num_classes(self) -> int:
        return getattr(self.dataset, "num_classes", 0)

    @property
    def class_names(self) -> Sequence[str]:
        return getattr(self.dataset, "class_names", ())

    def label(self, index: int) -> int:
        """That of the image in the whole set."""
        return self.dataset.label(self._indices()[index])

    def identity(self) -> dict[str, Any]:
        """That of the whole set: which images are drawn from it, the parameters say."""
        return {f"whole {name}": value for name, value in identity(self.dataset).items()}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return self.dataset[self._indices()[index]]

    def _indices(self) -> list[int]:
        if self._chosen is None:
            self.prepare()
        assert self._chosen is not None
        return self._chosen
