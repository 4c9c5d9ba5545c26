"""Neighborhood attention in the plainest operations, for exports: gathers with constant indices, products, a softmax.

Not among ``BACKENDS``: the others are faster. Linear in the map: the largest intermediate holds ``kernel_size`` times
the keys.
"""

import torch
from torch import Tensor

from stylenat.attention.window import window, window_start

AT_ONCE = 2**26
"""Numbers of an image's gathered keys up to which all rows of the neighborhood are gathered together: graphs of few
nodes are written and started sooner."""


class Gathered:
    """Backend ``gathered``. Biases must leave every query a key that is not masked.

    Attributes:
        traced: it can be traced on tensors without data (``stylenat.attention.op.choose``).
    """

    name = "gathered"
    traced = True

    def unsupported(self, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> str | None:
        return None

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
        batch, height, width, heads, dim = q.shape
        rows, row_offset = _axis(height, kernel_size, dilation, q.device)
        columns, column_offset = _axis(width, kernel_size, dilation, q.device)
        all_at_once = height * width * kernel_size**2 * heads * dim <= AT_ONCE
        count = kernel_size if all_at_once else 1  # Rows of the neighborhood that are gathered together.
        keys = count * kernel_size
        q = (q * scale)[:, :, :, None]

        def gathered(t: Tensor, first: int) -> Tensor:
            """Each query's keys (or values) in ``count`` rows: [batch, height, width, keys, heads, dim]."""
            t = t.index_select(1, rows[:, first : first + count].flatten()).index_select(2, columns.flatten())
            t = t.reshape(batch, height, count, width, kernel_size, heads, dim)
            return t.transpose(2, 3).reshape(batch, height, width, keys, heads, dim)

        def table(first: int) -> Tensor:
            """Their biases: [height, width, keys, heads]."""
            t = bias.index_select(1, row_offset[:, first : first + count].flatten())
            t = t.index_select(2, column_offset.flatten()).reshape(heads, height, count, width, kernel_size)
            return t.permute(1, 3, 2, 4, 0).reshape(height, width, keys, heads)

        firsts = range(0, kernel_size, count)
        logits = [(q * gathered(k, first)).sum(-1) for first in firsts]
        if bias is not None:
            logits = [found + table(first) for first, found in zip(firsts, logits, strict=True)]
        weights = torch.cat(logits, dim=3).softmax(3)
        parts = weights.split(keys, dim=3)
        out = [(part[..., None] * gathered(v, first)).sum(3) for first, part in zip(firsts, parts, strict=True)]
        return sum(out[1:], out[0])


def _axis(size: int, kernel_size: int, dilation: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each query on one axis, its keys and their indices in the bias table, int64 [size, kernel_size]."""
    keys = [window(query, size, kernel_size, dilation) for query in range(size)]
    firsts = [window_start(q, size, kernel_size, dilation) - q // dilation + kernel_size - 1 for q in range(size)]
    offsets = [[first + j for j in range(kernel_size)] for first in firsts]
    return torch.tensor(keys, device=device), torch.tensor(offsets, device=device)
