"""Second derivatives of the backends whose kernels come with the first alone. Here such kernels are dense attention."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from registry import HeadGroup
from stylenat.attention import HydraAttention, flex, neighborhood_attention
from stylenat.attention.dense import Dense
from stylenat.attention.flex import Flex
from stylenat.attention.natten_fused import Natten

SHAPES = [(6, 5, 3, 1), (7, 9, 3, 2)]
"""Height, width, kernel size, dilation; the second with ragged classes."""


class Kernel(torch.autograd.Function):
    """The end of a fused kernel: whoever differentiates its gradient gets an error. Counts its calls."""

    forwards = backwards = 0

    @staticmethod
    def forward(ctx, out):
        Kernel.forwards += 1
        return out.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        Kernel.backwards += 1
        return grad


def flex_attention(q, k, v, score_mod, block_mask, scale):
    """FlexAttention's meaning; all three [batch, heads, tokens, head_dim]."""
    return Kernel.apply(as_flex_attention(q, k, v, score_mod, block_mask, scale))


def as_flex_attention(q, k, v, score_mod, block_mask, scale):
    pairs = torch.meshgrid(*map(torch.arange, (*q.shape[:3], q.shape[2])), indexing="ij")
    score = scale * q @ k.transpose(-2, -1)
    score = score if score_mod is None else score_mod(score, *pairs)
    return score.masked_fill(~block_mask.mask_mod(*pairs), -torch.inf).softmax(-1) @ v


def na2d(q, k, v, *, kernel_size, dilation, scale, backend):
    return Kernel.apply(Dense()(q, k, v, kernel_size=kernel_size, dilation=dilation, bias=None, scale=scale))


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    monkeypatch.setattr(flex, "_eager", flex_attention)
    monkeypatch.setitem(sys.modules, "natten", SimpleNamespace(na2d=na2d))
    monkeypatch.setattr(Kernel, "forwards", 0)
    monkeypatch.setattr(Kernel, "backwards", 0)


def inputs(height, width, kernel_size, biased=True):
    random = torch.Generator().manual_seed(height)
    made = [torch.randn(1, height, width, 1, 2, generator=random, dtype=torch.double) for _ in range(3)]
    span = 2 * kernel_size - 1
    made += [torch.randn(1, span, span, generator=random, dtype=torch.double)] if biased else []
    return [t.requires_grad_() for t in made]


def attention(backend, kernel_size, dilation):
    def attend(q, k, v, bias=None):
        return neighborhood_attention(q, k, v, kernel_size=kernel_size, dilation=dilation, bias=bias, backend=backend)

    return attend


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "biased"), [(Flex(True), True), (Flex(True), False), (Natten("any"), False)])
def test_the_second_derivatives_are_those_of_numerical_differences(shape, backend, biased):
    height, width, kernel_size, dilation = shape
    given, attend = inputs(height, width, kernel_size, biased), attention(backend, kernel_size, dilation)
    assert torch.autograd.gradcheck(attend, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(attend, given, fast_mode=True)


def test_values_and_gradients_are_the_kernels_own_and_only_second_derivatives_go_elsewhere():
    given, attend = inputs(6, 5, 3), attention(Flex(True), 3, 1)
    out = attend(*given)
    torch.autograd.grad(out.sum(), given)
    assert (Kernel.forwards, Kernel.backwards) == (1, 1)
    torch.autograd.grad(attend(*given).sum(), given, create_graph=True)
    assert (Kernel.forwards, Kernel.backwards) == (2, 1)
    with torch.no_grad():
        assert attend(*given).grad_fn is None


def test_inputs_that_need_no_gradient_get_none():
    q, k, v, bias = inputs(6, 5, 3)
    attend = attention(Flex(True), 3, 1)
    oracle = torch.autograd.grad(attention("dense", 3, 1)(q, k.detach(), v, bias).square().sum(), (q, v))
    for twice in (False, True):
        out = attend(q, k.detach(), v, bias.detach())
        found = torch.autograd.grad(out.square().sum(), (q, v), create_graph=twice)
        torch.testing.assert_close(found, oracle)


def test_a_retained_graph_gives_the_same_gradients_again():
    given = inputs(6, 5, 3)
    loss = attention(Flex(True), 3, 1)(*given).square().sum()
    first = torch.autograd.grad(loss, given, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, given), first)


def test_it_can_be_recomputed_under_activation_checkpointing():
    given, attend = inputs(6, 5, 3), attention(Flex(True), 3, 1)
    ours = torch.autograd.grad(checkpoint(attend, *given, use_reentrant=False).square().sum(), given)
    torch.testing.assert_close(ours, torch.autograd.grad(attend(*given).square().sum(), given))


def test_a_gradient_penalty_through_a_layer_equals_tiled():
    torch.manual_seed(0)
    groups = [HeadGroup(2, 3, 1), HeadGroup(2, 3, 2)]
    layers = [HydraAttention(12, 4, groups, backend=backend).double() for backend in (Flex(True), "tiled")]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(2, 8, 7, 12, dtype=torch.double, requires_grad=True)
    found = []
    for layer in layers:
        (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        loss = grad.square().sum() + layer(x).sum()
        found.append(torch.autograd.grad(loss, list(layer.parameters())))
    torch.testing.assert_close(*found)


def test_a_compiled_network_takes_the_kernels_in_without_a_graph_break(monkeypatch):
    monkeypatch.setattr(flex, "_eager", as_flex_attention)
    given, attend = inputs(6, 5, 3), attention(Flex(True), 3, 1)
    compiled = torch.compile(attend, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(
        torch.autograd.grad(compiled(*given).square().sum(), given),
        torch.autograd.grad(attend(*given).square().sum(), given),
    )
    torch._dynamo.reset()
