"""Instance norm over tokens with a modulation, in few passes over the map, forward and backward.

On CUDA with Triton it is the operator ``stylenat::modulated_norm``, and its gradient another one; their kernels are in
``fused_norm``, and on a CPU they compute the plain formula. A second derivative goes through differentiable pieces.
"""

import torch
from torch import Tensor

from stylenat.attention.shape import without_data
from stylenat.networks import fused_norm
from stylenat.networks.fused_norm import tokens_of
from stylenat.networks.moments import gradients, modulated, moments


def modulated_norm(x: Tensor, modulation: Tensor, eps: float) -> Tensor:
    """``gamma * (x - mean) / sqrt(variance + eps) + beta``, with the statistics of each channel over an image's tokens.

    Statistics and result are in float32 (float64 of float64), whatever precision the network runs in. Under autocast
    the operator rounds its result to autocast's precision, as the product that follows would.

    Args:
        x: [batch, ..., channels] or [batch * tokens, channels]; modulation: [batch, 2 * channels], gamma before beta.
    """
    return (fused if _usable(x, modulation) else plain)(x, modulation, eps)


def _usable(x: Tensor, modulation: Tensor) -> bool:
    """Whether the operator is used. A compiler gets the plain formula, which it joins with the operations around it."""
    if torch.compiler.is_compiling() or not {x.dtype, modulation.dtype}.issubset(fused_norm.DTYPES):
        return False
    return without_data(x) or (x.device.type == "cuda" and fused_norm.why_not(x.device.index) is None)


def fused(x: Tensor, modulation: Tensor, eps: float) -> Tensor:
    """``modulated_norm`` by the operator, for inputs of ``fused_norm.DTYPES``."""
    return _Fused.apply(x, modulation, eps, _precision(x.device.type))


def plain(x: Tensor, modulation: Tensor, eps: float) -> Tensor:
    """``modulated_norm`` by PyTorch's own operators."""
    dtype = torch.float64 if torch.float64 in (x.dtype, modulation.dtype) else torch.float32
    out = _Plain.apply(tokens_of(x, modulation).to(dtype), *_halves(modulation, dtype), eps)
    return out if x.ndim == 3 else out.view(x.shape)


def _precision(kind: str) -> torch.dtype:
    """Of the operator's result on a kind of device."""
    autocast = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if autocast else torch.float32


def _halves(modulation: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """gamma and beta, [batch, 1, channels] each."""
    return modulation[:, None].to(dtype).chunk(2, dim=-1)


def _normalised(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The result, the means and the inverse deviations; gamma, beta and the statistics are [batch, 1, channels]."""
    variance, mean = moments(x)
    inverse = torch.rsqrt(variance + eps)
    return modulated(x, mean, gamma * inverse, beta), mean, inverse


def _differentiable(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
    return (x - mean) * torch.rsqrt(variance + eps) * gamma + beta


def _twice(out: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> list[Tensor | None]:
    """The gradients of the inputs, which can be differentiated; None for those that need none."""
    found = iter(torch.autograd.grad(out, [t for t in inputs if t.requires_grad], grad, create_graph=True))
    return [next(found) if t.requires_grad else None for t in inputs]


class _Plain(torch.autograd.Function):
    """x: [batch, tokens, channels]; gamma, beta: [batch, 1, channels]; of one precision."""

    @staticmethod
    def forward(ctx, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        out, mean, inverse = _normalised(x, gamma, beta, eps)
        ctx.save_for_backward(x, gamma, beta, mean, inverse)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, gamma, beta, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # A second derivative is wanted.
            inputs = (x, gamma, beta)
            return (*_twice(_differentiable(*inputs, ctx.eps), inputs, grad), None)
        return (*gradients(grad, x, gamma, mean, inverse), None)


class _Fused(torch.autograd.Function):
    """The operators. Autograd by ``torch.library`` would take the host 30 microseconds a layer more than this."""

    @staticmethod
    def forward(ctx, x: Tensor, modulation: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        out, statistics = torch.ops.stylenat.modulated_norm(x, modulation, eps, dtype)
        ctx.save_for_backward(x, modulation, statistics)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, modulation, statistics = ctx.saved_tensors
        if torch.is_grad_enabled():  # A second derivative is wanted.
            out = _differentiable(tokens_of(x, modulation).float(), *_halves(modulation, torch.float32), ctx.eps)
            return (*_twice(out.to(grad.dtype).view(grad.shape), (x, modulation), grad), None, None)
        return (*torch.ops.stylenat.modulated_norm_backward(grad, x, modulation, statistics), None, None)


_library = torch.library.Library("stylenat", "FRAGMENT")
# The result in ``dtype``; the means and the inverse deviations, float32 [batch, 2, channels].
_library.define("modulated_norm(Tensor x, Tensor modulation, float eps, ScalarType dtype) -> (Tensor, Tensor)")
# The gradients of x and of the modulation.
_library.define(
    "modulated_norm_backward(Tensor grad, Tensor x, Tensor modulation, Tensor statistics) -> (Tensor, Tensor)"
)


def _forward_on_cpu(x: Tensor, modulation: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    out, *statistics = _normalised(tokens_of(x, modulation).float(), *_halves(modulation, torch.float32), eps)
    return out.to(dtype).view(x.shape), torch.cat(statistics, dim=1)


def _backward_on_cpu(grad: Tensor, x: Tensor, modulation: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
    gamma, _ = _halves(modulation, torch.float32)
    grad, tokens = (tokens_of(t, modulation).float() for t in (grad, x))
    grad_x, *halves = gradients(grad, tokens, gamma, *statistics.split(1, dim=1))
    return grad_x.to(x.dtype).view(x.shape), torch.cat(halves, dim=2)[:, 0].to(modulation.dtype)


for _name, _cpu, _cuda, _fake in (
    ("modulated_norm", _forward_on_cpu, fused_norm.forward, fused_norm.outputs),
    ("modulated_norm_backward", _backward_on_cpu, fused_norm.backward, fused_norm.gradients),
):
    _library.impl(_name, _cpu, "CPU")
    _library.impl(_name, _cuda, "CUDA")
    torch.library.register_fake(f"stylenat::{_name}", _fake, lib=_library)
