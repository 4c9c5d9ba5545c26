"""The oracle: full attention under a mask. Quadratic in the image, obviously right, for tests."""

import torch
from torch import Tensor

from stylenat.attention.window import window, window_start


class Dense:
    """Backend ``dense``: every query scored against every key, the ones outside its window masked."""

    name = "dense"

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
        batch, height, width, heads, head_dim = q.shape
        seen_y, offset_y = (t.to(q.device) for t in axis(height, kernel_size, dilation))
        seen_x, offset_x = (t.to(q.device) for t in axis(width, kernel_size, dilation))
        q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in (q, k, v))  # [batch, heads, tokens, head_dim]
        logits = scale * q @ k.transpose(-2, -1)
        if bias is not None:  # [heads, query y, query x, key y, key x]
            table = bias[:, offset_y[:, None, :, None], offset_x[None, :, None, :]]
            logits = logits + table.reshape(heads, height * width, height * width)
        seen = (seen_y[:, None, :, None] & seen_x[None, :, None, :]).reshape(height * width, height * width)
        weights = softmax(logits.masked_fill(~seen, float("-inf")))
        return (weights @ v).transpose(1, 2).reshape(batch, height, width, heads, head_dim)


def softmax(logits: Tensor) -> Tensor:
    """Softmax over the last axis; 0, with gradient 0, for a row that is -inf throughout."""
    nothing = logits.isneginf().all(-1, keepdim=True)
    return logits.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0)


def axis(size: int, kernel_size: int, dilation: int) -> tuple[Tensor, Tensor]:
    """For [query, key] on one axis: whether it is seen, and its index in the bias table (0 where unseen)."""
    seen = torch.zeros(size, size, dtype=torch.bool)
    offset = torch.zeros(size, size, dtype=torch.long)
    for query in range(size):
        first = window_start(query, size, kernel_size, dilation) - query // dilation + kernel_size - 1
        for j, key in enumerate(window(query, size, kernel_size, dilation)):
            seen[query, key] = True
            offset[query, key] = first + j
    return seen, offset
