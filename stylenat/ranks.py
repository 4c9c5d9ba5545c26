"""Collectives of the processes of one run; no-ops in a single process."""

import json
from collections import defaultdict
from collections.abc import Sequence

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


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its mean over all processes; one message for all of one type and device."""
    if not _together():
        return
    kinds = defaultdict(list)
    for tensor in tensors:
        kinds[tensor.dtype, tensor.device].append(tensor)
    for same in kinds.values():
        means = mean_over_ranks(torch.cat([tensor.reshape(-1) for tensor in same]))
        parts = means.split([tensor.numel() for tensor in same])
        torch._foreach_copy_(same, [part.view_as(tensor) for part, tensor in zip(parts, same, strict=True)])


def gathered(value: Tensor) -> list[Tensor]:
    """The tensors of all processes, in their order; every process must bring the same shape. No gradient."""
    if not _together():
        return [value]
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(world_size())]
    distributed.all_gather(parts, value.contiguous())
    return parts


def gathered_with_gradient(value: Tensor) -> Tensor:
    """``gathered``, stacked: [processes, *shape]. Differentiable twice: every process's loss reaches every part."""
    return _Gathered.apply(value) if _together() else value[None]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        return torch.stack(gathered(value))

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _SummedPart.apply(grad)


class _SummedPart(torch.autograd.Function):
    """This process's part of the sum over processes of [processes, *shape]: the adjoint of gathering."""

    @staticmethod
    def forward(ctx, stacked: Tensor) -> Tensor:
        total = stacked.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[rank()].clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _Gathered.apply(grad)


def any_of_ranks(flag: bool) -> bool:
    """Whether any process says so: the same answer in all of them. On the CPU, so that no GPU is waited for."""
    if not _together():
        return flag
    answer = torch.tensor(int(flag))
    distributed.all_reduce(answer, distributed.ReduceOp.MAX)
    return bool(answer)


def as_first(text: str) -> str:
    """What process 0 says, in every process."""
    if not _together():
        return text
    data = torch.tensor(list(text.encode()), dtype=torch.uint8)
    length = torch.tensor(len(data))
    distributed.broadcast(length, src=0)
    data = data if rank() == 0 else torch.empty(int(length), dtype=torch.uint8)
    distributed.broadcast(data, src=0)
    return bytes(data.tolist()).decode()


def gathered_text(text: str) -> list[str]:
    """The texts of all processes, in their order."""
    if not _together():
        return [text]
    data = torch.tensor(list(text.encode()), dtype=torch.uint8)
    lengths = [int(length) for length in gathered(torch.tensor([len(data)]))]
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: len(data)] = data
    return [bytes(part[:n].tolist()).decode() for part, n in zip(gathered(padded), lengths, strict=True)]


def known_to_all(texts: Sequence[str | None]) -> list[str | None]:
    """Of each text the first process's that has one, the same in every process.

    Every process must bring as many. Where all are None, this costs one small message.
    """
    if not _together() or not any_of_ranks(any(text is not None for text in texts)):
        return list(texts)
    everyones = (json.loads(own) for own in gathered_text(json.dumps(list(texts))))
    return [next((text for text in known if text is not None), None) for known in zip(*everyones, strict=True)]


def wait_for_all() -> None:
    """Returns when every process has come here."""
    any_of_ranks(False)


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
