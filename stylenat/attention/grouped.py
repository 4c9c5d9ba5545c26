"""Kernels that compute all groups of an attention layer into one output and one gradient, as PyTorch operators.

``stylenat::grouped_attention`` and its backward are operators of the dispatcher, with shapes for tracers and with
autograd: a compiled network calls them in its graph. A second derivative goes through the differentiable pieces of
``tiled``.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from registry import HeadGroup
from stylenat.attention.tiled import Tiled

_twice_differentiable = Tiled()

Biases = Sequence[Tensor | None]


class Kernels(Protocol):
    """What a backend computes. q, k, v: [batch, height, width, heads, dim], views whose last stride is 1."""

    def forward(
        self,
        groups: Sequence[HeadGroup],
        scale: float,
        qkv: Sequence[Tensor],
        biases: Biases,
        out: Tensor,
        sums: Tensor,
    ) -> None:
        """Writes ``out``, and ``sums`` of the softmax for the backward, float32 [batch, heads, 2 * height, width]."""

    def backward(
        self,
        groups: Sequence[HeadGroup],
        scale: float,
        qkv: Sequence[Tensor],
        biases: Biases,
        saved: tuple[Tensor, Tensor, Tensor],
        grads: Sequence[Tensor],
        grad_biases: Biases,
    ) -> None:
        """Writes the gradients of q, k and v into ``grads``, those of the biases into ``grad_biases``.

        Args:
            saved: the output, the sums, and the gradient of the output.
            grad_biases: None for what needs none.
        """


KERNELS: dict[str, Kernels] = {}
"""By the name that the operators take."""


def attend(kernels: str, groups: Sequence[HeadGroup], scale: float, inputs: Sequence[Tensor], biases: Biases) -> Tensor:
    """The output [batch, height, width, heads, dim].

    Args:
        kernels: a name in ``KERNELS``.
        inputs: q, k and v, or one tensor [batch, height, width, 3, heads, dim].
        biases: of every group, or None for all of them.
    """
    given = [bias for bias in biases if bias is not None]
    heads, sizes, dilations = zip(*((g.num_heads, g.kernel_size, g.dilation) for g in groups), strict=True)
    out, _ = torch.ops.stylenat.grouped_attention(kernels, list(inputs), given, heads, sizes, dilations, scale)
    return out


def each(groups: Sequence[HeadGroup], biases: Biases) -> Iterator[tuple[slice, HeadGroup, Tensor | None]]:
    """Every group with its heads and its bias."""
    first = 0
    for group, bias in zip(groups, biases, strict=True):
        yield slice(first, first + group.num_heads), group, bias
        first += group.num_heads


_ARGUMENTS = (
    "str kernels, Tensor[] inputs, Tensor[] biases, int[] heads, int[] kernel_sizes, int[] dilations, float scale"
)
_library = torch.library.Library("stylenat", "DEF")
_library.define(f"grouped_attention({_ARGUMENTS}) -> (Tensor, Tensor)")
_library.define(
    f"grouped_attention_backward({_ARGUMENTS}, bool bias_wanted, Tensor out, Tensor sums, Tensor grad) -> Tensor[]"
)


def _groups(heads: Sequence[int], sizes: Sequence[int], dilations: Sequence[int]) -> list[HeadGroup]:
    return [HeadGroup(*group) for group in zip(heads, sizes, dilations, strict=True)]


def sums_of(q: Tensor) -> Tensor:
    """Room for what ``Kernels.forward`` writes."""
    batch, height, width, heads, _ = q.shape
    return q.new_empty((batch, heads, 2 * height, width), dtype=torch.float32)


def _outputs(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    q = _parts(inputs)[0]
    return q.new_empty(q.shape), sums_of(q)


def _gradients(inputs: Sequence[Tensor], biases: Sequence[Tensor], bias_wanted: bool) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in (*inputs, *(biases if bias_wanted else ()))]


def _row(t: Tensor) -> Tensor:
    return t if t.stride(-1) == 1 else t.contiguous()


def _forward(kernels, inputs, biases, heads, kernel_sizes, dilations, scale):
    inputs, groups = [_row(t) for t in inputs], _groups(heads, kernel_sizes, dilations)
    out, sums = _outputs(inputs)
    KERNELS[kernels].forward(groups, scale, _parts(inputs), biases or [None] * len(groups), out, sums)
    return out, sums


def _backward(kernels, inputs, biases, heads, kernel_sizes, dilations, scale, bias_wanted, out, sums, grad):
    inputs, groups = [_row(t) for t in inputs], _groups(heads, kernel_sizes, dilations)
    found = _gradients(inputs, biases, bias_wanted)
    grads, grad_biases = found[: len(inputs)], found[len(inputs) :] or [None] * len(groups)
    saved = out, sums, _row(grad)
    qkv = _parts(inputs)
    KERNELS[kernels].backward(groups, scale, qkv, biases or [None] * len(groups), saved, _parts(grads), grad_biases)
    return found


def _keep(ctx, inputs, output) -> None:
    kernels, tensors, biases, heads, kernel_sizes, dilations, scale = inputs
    ctx.options, ctx.count = (kernels, heads, kernel_sizes, dilations, scale), len(tensors)
    ctx.save_for_backward(*tensors, *biases, *output)


def _differentiated(ctx, grad: Tensor, _: Tensor | None):
    *given, out, sums = ctx.saved_tensors
    inputs, biases = given[: ctx.count], given[ctx.count :]
    kernels, heads, kernel_sizes, dilations, scale = ctx.options
    if torch.is_grad_enabled():  # A second derivative is wanted.
        groups = _groups(heads, kernel_sizes, dilations)
        found = recomputed(groups, scale, inputs, biases or [None] * len(groups), grad)
        grads, grad_biases = found[: len(inputs)], found[len(inputs) :][: len(biases)]
    else:
        wanted = any(bias.requires_grad for bias in biases)
        found = torch.ops.stylenat.grouped_attention_backward(
            kernels, inputs, biases, heads, kernel_sizes, dilations, scale, wanted, out, sums, grad
        )
        grads, grad_biases = found[: len(inputs)], found[len(inputs) :] or [None] * len(biases)
    return None, list(grads), list(grad_biases), None, None, None, None


for _device in ("CPU", "CUDA"):
    _library.impl("grouped_attention", _forward, _device)
    _library.impl("grouped_attention_backward", _backward, _device)
torch.library.register_fake(
    "stylenat::grouped_attention", lambda kernels, inputs, *rest: _outputs(inputs), lib=_library
)
torch.library.register_fake(
    "stylenat::grouped_attention_backward",
    lambda kernels, inputs, biases, heads, sizes, dilations, scale, wanted, *saved: _gradients(inputs, biases, wanted),
    lib=_library,
)
torch.library.register_autograd("stylenat::grouped_attention", _differentiated, setup_context=_keep, lib=_library)


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
