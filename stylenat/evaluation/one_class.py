"""A data set's images of one class, for metrics of that class alone."""

import copy
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from registry import UserError
from stylenat.classes import labels_of
from stylenat.data.identity import identity
from stylenat.evaluation.evaluate import Evaluation
from stylenat.interfaces import Dataset


class OneClass:
    """The images of class ``number`` of a prepared data set, in its order.

    Raises:
        UserError: there are none.
    """

    def __init__(self, dataset: Any, number: int) -> None:
        self.dataset, self.number, self.resolution = dataset, number, dataset.resolution
        there = getattr(dataset, "num_classes", 0)
        self._indices = (labels_of(dataset) == number).nonzero()[:, 0].tolist() if there else []
        if not self._indices:
            raise UserError(f"{dataset.describe()} has no images of class {number}")

    def describe(self) -> str:
        return f"class {self.number} of {self.dataset.describe()}"

    def prepare(self) -> None:
        """The whole set is prepared already."""

    def content_hash(self) -> str | None:
        """That of the whole set, with the class."""
        whole = self.dataset.content_hash() if hasattr(self.dataset, "content_hash") else None
        return whole and f"{whole} class {self.number}"

    def identity(self) -> dict[str, Any]:
        return identity(self.dataset) | {"class": self.number}

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Tensor:
        return self.dataset[self._indices[index]]


def of_class(dataset: Dataset, number: int | None) -> Dataset:
    """The images of that class; all of them for None."""
    return dataset if number is None else OneClass(dataset, number)


def mean_over_classes(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The mean of every value over evaluations of one class each; NaN where a class has none."""
    protocol = copy.deepcopy(evaluations[0].protocol)
    protocol["generated"]["labels"] = f"mean over {len(evaluations)} classes"
    if protocol["real"]:
        protocol["real"] |= {"described": "each class separately", "content": None, "pixels_sha256": None}
        protocol["real"]["count"] = sum(evaluation.protocol["real"]["count"] for evaluation in evaluations)
    metrics = {
        name: math.fsum(evaluation.metrics[name] for evaluation in evaluations) / len(evaluations)
        for name in evaluations[0].metrics
    }
    failed = {name: reason for evaluation in evaluations for name, reason in evaluation.failed.items()}
    return Evaluation(metrics, {}, {}, protocol, failed)
