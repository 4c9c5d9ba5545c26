"""Working through a feature map piece by piece where no graph is kept, so that what lies between stays in cache.

On a CPU fresh memory costs about as much as the products: every large intermediate is mapped and cleared anew.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

PIECE = 2**20
"""Numbers of the widest intermediate that are computed at a time."""


def without_graph(x: Tensor) -> bool:
    """Whether a layer may work in place and piece by piece: on a CPU, plainly, and nothing to be differentiated."""
    graph = torch.is_grad_enabled() or torch.compiler.is_compiling()
    return not graph and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def pieces(batch: int, tokens: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Slices of [batch, tokens, ...], each contiguous, of at most about ``PIECE`` numbers at ``width`` a token."""
    if batch * tokens * width <= PIECE:
        yield slice(None), slice(None)
        return
    step = max(1, PIECE // width)
    for sample in range(batch):
        for first in range(0, tokens, step):
            yield slice(sample, sample + 1), slice(first, first + step)


class Scratch:
    """Memory for an intermediate of one piece after the other: fresh memory would cost as much as the work in it."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def __call__(self, like: Tensor, *shape: int) -> Tensor:
        """An uninitialised tensor of this shape, contiguous, in the precision of ``like``; the last one is lost."""
        count = math.prod(shape)
        if self._buffer is None or self._buffer.numel() < count or self._buffer.dtype != like.dtype:
            self._buffer = like.new_empty(count)
        return self._buffer[:count].view(shape)


_layers: ContextVar[Scratch | None] = ContextVar("layers", default=None)
"""For what is lost within each layer of the network that runs; None outside ``shared_memory``."""


@contextmanager
def shared_memory(like: Tensor, count: int) -> Iterator[None]:
    """In it, ``assembled(..., shared=True)`` uses the same memory in one layer after the other.

    Args:
        count: numbers that the largest of them is expected to need, in the precision and on the device of ``like``.
    """
    if not without_graph(like):
        yield
        return
    scratch = Scratch()
    scratch(like, count)
    before = _layers.set(scratch)
    try:
        yield
    finally:
        _layers.reset(before)


def as_tokens(x: Tensor) -> Tensor:
    """[batch, height, width, channels] as [batch, tokens, channels] on a CPU, for pieces.

    A GPU has no pieces, and every view costs its host as much time as an operator: [batch * tokens, channels], which
    linear layers take as it is.
    """
    return x.flatten(1, 2) if x.device.type == "cpu" else x.flatten(0, 2)


def as_map(x: Tensor, like: Tensor) -> Tensor:
    """``as_tokens`` undone: of the height and width of ``like``."""
    return x.view(*like.shape[:3], -1)


def part(x: Tensor, samples: slice, some: slice) -> Tensor:
    """``x[samples, some]``; x itself, without a view, for all of it."""
    return x if samples == some == slice(None) else x[samples, some]


def assembled(
    f: Callable[[slice, slice, Tensor | None], Tensor],
    x: Tensor,
    shape: Sequence[int],
    width: int,
    shared: bool = False,
) -> Tensor:
    """``f`` of x, [batch, tokens or rows, ...], computed piece by piece where no graph is kept.

    Args:
        f: (samples, some, out) to the result for ``x[samples, some]``, written into ``out`` where that is given. With a
            graph it is called once, for all of x and without ``out``.
        shape: of the result, whose first two dimensions are x's; width: numbers of the widest intermediate per token
            or row.
        shared: the result is lost with the next such call in ``shared_memory``.
    """
    if not without_graph(x):
        return f(slice(None), slice(None), None)
    scratch = _layers.get() if shared else None
    out = x.new_empty(shape) if scratch is None else scratch(x, *shape)
    for samples, some in pieces(len(x), x.shape[1], width):
        f(samples, some, out[samples, some])
    return out


def with_residual(f: Callable[[slice, slice, Tensor | None], Tensor], x: Tensor, width: int) -> Tensor:
    """``x + f(x)`` of x, [batch, tokens, channels], as ``assembled``; f adds to ``out`` where that is given.

    Without a graph x itself is overwritten.
    """
    if not without_graph(x):
        return x + f(slice(None), slice(None), None)
    for samples, some in pieces(len(x), x.shape[1], width):
        f(samples, some, x[samples, some])
    return x


def linear(layer: nn.Linear, x: Tensor, out: Tensor | None = None) -> Tensor:
    """``layer(x)``, into contiguous ``out`` [batch, tokens, channels] where that is given."""
    if out is None:
        return layer(x)
    rows, x = out.flatten(0, 1), x.flatten(0, 1)
    if layer.bias is None:
        torch.mm(x, layer.weight.t(), out=rows)
    else:
        torch.addmm(layer.bias, x, layer.weight.t(), out=rows)
    return out


def plus_linear(residual: Tensor, layer: nn.Linear, x: Tensor, out: Tensor | None = None) -> Tensor:
    """``residual + layer(x)``, into contiguous ``out`` [batch, tokens, channels] where that is given."""
    if out is None:
        return residual + layer(x)
    if layer.bias is None:
        out.copy_(residual)
    else:
        torch.add(residual, layer.bias, out=out)
    out.flatten(0, 1).addmm_(x.flatten(0, 1), layer.weight.t())
    return out


def add_linear(out: Tensor, layer: nn.Linear, x: Tensor) -> Tensor:
    """``out += layer(x)`` for contiguous ``out`` [batch, tokens, channels], the product added as it is made."""
    rows = out.flatten(0, 1)
    if layer.bias is not None:
        rows += layer.bias
    rows.addmm_(x.flatten(0, 1), layer.weight.t())
    return out
