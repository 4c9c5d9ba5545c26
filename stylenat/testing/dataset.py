"""The contract of kind ``dataset``: indexable, repeatable, and fit to be sent to a worker process."""

import pickle

import torch

from registry import UserError
from stylenat.interfaces import Dataset
from stylenat.testing.contract import CannotCheck, ContractError, require, require_tensor, untouched


def check_dataset(dataset: Dataset) -> None:
    """Describes it, prepares it twice, and reads its first and last images here and through pickle.

    Raises:
        ContractError: items that are not uint8 [3, resolution, resolution], that change from read to read or with
            the reader's edits, a description of several lines, or a data set that no worker can be sent.
        CannotCheck: its files are not here.
    """
    require(type(getattr(dataset, "resolution", None)) is int, "it needs the attribute resolution, a whole number")
    line = dataset.describe()
    require(
        isinstance(line, str) and bool(line) and "\n" not in line, "describe() must return one line, before prepare()"
    )
    try:
        dataset.prepare()
        dataset.prepare()
    except UserError as error:
        raise CannotCheck(str(error)) from error
    count = len(dataset)
    require(count >= 1, "it has no images")
    with untouched():
        first = {index: _item(dataset, index) for index in {0, count - 1}}
    try:
        sent = pickle.loads(pickle.dumps(dataset))
    except Exception as error:  # whatever pickle finds in the way
        raise ContractError(
            f"it cannot be sent to a worker process: {error}; open files there, not in __init__"
        ) from error
    for index, image in first.items():
        kept = image.clone()
        image.fill_(0)
        require(torch.equal(_item(dataset, index), kept), f"image {index} is another at the second read")
        require(torch.equal(_item(sent, index), kept), f"image {index} is another in a worker process")


def _item(dataset: Dataset, index: int) -> torch.Tensor:
    return require_tensor(dataset[index], (3, dataset.resolution, dataset.resolution), torch.uint8, f"image {index}")
