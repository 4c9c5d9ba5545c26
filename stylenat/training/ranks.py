"""What the processes of one run tell each other. Alone, a process talks to nobody."""

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Processes in this run."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """This process's number among them, from 0. Only process 0 writes."""
    return distributed.get_rank() if _together() else 0


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, the same bits in each; the tensor itself where there is one."""
    if not _together():
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return torch.div(total, world_size())


def gathered(value: Tensor) -> list[Tensor]:
    """The tensors of all processes, in their order; every process must bring the same shape. No gradient."""
    if not _together():
        return [value]
    parts = [torch.empty_like(value) for _ in range(world_size())]
    distributed.all_gather(parts, value.contiguous())
    return parts


def any_of_ranks(flag: bool) -> bool:
    """Whether the flag is set in any process, the same answer in each. Asked on the CPU: no GPU is waited for."""
    if not _together():
        return flag
    flags = torch.tensor(int(flag))
    distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
    return bool(flags)


def wait_for_all() -> None:
    """Returns when every process has come here."""
    any_of_ranks(False)


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
