"""Launches the Triton kernels of the modulated instance norm: one or two forward, and backward."""

import os
import shutil
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from stylenat.attention.triton_fused import why_no_triton

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NUMBERS = 2048
"""Of a tensor that a program reads at a time: enough to keep a card's memory busy, and few enough for its registers."""
WARPS = 8
WIDEST = 64
"""Channels of a program: a row of them is a few whole lines of the cache."""
PROGRAMS = 1024
"""That are enough for the largest card. A map is cut into no more chunks than they need."""
LEAST, MOST = 1024, 64
"""Tokens of a chunk where there are several, and chunks of a map."""


@dataclass(frozen=True)
class Cut:
    """How a map is cut: channels and rows (tokens) of what a program reads at a time, and its tokens in all."""

    block: int
    rows: int
    chunk: int

    def chunks(self, tokens: int) -> int:
        return -(-tokens // self.chunk)

    def constants(self) -> dict[str, int]:
        """As the kernels take them."""
        return {"ROWS": self.rows, "BLOCK": self.block, "num_warps": WARPS}


def cut_for(batch: int, tokens: int, channels: int) -> Cut:
    """The same on every card, so that the order of sums is."""
    block = min(WIDEST, max(16, 1 << (channels - 1).bit_length()))
    rows = NUMBERS // block
    wanted = PROGRAMS // (max(batch, 1) * -(-channels // block))
    chunks = max(1, min(wanted, tokens // LEAST, MOST))
    return Cut(block, rows, -(-tokens // (chunks * rows)) * rows)


def why_not(index: int | None) -> str | None:
    """Why the kernels cannot run on the GPU of this index; None where they can."""
    return why_no_triton(index) or _no_compiler()


@cache
def _no_compiler() -> str | None:
    found = "CC" in os.environ or shutil.which("gcc") or shutil.which("clang")
    return None if found else "Triton needs a C compiler to launch kernels; install gcc, or set CC"


def outputs(x: Tensor, modulation: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Room for what ``forward`` writes."""
    return x.new_empty(x.shape, dtype=dtype), x.new_empty((modulation.shape[0], 2, x.shape[-1]), dtype=torch.float32)


def gradients(grad: Tensor, x: Tensor, modulation: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
    """Room for what ``backward`` writes."""
    return x.new_empty(x.shape), modulation.new_empty(modulation.shape)


def forward(
    x: Tensor, modulation: Tensor, eps: float, dtype: torch.dtype, cut: Cut | None = None
) -> tuple[Tensor, Tensor]:
    """See ``stylenat::modulated_norm``."""
    from stylenat.networks import fused_norm_kernels as kernels

    out, statistics = outputs(x, modulation, eps, dtype)
    x = _rows(x, modulation)
    cut = cut or cut_for(*x.shape)
    sizes, strides = (*x.shape[1:], cut.chunk), x.stride()[:2]
    grid, alone, partial = _grid(x, cut)
    with torch.cuda.device(x.device if x.is_cuda else -1):
        if not alone:
            kernels.norm_statistics[grid](x, partial, *sizes, *strides, **cut.constants())
        kernels.norm_forward[grid](
            x, modulation, partial, out, statistics, eps, *sizes, *strides, *modulation.stride(),
            ALONE=alone, CHUNKS=MOST, **cut.constants(),
        )  # fmt: skip
    return out, statistics


def backward(
    grad: Tensor, x: Tensor, modulation: Tensor, statistics: Tensor, cut: Cut | None = None
) -> tuple[Tensor, Tensor]:
    """See ``stylenat::modulated_norm_backward``."""
    from stylenat.networks import fused_norm_kernels as kernels

    found = gradients(grad, x, modulation, statistics)
    grad, x = _rows(grad, modulation), _rows(x, modulation)
    cut = cut or cut_for(*x.shape)
    sizes, strides = (*x.shape[1:], cut.chunk), (*grad.stride()[:2], *x.stride()[:2])
    grid, alone, partial = _grid(x, cut)
    with torch.cuda.device(x.device if x.is_cuda else -1):
        if not alone:
            kernels.norm_backward_sums[grid](grad, x, statistics, partial, *sizes, *strides, **cut.constants())
        kernels.norm_backward[grid](
            grad, x, modulation, statistics, partial, *found, *sizes, *strides, *modulation.stride(),
            ALONE=alone, CHUNKS=MOST, **cut.constants(),
        )  # fmt: skip
    return found


def _grid(x: Tensor, cut: Cut) -> tuple[tuple[int], bool, Tensor]:
    """Programs, whether one of them has all tokens, and room for two numbers of each chunk, which is then not used."""
    batch, tokens, channels = x.shape
    chunks = cut.chunks(tokens)
    partial = x.new_empty((batch, chunks, 2, channels), dtype=torch.float32) if chunks > 1 else x
    return (batch * chunks * -(-channels // cut.block),), chunks == 1, partial


def tokens_of(x: Tensor, modulation: Tensor) -> Tensor:
    """[batch, ..., channels] or [batch * tokens, channels] as [batch, tokens, channels]."""
    return x.unflatten(0, (modulation.shape[0], -1)) if x.ndim == 2 else x.flatten(1, -2)


def _rows(x: Tensor, modulation: Tensor) -> Tensor:
    """``tokens_of`` with rows of stride 1; a copy only where it must be."""
    x = tokens_of(x, modulation)
    return x if x.stride(2) == 1 else x.contiguous()
