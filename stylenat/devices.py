"""Transfers from the host to a GPU without synchronization: constants once, draws and images from pinned memory.

Transfers to the host and computations do not belong here.
"""

import os
from functools import cache

import numpy as np
import torch
from torch import Tensor

Numbers = tuple[float, ...]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on ``device``, without waiting for a GPU; on a CPU the tensor itself.

    PyTorch does not use the pinned copy's memory again before the transfer is done.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def sent_like(images: Tensor, *arrays: np.ndarray) -> list[Tensor]:
    """Arrays of the host as tensors of the images' dtype on their device, in one transfer."""
    drawn = [torch.from_numpy(array).to(images.dtype) for array in arrays]
    if images.device.type != "cuda":
        return drawn
    parts = sent(torch.cat([tensor.flatten() for tensor in drawn]), images.device)
    parts = parts.split([tensor.numel() for tensor in drawn])
    return [part.view(tensor.shape) for part, tensor in zip(parts, drawn, strict=True)]


@cache
def constant(numbers: Numbers, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of these numbers, [count], made once for each dtype and device. Shared: do not write to it."""
    return torch.tensor(numbers, dtype=dtype, device=device)


def why_no_gpu() -> str:
    """What keeps PyTorch from seeing a GPU, and what to do."""
    if torch.version.cuda is None and torch.version.hip is None:
        return "this PyTorch is a CPU build; install a CUDA build (pytorch.org/get-started/locally)"
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return f"CUDA_VISIBLE_DEVICES = {os.environ['CUDA_VISIBLE_DEVICES']!r}; unset it, or name a GPU of nvidia-smi's"
    return f"nvidia-smi must list one, with a driver for CUDA {torch.version.cuda}"
