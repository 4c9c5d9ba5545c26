"""What the kernels' arithmetic of the window says, read out by a kernel of its own."""

import torch
import triton
import triton.language as tl

from stylenat.attention.triton_kernels import first_query, last_query, seen


@triton.jit
def _windows(first, last, pairs, size, KERNEL: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    inside = i < size
    tl.store(first + i, first_query(i, KERNEL), mask=inside)
    tl.store(last + i, last_query(i, size, KERNEL), mask=inside)
    visible = seen(i[:, None], i[None, :], size, KERNEL)
    tl.store(pairs + i[:, None] * size + i[None, :], visible.to(tl.int32), mask=inside[:, None] & inside[None, :])


def windows(size, kernel_size):
    """The first and last query that sees each key, and for [query, key] whether it is seen."""
    first, last = (torch.zeros(size, dtype=torch.int32) for _ in range(2))
    pairs = torch.zeros(size, size, dtype=torch.int32)
    _windows[(1,)](first, last, pairs, size, KERNEL=kernel_size, BLOCK=32)
    return first.tolist(), last.tolist(), pairs
