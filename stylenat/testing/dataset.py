"""The contract of kind ``dataset``: indexable, repeatable, and fit to be read by a worker process."""

import torch
from torch.utils.data import DataLoader

from registry import UserError
from stylenat.interfaces import Dataset
from stylenat.testing.contract import CannotCheck, ContractError, require, require_tensor, untouched


def check_dataset(dataset: Dataset) -> None:
    """Describes it, prepares it, and reads its first and last images, twice here and once in a worker process.

    Raises:
        ContractError: items that are not uint8 [3, resolution, resolution], that change from read to read or with
            the reader's edits, a description of several lines, or a data set that a worker cannot read.
        CannotCheck: its files are not here.
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
    ends = sorted({0, count - 1})
    with untouched():
        first = [_item(dataset, index) for index in ends]
    kept = [image.clone() for image in first]
    for image in first:
        image.fill_(0)
    for index, image in zip(ends, kept, strict=True):
        require(torch.equal(_item(dataset, index), image), f"image {index} is another at the second read")
    try:
        sent = list(DataLoader(dataset, sampler=ends, batch_size=None, num_workers=1))  # type: ignore[arg-type]
    except Exception as error:  # whatever a worker meets
        raise ContractError(f"a worker process cannot read it: {error}; open files on first use in each") from error
    same = all(torch.equal(a, b) for a, b in zip(sent, kept, strict=True))
    require(same, "its images are others in a worker process")


def _item(dataset: Dataset, index: int) -> torch.Tensor:
    return require_tensor(dataset[index], (3, dataset.resolution, dataset.resolution), torch.uint8, f"image {index}")
