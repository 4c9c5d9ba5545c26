"""The memory of the op and of its masks grows with the tokens, never with their square."""

import pytest
import torch
from unlaunched import Unlaunched

from stylenat.attention import neighborhood_attention
from stylenat.attention.flex_mask import _tables, block_mask
from stylenat.attention.plan import plan
from stylenat.training.live_memory import LiveMemory


def differentiated(side, dilation, backend, twice=False):
    """The memory of forward and backward, with the plan made anew."""
    plan.cache_clear()
    random = torch.Generator().manual_seed(side)
    q, k, v = (torch.randn(1, side, side, 1, 8, generator=random).requires_grad_() for _ in range(3))
    bias = torch.randn(1, 13, 13, generator=random).requires_grad_()
    with LiveMemory() as memory:
        out = neighborhood_attention(q, k, v, kernel_size=7, dilation=dilation, bias=bias, backend=backend)
        grads = torch.autograd.grad(out.sum(), (q, k, v, bias), create_graph=twice)
        if twice:
            sum(g.square().sum() for g in grads).backward()
    return memory


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("backend", ["tiled", "compiled", "triton"])
@pytest.mark.parametrize("classes", [None, 8], ids=["dilation 1", "dilation side / 8"])
def test_four_times_the_tokens_take_four_times_the_memory(backend, classes, twice):
    if backend == "triton":
        pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds for Linux")
    chosen = Unlaunched() if backend == "triton" else backend
    small, large = (differentiated(side, side // (classes or side), chosen, twice) for side in (48, 96))
    assert large.peak <= 4.5 * small.peak
    assert large.largest <= 4.5 * small.largest and small.largest < 48**4


def test_dense_attention_would_be_noticed():
    small, large = (differentiated(side, 1, "dense") for side in (8, 16))
    assert large.peak > 10 * small.peak and large.largest >= 16**4


@pytest.mark.parametrize(("kernel_size", "dilation"), [(7, 1), (7, 3), (3, 5)])
def test_the_block_mask_takes_two_bytes_a_token_at_any_size(kernel_size, dilation):
    for side in (64, 256, 512):
        _tables.cache_clear()
        with LiveMemory() as memory:
            block_mask(1, side, side, kernel_size, dilation, torch.device("cpu"))
        assert 0 < memory.peak <= 2 * side**2
