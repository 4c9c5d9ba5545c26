"""Mean and variance over a map's tokens, what is normalised by them, and its gradient: few passes on a CPU."""

import ctypes

import torch
from torch import Tensor

from stylenat.native.build import library
from stylenat.native.threads import threads
from stylenat.networks.pieces import PIECE, Scratch

DTYPES = (torch.float32, torch.bfloat16)


def moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (of all tokens, not of a sample) and mean over dimension 1, as ``torch.var_mean`` gives them.

    ``torch.var_mean`` reads a map at a tenth of the memory's rate. Here sums are taken of pieces that stay in cache,
    relative to a value of the map, so that means far from 0 lose no digits. Of bfloat16 they are float32.

    Args:
        tokens: [batch, tokens, channels], without a graph.

    Returns two tensors [batch, 1, channels].
    """
    batch, count, channels = tokens.shape
    if _native(tokens):
        tokens = _rows(tokens)
        variance, mean = (tokens.new_empty(batch, 1, channels, dtype=torch.float32) for _ in range(2))
        sizes = _Sizes.of(tokens)
        library().moments(ctypes.byref(sizes), tokens.data_ptr(), variance.data_ptr(), mean.data_ptr())
        return variance, mean
    if tokens.dtype == torch.bfloat16:
        tokens = tokens.float()
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


def modulated(tokens: Tensor, mean: Tensor, slope: Tensor, beta: Tensor, out: Tensor | None = None) -> Tensor:
    """``(tokens - mean) * slope + beta`` in the precision of ``tokens``, without a graph; into ``out`` if it is given.

    Args:
        tokens: [batch, tokens, channels]; mean, slope, beta: [batch, 1, channels], float32 where tokens are bfloat16.
    """
    if _native(tokens, mean, slope, beta) and beta.stride(-1) == 1 and (out is None or out[0].is_contiguous()):
        out = tokens.new_empty(tokens.shape) if out is None else out
        tokens, mean, slope = _rows(tokens), mean.contiguous(), slope.contiguous()
        sizes = _Sizes.of(tokens)
        library().modulate(
            ctypes.byref(sizes),
            *(t.data_ptr() for t in (tokens, mean, slope, beta)),
            beta.stride(0),
            out.data_ptr(),
            out.stride(0),
        )
        return out
    # Centred first: a map's mean can be large beside its deviation.
    if out is None:
        return torch.addcmul(beta, tokens - mean, slope)
    if tokens.dtype == torch.bfloat16:
        return out.copy_(torch.addcmul(beta, tokens - mean, slope))
    centred = torch.sub(tokens, mean, out=out)
    return torch.addcmul(beta, centred, slope, out=out)


def gradients(
    grad: Tensor, tokens: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``gamma * (tokens - mean) * inverse + beta``, whose mean and inverse deviation are those of the tokens: the
    gradients of tokens, gamma and beta.

    Args:
        grad, tokens: [batch, tokens, channels]; gamma, mean, inverse: [batch, 1, channels]; all of one precision,
            without a graph.
    """
    count, slope = tokens.shape[1], gamma * inverse
    native = tokens.dtype == grad.dtype == torch.float32 and _native(tokens, grad)
    if native:
        tokens, grad, mean = _rows(tokens), _rows(grad), mean.contiguous()
        sizes, out = _Sizes.of(tokens), tokens.new_empty(tokens.shape)
        given = ctypes.byref(sizes), tokens.data_ptr(), grad.data_ptr(), grad.stride(0), mean.data_ptr()
        sums = tokens.new_empty(tokens.shape[0], 2, tokens.shape[2])
        library().gradient_sums(*given, sums.data_ptr())
        grad_beta, products = sums.split(1, dim=1)
    else:
        grad_beta, centred = grad.sum(dim=1, keepdim=True), tokens - mean
        products = (grad * centred).sum(dim=1, keepdim=True)
    grad_gamma = products * inverse
    # slope * (grad - mean(grad) - normalised tokens * mean(grad * normalised tokens))
    of_centred, constant = slope * inverse * grad_gamma / -count, slope * grad_beta / -count
    if not native:
        return torch.addcmul(constant, centred, of_centred).addcmul_(grad, slope), grad_gamma, grad_beta
    library().gradient(*given, slope.data_ptr(), of_centred.data_ptr(), constant.data_ptr(), out.data_ptr())
    return out, grad_gamma, grad_beta


class _Sizes(ctypes.Structure):
    """Sizes in native/norm.cpp."""

    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "tokens", "channels", "stride", "halves", "threads")]

    @classmethod
    def of(cls, tokens: Tensor) -> "_Sizes":
        return cls(*tokens.shape, tokens.stride(0), tokens.dtype == torch.bfloat16, threads())


def _native(tokens: Tensor, *others: Tensor) -> bool:
    plain = tokens.device.type == "cpu" and tokens.dtype in DTYPES and tokens.numel() > 0
    plain = plain and all(type(t) is Tensor for t in (tokens, *others))
    if not plain or torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return False
    return not isinstance(library(), str)


def _rows(tokens: Tensor) -> Tensor:
    """Each image contiguous; a copy only where it must be."""
    return tokens if tokens[0].is_contiguous() else tokens.contiguous()
