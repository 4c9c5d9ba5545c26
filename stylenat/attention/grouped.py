"""Autograd around kernels that compute all groups of an attention layer into one output and one gradient.

The kernels are given as a ``Kernels``; a second derivative goes through the differentiable pieces of ``tiled``.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from registry import HeadGroup
from stylenat.attention.tiled import Tiled

_twice_differentiable = Tiled()

Biases = Sequence[Tensor | None]


class Kernels(Protocol):
    """What a backend computes. q, k, v: [batch, height, width, heads, dim], views whose last stride is 1."""

    def forward(self, groups: Sequence[HeadGroup], scale: float, qkv: Sequence[Tensor], biases: Biases, out: Tensor):
        """Writes ``out``; returns what the backward needs of the softmax's sums, in numbers a query and head."""

    def backward(
        self,
        groups: Sequence[HeadGroup],
        scale: float,
        qkv: Sequence[Tensor],
        biases: Biases,
        saved: tuple[Tensor, Tensor, Tensor],
        grads: Sequence[Tensor],
    ) -> list[Tensor | None]:
        """Writes the gradients of q, k and v into ``grads``; returns those of the biases.

        Args:
            saved: the output, what ``forward`` returned, and the gradient of the output.
        """


def outside_graphs(function: Callable) -> Callable:
    """A graph break for torch.compile. As a decorator it would import the whole compiler, 150 MB, with this module."""
    return torch.compiler.disable(function) if torch.compiler.is_compiling() else function


def attend(
    kernels: Kernels, groups: Sequence[HeadGroup], scale: float, inputs: tuple[Tensor, ...], biases: Biases
) -> Tensor:
    """The output [batch, height, width, heads, dim].

    Args:
        inputs: q, k and v, or one tensor [batch, height, width, 3, heads, dim].
    """
    inputs = tuple(t if t.stride(-1) == 1 else t.contiguous() for t in inputs)
    return _Attention.apply(kernels, groups, scale, len(inputs), *inputs, *biases)


def each(groups: Sequence[HeadGroup], biases: Biases) -> Iterator[tuple[slice, HeadGroup, Tensor | None]]:
    """Every group with its heads and its bias."""
    first = 0
    for group, bias in zip(groups, biases, strict=True):
        yield slice(first, first + group.num_heads), group, bias
        first += group.num_heads


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, kernels: Kernels, groups: Sequence[HeadGroup], scale: float, count: int, *tensors: Tensor | None
    ) -> Tensor:
        inputs, biases = tensors[:count], tensors[count:]
        qkv = _parts(inputs)
        out = torch.empty(qkv[0].shape, dtype=qkv[0].dtype, device=qkv[0].device)
        logsum = kernels.forward(groups, scale, qkv, biases, out)
        ctx.kernels, ctx.groups, ctx.scale, ctx.count = kernels, groups, scale, count
        ctx.save_for_backward(*tensors, out, logsum)
        return out

    @staticmethod
    def backward(ctx, grad_out: Tensor):
        *tensors, out, logsum = ctx.saved_tensors
        inputs, biases = tensors[: ctx.count], tensors[ctx.count :]
        if torch.is_grad_enabled():  # A second derivative is wanted.
            return (None, None, None, None, *recomputed(ctx.groups, ctx.scale, inputs, biases, grad_out))
        grad_out = grad_out if grad_out.stride(-1) == 1 else grad_out.contiguous()
        grads = tuple(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in inputs)
        saved = (out, logsum, grad_out)
        grad_biases = ctx.kernels.backward(ctx.groups, ctx.scale, _parts(inputs), biases, saved, _parts(grads))
        return (None, None, None, None, *grads, *grad_biases)


def recomputed(
    groups: Sequence[HeadGroup], scale: float, inputs: Sequence[Tensor], biases: Biases, grad_out: Tensor
) -> list[Tensor | None]:
    """The gradients of ``inputs`` and ``biases``, through the pieces of ``tiled``, so that they can be differentiated.

    Args:
        inputs: q, k and v, or one tensor [batch, height, width, 3, heads, dim].

    Returns:
        None for what requires no gradient.
    """
    q, k, v = _parts(inputs)
    out = torch.cat(
        [
            _twice_differentiable(
                *(t[..., heads, :] for t in (q, k, v)),
                kernel_size=group.kernel_size,
                dilation=group.dilation,
                bias=bias,
                scale=scale,
            )
            for heads, group, bias in each(groups, biases)
        ],
        dim=3,
    )
    given = [*inputs, *biases]
    wanted = [t for t in given if t is not None and t.requires_grad]
    found = iter(torch.autograd.grad(out, wanted, grad_out, create_graph=True))
    return [next(found) if t is not None and t.requires_grad else None for t in given]


def _parts(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    return inputs if len(inputs) == 3 else inputs[0].unbind(3)
