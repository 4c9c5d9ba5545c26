"""Mean and variance over a map's tokens, in one pass over a large map on a CPU."""

import torch
from torch import Tensor

from stylenat.networks.pieces import PIECE, Scratch


def moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (of all tokens, not of a sample) and mean over dimension 1, as ``torch.var_mean`` gives them.

    ``torch.var_mean`` reads a map at a tenth of the memory's rate. Here sums are taken of pieces that stay in cache,
    relative to the first piece's mean, so that means far from 0 lose no digits.

    Args:
        tokens: [batch, tokens, channels], without a graph.

    Returns two tensors [batch, 1, channels].
    """
    batch, count, channels = tokens.shape
    # A compiler's sizes may be symbols, and it joins the operations itself.
    plain = tokens.device.type != "cpu" or torch.compiler.is_compiling()
    rows = count if plain else max(1, PIECE // 4 // (batch * channels))
    if plain or count <= rows:
        variance, mean = torch.var_mean(tokens, dim=1, keepdim=True, correction=0)
        return variance, mean
    near = tokens[:, :rows].mean(dim=1, keepdim=True)
    total, squares, scratch = torch.zeros_like(near), torch.zeros_like(near), Scratch()
    for piece in tokens.split(rows, dim=1):
        centred = torch.sub(piece, near, out=scratch(piece, *piece.shape))
        total += centred.sum(dim=1, keepdim=True)
        squares += centred.mul_(centred).sum(dim=1, keepdim=True)
    mean = total.div_(count)
    return squares.div_(count).addcmul_(mean, mean, value=-1), mean + near
