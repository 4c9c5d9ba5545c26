"""The contract of kind ``dataset``: indexable, repeatable, and fit to be read by a worker process."""

from collections.abc import Sequence

import torch
from torch.utils.data import DataLoader

from registry import UserError
from stylenat.classes import labels_of
from stylenat.data.identity import spread
from stylenat.data.workers import check_shared_memory
from stylenat.interfaces import Dataset
from stylenat.testing.contract import CannotCheck, ContractError, require, require_tensor, untouched


def check_dataset(dataset: Dataset) -> None:
    """Describes it, prepares it, and reads at most 64 images from the first to the last, twice here and once in a
    worker process, and their labels.

    Raises:
        ContractError: items that are not uint8 [3, resolution, resolution], that change from read to read or with
            the reader's edits, a description of several lines, a data set that a worker cannot read, labels that are
            no class numbers, ``labels()`` that differ from them, or another number of class names than of classes.
        CannotCheck: its files are not here, or there is too little shared memory for a worker process.
    """
    require(type(getattr(dataset, "resolution", None)) is int, "it needs the attribute resolution, an integer")
    line = dataset.describe()
    one_line = isinstance(line, str) and bool(line) and "\n" not in line
    require(one_line, "describe() must return one line, before prepare()")
    try:
        dataset.prepare()
    except UserError as error:
        raise CannotCheck(str(error)) from error
    count = len(dataset)
    require(count >= 1, "it has no images")
    indices = list(spread(count))
    with untouched():
        first = [_item(dataset, index) for index in indices]
    kept = [image.clone() for image in first]
    for image in first:
        image.fill_(0)
    for index, image in zip(indices, kept, strict=True):
        require(torch.equal(_item(dataset, index), image), f"image {index} is another at the second read")
    try:
        check_shared_memory(3 * dataset.resolution**2 * len(indices))
    except UserError as error:  # Of the machine, not of the data set.
        raise CannotCheck(str(error)) from error
    try:
        sent = list(DataLoader(dataset, sampler=indices, batch_size=None, num_workers=1))  # type: ignore[arg-type]
    except Exception as error:  # whatever a worker meets
        raise ContractError(f"a worker process cannot read it: {error}; open files on first use in each") from error
    same = all(torch.equal(a, b) for a, b in zip(sent, kept, strict=True))
    require(same, "its images are others in a worker process")
    _check_labels(dataset, indices)


def _check_labels(dataset: Dataset, indices: Sequence[int]) -> None:
    """Raises ContractError for labels that are no class numbers, where the data set has classes."""
    classes = getattr(dataset, "num_classes", 0)
    require(type(classes) is int and classes >= 0, f"num_classes must be an integer from 0; got {classes!r}")
    if not classes:
        return
    for index in indices:
        label = dataset.label(index)
        kept = isinstance(label, int) and 0 <= label < classes
        require(kept, f"label({index}) must be an integer from 0 to {classes - 1}; got {label!r}")
    labels = labels_of(dataset)
    same = labels.shape == (len(dataset),) and all(labels[index] == dataset.label(index) for index in indices)
    require(same, f"labels() must be label(index) of all {len(dataset)} images, int64 [{len(dataset)}]")
    names = getattr(dataset, "class_names", None) or range(classes)
    require(len(names) == classes, f"class_names must have a name for each of {classes} classes; it has {len(names)}")


def _item(dataset: Dataset, index: int) -> torch.Tensor:
    return require_tensor(dataset[index], (3, dataset.resolution, dataset.resolution), torch.uint8, f"image {index}")
