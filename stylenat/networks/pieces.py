"""Working through a feature map piece by piece where no graph is kept, so that what lies between stays in cache.

On a CPU fresh memory costs about as much as the products: every large intermediate is mapped and cleared anew.
"""

from collections.abc import Iterator

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


def linear_into(out: Tensor, layer: nn.Linear, x: Tensor) -> None:
    """``out = layer(x)`` for contiguous ``out`` [batch, tokens, channels]."""
    rows, x = out.flatten(0, 1), x.flatten(0, 1)
    if layer.bias is None:
        torch.mm(x, layer.weight.t(), out=rows)
    else:
        torch.addmm(layer.bias, x, layer.weight.t(), out=rows)


def add_linear(out: Tensor, layer: nn.Linear, x: Tensor) -> None:
    """``out += layer(x)``, the product added as it is made."""
    rows = out.flatten(0, 1)
    if layer.bias is not None:
        rows += layer.bias
    rows.addmm_(x.flatten(0, 1), layer.weight.t())
