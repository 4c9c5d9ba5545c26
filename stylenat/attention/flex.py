"""Backend ``flex``: PyTorch's FlexAttention, compiled for CUDA, with the bias as a score modification."""

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from registry import UserError
from stylenat.attention.flex_mask import block_mask
from stylenat.attention.twice import twice_differentiable

SMALLEST_HEAD = 16
"""FlexAttention's compiled kernels take no narrower heads."""
OLDEST_GPU = (7, 0)
"""The compute capability below which PyTorch's compiler makes no Triton kernels."""
SWITCHES = "TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"
"""With 1 in the environment, PyTorch runs uncompiled what it is asked to compile, and does not say so."""
COMPILATIONS = 2**20
"""Replaces Dynamo's limit of 8 shapes a function. A run has one shape for each map side, dilation, batch and mode."""


class Flex:
    """Backend ``flex``: each residue class of the dilation is an image of its own in the batch.

    Differentiable once by its own kernels, bias included, a second time through ``tiled``.

    Args:
        eager: runs uncompiled on any device, in memory quadratic in a class, to check exactness.
    """

    name = "flex"

    def __init__(self, eager: bool = False) -> None:
        self.eager = eager

    def unsupported(self, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> str | None:
        if self.eager:
            return None
        if q.device.type != "cuda":
            return f"it is compiled for CUDA, and the tensors are on {q.device.type}"
        if q.shape[-1] < SMALLEST_HEAD:
            return f"its kernels need a head_dim of at least {SMALLEST_HEAD}, not {q.shape[-1]}"
        if q.dtype == torch.float64:
            return "its kernels take no float64"
        if q.dtype == torch.bfloat16 and torch.cuda.get_device_capability(q.device) < (8, 0):
            return "PyTorch compiles bfloat16 for GPUs of compute capability 8.0 and above only; use float32 or float16"
        return no_compiler(q.device)

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        kernel_size: int,
        dilation: int,
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        batch, height, width = q.shape[:3]
        mask = block_mask(batch, height, width, kernel_size, dilation, q.device)
        run = _eager if self.eager else _fused

        def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
            score = None if bias is None else _biased(bias, -(-width // dilation), kernel_size)
            classes = [_to_classes(t, dilation) for t in (q, k, v)]
            with torch.autocast(q.device.type, enabled=False):  # The result has its input's type.
                out = run(*classes, score_mod=score, block_mask=mask, scale=scale)
            return _from_classes(out, batch, height, width, dilation)

        return twice_differentiable(attend, q, k, v, bias, kernel_size=kernel_size, dilation=dilation, scale=scale)


@cache
def no_compiler(device: torch.device) -> str | None:
    """Why ``torch.compile`` can make no Triton kernels for a CUDA device, with the remedy; None where it can."""
    if any(os.environ.get(name) == "1" for name in SWITCHES):
        return f"{' or '.join(SWITCHES)} disables torch.compile; unset it"
    if find_spec("triton") is None:
        return "it is compiled by Triton, which is not installed (PyTorch's CUDA wheels for Linux contain it)"
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < OLDEST_GPU:
        least = ".".join(map(str, OLDEST_GPU))
        return f"it needs a GPU of compute capability {least} or higher, and this one has {major}.{minor}"
    return None


def _eager(*tensors: Tensor, **options: Any) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention  # 150 MB: all of PyTorch's compiler.

    return flex_attention(*tensors, **options)


def _fused(*tensors: Tensor, **options: Any) -> Tensor:
    """FlexAttention as a kernel of its own for each shape. Raises UserError where it would run uncompiled."""
    if torch.compiler.is_compiling():  # The network around it is being compiled, and takes it in.
        return _compiled_only(*tensors, **options)
    from torch._dynamo import config

    limits = {"recompile_limit": COMPILATIONS, "accumulated_recompile_limit": COMPILATIONS}
    with config.patch(limits):
        return _compiled()(*tensors, **options)


@cache
def _compiled(backend: str | Callable[..., Any] = "inductor") -> Callable[..., Tensor]:
    # With ``fullgraph``, what cannot be compiled is an error.
    return torch.compile(_compiled_only, backend=backend, fullgraph=True, dynamic=False)


def _compiled_only(*tensors: Tensor, **options: Any) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    # Uncompiled, FlexAttention holds every score: 17 GB a head and image at 256x256.
    if not torch.compiler.is_compiling():
        raise UserError(
            "attention backend 'flex' runs compiled only, and torch.compile is disabled; enable it, or bind the "
            "backend 'tiled'"
        )
    return flex_attention(*tensors, **options)


def _to_classes(x: Tensor, dilation: int) -> Tensor:
    """[batch, height, width, heads, dim] to [batch * residues, heads, class height * class width, dim], padded."""
    d, (height, width) = dilation, x.shape[1:3]
    x = F.pad(x, (0, 0, 0, 0, 0, -width % d, 0, -height % d))
    x = x.unflatten(2, (-1, d)).unflatten(1, (-1, d))  # [batch, class y, d, class x, d, heads, dim]
    return x.permute(0, 2, 4, 5, 1, 3, 6).flatten(4, 5).flatten(0, 2)


def _from_classes(x: Tensor, batch: int, height: int, width: int, dilation: int) -> Tensor:
    """The inverse of ``_to_classes``, padding cut off."""
    d = dilation
    x = x.unflatten(2, (-(-height // d), -(-width // d))).unflatten(0, (batch, d, d))
    x = x.permute(0, 4, 1, 5, 2, 3, 6)  # [batch, class y, d, class x, d, heads, dim]
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def _biased(bias: Tensor, class_width: int, kernel_size: int) -> Callable[..., Tensor]:
    """A score modification that adds the bias of the key's offset from the query."""
    largest = 2 * kernel_size - 2

    def add(score: Tensor, b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        # Clamped for the masked keys, whose scores are computed all the same.
        y = (key // class_width - query // class_width + kernel_size - 1).clamp(0, largest)
        x = (key % class_width - query % class_width + kernel_size - 1).clamp(0, largest)
        return score + bias[head, y, x]

    return add
