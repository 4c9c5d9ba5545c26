"""A second derivative for kernels that come with the first alone, such as FlexAttention's and NATTEN's."""

from collections.abc import Callable

import torch
from torch import Tensor

from registry import HeadGroup
from stylenat.attention.grouped import recomputed

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def twice_differentiable(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    *,
    kernel_size: int,
    dilation: int,
    scale: float,
) -> Tensor:
    """``attend(q, k, v, bias)``; its gradient is that of ``attend``, and differentiable through ``tiled`` if need be.

    Args:
        attend: neighborhood attention with this kernel size, dilation and scale, differentiable once.
        q, k, v: [batch, height, width, heads, head_dim].
    """
    given = (q, k, v, bias)
    plain = not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in given)
    # A compiled network takes the kernels in, and has no second derivative of its own: PyTorch says so.
    if plain or torch.compiler.is_compiling():
        return attend(*given)
    group = HeadGroup(q.shape[3], kernel_size, dilation)
    return _Twice.apply(attend, group, scale, *given)


class _Twice(torch.autograd.Function):
    """``attend`` keeps a graph of its own, from detached inputs to the output."""

    @staticmethod
    def forward(ctx, attend: Attend, group: HeadGroup, scale: float, *given: Tensor | None) -> Tensor:
        ctx.attend, ctx.group, ctx.scale = attend, group, scale
        ctx.save_for_backward(*given)
        ctx.inside = _run(ctx, given)
        return ctx.inside[1].detach()

    @staticmethod
    def backward(ctx, grad_out: Tensor):
        if torch.is_grad_enabled():  # A second derivative is wanted.
            *qkv, bias = ctx.saved_tensors
            return (None, None, None, *recomputed([ctx.group], ctx.scale, qkv, [bias], grad_out))
        # Used once, since compiled kernels may use the memory of what they saved. A graph that was retained runs anew.
        (own, out), ctx.inside = ctx.inside or _run(ctx, ctx.saved_tensors), None
        found = iter(torch.autograd.grad(out, [t for t in own if _needed(t)], grad_out))
        return (None, None, None, *(next(found) if _needed(t) else None for t in own))


def _run(ctx, given: tuple[Tensor | None, ...]) -> tuple[list[Tensor | None], Tensor]:
    """Detached inputs, and the output with a graph that ends at them."""
    needed = ctx.needs_input_grad[3:]
    own = [None if t is None else t.detach().requires_grad_(n) for t, n in zip(given, needed, strict=True)]
    with torch.enable_grad():
        return own, ctx.attend(*own)


def _needed(t: Tensor | None) -> bool:
    return t is not None and t.requires_grad
