"""What the processes of one run tell each other. Alone, a process talks to nobody."""

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Processes in this run."""
    return distributed.get_world_size() if _together() else 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, the same bits in each; the tensor itself where there is one."""
    if not _together():
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return torch.div(total, world_size())


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
