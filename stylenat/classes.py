"""Classes of labelled images: how often each occurs, and class numbers drawn like that, as one-hot vectors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from registry import UserError
from stylenat.random_streams import BLOCK, derived_seed

ClassOf = Callable[[int, int], Tensor]
"""(start, count) to the class numbers of those sample indices, int64 [count]."""


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        counts: images of each class, by its number; names: of the classes.
    """

    counts: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def one_hot(self, numbers: Tensor) -> Tensor:
        """Class numbers int64 [count] to labels float32 [count, classes]."""
        return torch.nn.functional.one_hot(numbers, len(self)).float()

    def drawn(self, count: int, random: torch.Generator) -> Tensor:
        """Class numbers int64 [count], as often as in the data."""
        bounds = torch.tensor(self.counts, dtype=torch.float64).cumsum(0)
        positions = torch.rand(count, generator=random, dtype=torch.float64) * bounds[-1]
        return torch.searchsorted(bounds, positions, right=True).clamp(max=len(self) - 1)

    def as_in_the_data(self, seed: int) -> ClassOf:
        """Of each sample index a class drawn as often as in the data; it depends on the seed and the index alone."""

        def of(start: int, count: int) -> Tensor:
            blocks = range(start // BLOCK, -(-(start + count) // BLOCK))
            seeds = (derived_seed(seed, "label", block) for block in blocks)
            numbers = [self.drawn(BLOCK, torch.Generator().manual_seed(seed)) for seed in seeds]
            skip = start - blocks.start * BLOCK
            return torch.cat([torch.empty(0, dtype=torch.int64), *numbers])[skip : skip + count]

        return of

    def one(self, number: int) -> ClassOf:
        """The same class for every sample. Raises UserError where there is no such class."""
        if not 0 <= number < len(self):
            raise UserError(f"there is no class {number}: the classes are 0 to {len(self) - 1}")
        return lambda start, count: torch.full((count,), number)

    def in_rows(self, columns: int) -> ClassOf:
        """One class a row of a grid with so many columns, from the first on."""
        return lambda start, count: torch.arange(start, start + count) // columns % len(self)

    def plain(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"counts": list(self.counts), "names": list(self.names)}


def labels_of(dataset: Any) -> Tensor:
    """int64 [count]: the class of each image of a prepared data set with labels.

    All at once where the data set can: the start of a run waits for them.
    """
    if callable(everything := getattr(dataset, "labels", None)):
        return everything()
    return torch.tensor([dataset.label(index) for index in range(len(dataset))], dtype=torch.int64)


def classes_of(dataset: Any) -> Classes | None:
    """The classes of a prepared data set; None where it has none.

    Raises:
        UserError: a label that is no class number.
    """
    number = getattr(dataset, "num_classes", 0)
    if not number:
        return None
    labels = labels_of(dataset)
    wrong = ((labels < 0) | (labels >= number)).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise UserError(f"{dataset.describe()}: the label of image {index} is {labels[index]}, not 0 to {number - 1}")
    counts = torch.bincount(labels, minlength=number).tolist()
    names = getattr(dataset, "class_names", None) or [str(i) for i in range(number)]
    return Classes(tuple(counts), tuple(map(str, names)))


def read_classes(plain: Any, where: str) -> Classes | None:
    """What ``plain()`` gave, from a file; None for None. Raises UserError for anything else."""
    if plain is None:
        return None
    counts, names = (plain.get(key) for key in ("counts", "names")) if isinstance(plain, Mapping) else (None, None)
    whole = isinstance(counts, Sequence) and all(type(count) is int and count >= 0 for count in counts)
    if not whole or not isinstance(names, Sequence) or len(names) != len(counts) or not sum(counts):
        raise UserError(f"{where}: its classes are damaged")
    return Classes(tuple(counts), tuple(map(str, names)))


def must_have_classes(networks: int, classes: Classes | None, dataset: str) -> None:
    """Raises UserError where the networks' number of classes is not the data set's; networks without classes take any
    data set."""
    there = 0 if classes is None else len(classes)
    if networks and networks != there:
        raise UserError(
            f"generator and discriminator have num_classes = {networks}, but {dataset} has {there or 'no'} classes; "
            + (f"bind num_classes = {there}" if there else "prepare it with --labels, or bind num_classes = 0")
        )
