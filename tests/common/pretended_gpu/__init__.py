"""A pretended GPU: whole commands run on it where there is neither a GPU nor a driver.

Its tensors say ``cuda:0`` and hold their numbers on the CPU. An operation on tensors of both devices raises as CUDA
does; transfers and waits of the host are recorded with their lines. It shows where data goes and when the host waits:
nothing of CUDA's speed, rounding, memory, or of the order of streams. Known to differ: autocast is the CPU's;
``zeros_like(x, device="cpu")`` and ``new_zeros(device="cpu")`` stay on the device, so that using them raises.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from stylenat.attention.op import BACKENDS

from .patches import patched
from .record import Event, Record
from .tensors import OnPretendedGPU, PretendedTensor

__all__ = ["Event", "PretendedTensor", "Record", "pretended_gpu"]

ANYWHERE = {"shape", "compiled", "tiled", "dense"}
"""Attention backends of plain PyTorch or for other devices than CUDA; the others have kernels for a real GPU."""


@contextmanager
def pretended_gpu() -> Iterator[Record]:
    """Within it there is one GPU, ``cuda:0``; yields what is recorded of it."""
    record = Record()
    usable = {name: backend for name, backend in BACKENDS.items() if name in ANYWHERE}
    with patch.dict(BACKENDS, usable, clear=True), patched(record), OnPretendedGPU(record):
        yield record
