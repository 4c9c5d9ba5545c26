"""The generator blocks' MLP, its wide hidden layer never whole: the backward computes it again, piece by piece."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylenat.networks.pieces import PIECE, Scratch, add_linear, linear


def mlp(
    x: Tensor, expand: nn.Linear, contract: nn.Linear, add_to: Tensor | None = None, scratch: Scratch | None = None
) -> Tensor:
    """``contract(gelu(expand(x)))`` of [..., channels], twice differentiable; a CPU keeps only x for the backward.

    Args:
        add_to: contiguous [batch, tokens, channels] that the result is added to in place; without a graph alone.
        scratch: memory for the hidden layer there.
    """
    if add_to is not None:
        hidden = (scratch or Scratch())(x, *x.shape[:-1], expand.out_features)
        return add_linear(add_to, contract, torch.ops.aten.gelu_(linear(expand, x, hidden)))
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return contract(F.gelu(expand(x)))
    out = _MLP.apply(x.flatten(0, -2), expand.weight, expand.bias, contract.weight, contract.bias)
    return out.view(*x.shape[:-1], -1)


def _rows(x: Tensor, width: int) -> list[slice]:
    step = max(1, PIECE // width)
    return [slice(first, first + step) for first in range(0, len(x), step)]


class _MLP(torch.autograd.Function):
    """x: [tokens, channels]; weights as ``nn.Linear`` has them."""

    @staticmethod
    def forward(ctx, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        ctx.save_for_backward(x, w1, b1, w2, b2)
        out = x.new_empty(len(x), len(w2))
        for rows in _rows(x, len(w1)):
            torch.addmm(b2, torch.ops.aten.gelu_(F.linear(x[rows], w1, b1)), w2.t(), out=out[rows])
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, w1, b1, w2, b2 = ctx.saved_tensors
        if torch.is_grad_enabled():  # A second derivative is wanted: through differentiable pieces.
            given = (x, w1, b1, w2, b2)
            wanted = [t for t in given if t.requires_grad]
            out = F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)
            found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
            return tuple(next(found) if t.requires_grad else None for t in given)
        weights = any(ctx.needs_input_grad[1:])
        grad_x, grad_w1, grad_b1, grad_w2 = (
            torch.empty_like(x), torch.zeros_like(w1), torch.zeros_like(b1), torch.zeros_like(w2)
        )  # fmt: skip
        for rows in _rows(x, len(w1)):
            hidden = F.linear(x[rows], w1, b1)
            grad_hidden = torch.ops.aten.gelu_backward(grad[rows] @ w2, hidden)
            torch.mm(grad_hidden, w1, out=grad_x[rows])
            if weights:
                grad_w1.addmm_(grad_hidden.t(), x[rows])
                grad_b1 += grad_hidden.sum(0)
                grad_w2.addmm_(grad[rows].t(), torch.ops.aten.gelu_(hidden))
        return (grad_x, grad_w1, grad_b1, grad_w2, grad.sum(0)) if weights else (grad_x, None, None, None, None)
