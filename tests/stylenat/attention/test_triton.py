"""Backend ``triton`` without a GPU: its kernels in Triton's interpreter against the oracle, and what it refuses.

``tests/conftest.py`` sets TRITON_INTERPRET where there is no GPU. What the kernels are compiled to for real cards is in
``test_triton_compiled.py``.
"""

import sys

import pytest
import torch

from registry import HeadGroup, UserError
from stylenat.attention import HydraAttention, neighborhood_attention
from stylenat.attention.dense import Dense
from stylenat.attention.op import BACKENDS
from stylenat.attention.tiled import Tiled
from stylenat.attention.triton_fused import Tiles, Triton, tiles_for
from stylenat.attention.window import window

triton = pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds for Linux")
interpreted = Triton(interpreted=True)

# Height, width, kernel size, dilation, head_dim: every border, ragged classes, kernel x dilation = side, several tiles.
SHAPES = [
    (8, 8, 7, 1, 16),
    (18, 17, 7, 1, 32),
    (15, 14, 7, 2, 8),
    (23, 22, 7, 3, 32),
    (9, 13, 3, 3, 24),
    (13, 13, 13, 1, 16),
    (8, 10, 3, 1, 64),
    (7, 7, 7, 1, 128),
]


def made(height, width, kernel_size, dim, heads=1, batch=1, dtype=torch.float32):
    random = torch.Generator().manual_seed(height * width + dim)
    qkv = torch.randn(batch, height, width, 3, heads, dim, generator=random).to(dtype)
    bias = torch.randn(heads, 2 * kernel_size - 1, 2 * kernel_size - 1, generator=random)
    grad = torch.randn(batch, height, width, heads, dim, generator=random).to(dtype)
    return qkv.requires_grad_(), bias.requires_grad_(), grad


def results(backend, qkv, bias, grad, kernel_size, dilation):
    """The output and the gradients of q, k and v together, and of the bias."""
    q, k, v = qkv.unbind(3)
    out = backend(q, k, v, kernel_size=kernel_size, dilation=dilation, bias=bias, scale=qkv.shape[-1] ** -0.5)
    return [out, *torch.autograd.grad(out, [qkv] if bias is None else [qkv, bias], grad)]


def exactly(qkv, bias, grad, kernel_size, dilation):
    high = [None if t is None else t.detach().double().requires_grad_() for t in (qkv, bias)]
    return results(Dense(), *high, grad.double(), kernel_size, dilation)


def error(ours, exact):
    return float((ours.detach().double() - exact.detach()).norm() / exact.detach().norm())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernels_equal_the_oracle_in_float64_and_give_the_same_bits_twice(shape):
    height, width, kernel_size, dilation, dim = shape
    inputs = made(height, width, kernel_size, dim)
    ours, exact = results(interpreted, *inputs, kernel_size, dilation), exactly(*inputs, kernel_size, dilation)
    assert error(ours[0], exact[0]) < 2e-6
    for gradient, expected in zip(ours[1:], exact[1:], strict=True):
        assert error(gradient, expected) < 5e-6
    if height * width < 150:
        again = results(interpreted, *inputs, kernel_size, dilation)
        assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_as_its_rounding_allows(dtype):
    inputs = made(9, 8, 3, 16, heads=2, dtype=dtype)
    ours, exact = results(interpreted, *inputs, 3, 1), exactly(*inputs, 3, 1)
    assert ours[0].dtype == ours[1].dtype == dtype and ours[2].dtype == torch.float32
    assert all(error(a, b) < 4 * torch.finfo(dtype).eps for a, b in zip(ours, exact, strict=True))


def test_without_a_bias_and_with_one_that_is_not_trained():
    qkv, bias, grad = made(6, 7, 3, 16, batch=2)
    fixed = bias.detach()
    for given in (None, fixed):
        high = None if given is None else given.double()
        ours = results_of_qkv(interpreted, qkv, given, grad)
        exact = results_of_qkv(Dense(), qkv.detach().double().requires_grad_(), high, grad.double())
        assert error(ours[0], exact[0]) < 2e-6 and error(ours[1], exact[1]) < 5e-6


def results_of_qkv(backend, qkv, bias, grad):
    out = backend(*qkv.unbind(3), kernel_size=3, dilation=2, bias=bias, scale=0.3)
    return [out, *torch.autograd.grad(out, qkv, grad)]


def test_a_second_derivative_goes_through_differentiable_pieces():
    qkv, bias, grad = made(8, 8, 3, 8)
    found = []
    for backend in (interpreted, Tiled()):
        first = results_with_graph(backend, qkv, bias, grad)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), (qkv, bias)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def results_with_graph(backend, qkv, bias, grad):
    out = backend(*qkv.unbind(3), kernel_size=3, dilation=1, bias=bias, scale=0.3)
    return torch.autograd.grad(out, (qkv, bias), grad, create_graph=True)


def test_a_bias_of_minus_infinity_masks_its_keys_and_a_query_without_keys_gives_0():
    qkv, bias, grad = made(6, 5, 3, 16, heads=2)
    masked = bias.detach().masked_fill(bias > 0, -torch.inf)
    masked[1] = -torch.inf
    inputs = (qkv, masked.requires_grad_(), grad)
    ours, exact = results(interpreted, *inputs, 3, 1), exactly(*inputs, 3, 1)
    assert all(error(a, b) < 5e-6 for a, b in zip(ours, exact, strict=True))
    assert not ours[0][:, :, :, 1].any() and not ours[1][:, :, :, :, 1].any() and not ours[2][1].any()


def test_the_groups_of_a_layer_share_one_output_and_one_gradient(monkeypatch):
    groups = [HeadGroup(1, 3, 1), HeadGroup(2, 3, 2), HeadGroup(1, 5, 1)]
    torch.manual_seed(0)
    layer = HydraAttention(32, 4, groups, backend=interpreted)
    oracle = HydraAttention(32, 4, groups, backend=Dense())
    oracle.load_state_dict(layer.state_dict())
    launched = []
    launch = Triton._launch
    monkeypatch.setattr(
        Triton, "_launch", lambda self, name, *a, **k: launched.append(name) or launch(self, name, *a, **k)
    )
    x = torch.randn(1, 6, 6, 32)
    for module in (layer, oracle):
        module(x).square().sum().backward()
    assert launched == ["attention_forward"] * 3 + ["attention_backward_queries", "attention_backward_keys"] * 3
    for ours, theirs in zip(layer.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("size", "kernel_size"), [(7, 7), (9, 3), (24, 5), (13, 13)])
def test_the_kernels_windows_are_those_of_every_backend(size, kernel_size):
    from triton_windows import windows

    first, last, pairs = windows(size, kernel_size)
    for query in range(size):
        assert pairs[query].nonzero().flatten().tolist() == window(query, size, kernel_size, 1)
    for key in range(size):
        queries = pairs[:, key].nonzero().flatten().tolist()
        assert (first[key], last[key]) == (queries[0], queries[-1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": torch.float64}, "float32, bfloat16 and float16"),
        ({"dim": 144}, "head_dim of at most 128, not 144"),
        ({"kernel_size": 65, "side": 65}, "kernel_size of at most 63, not 65"),
    ],
)
def test_what_the_kernels_do_not_take_is_refused_with_the_reason(change, reason):
    options = {"dtype": torch.float32, "dim": 16, "kernel_size": 3, "side": 8} | change
    q = torch.zeros(1, options["side"], options["side"], 1, options["dim"], dtype=options["dtype"])
    assert reason in interpreted.unsupported(q, options["kernel_size"], 1, None)


def test_on_a_cpu_it_says_that_it_is_for_cuda_and_which_backend_can():
    q = torch.zeros(1, 8, 8, 1, 16)
    with pytest.raises(UserError, match="'triton' cannot be used: its kernels are for CUDA.*; '.*' can"):
        neighborhood_attention(q, q, q, kernel_size=3, backend="triton")


def test_an_old_gpu_and_a_missing_triton_are_named(monkeypatch):
    class OnCuda(torch.Tensor):
        device = torch.device("cuda", 0)

    q = torch.zeros(1, 8, 8, 1, 16).as_subclass(OnCuda)
    assert "plain tensors" in BACKENDS["triton"].unsupported(q, 3, 1, None)
    monkeypatch.setattr("stylenat.attention.triton_fused.PLAIN", (OnCuda,))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert "compute capability 8.0, and this GPU has 7.0" in BACKENDS["triton"].unsupported(q, 3, 1, None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton is not installed" in BACKENDS["triton"].unsupported(q, 3, 1, None)


def test_it_comes_first_on_a_gpu():
    names = list(BACKENDS)
    assert names.index("triton") < min(names.index(name) for name in ("natten", "flex", "compiled", "tiled", "dense"))


@pytest.mark.parametrize("dim", [8, 32, 64, 128])
@pytest.mark.parametrize("kernel", ["attention_forward", "attention_backward_queries", "attention_backward_keys"])
def test_tiles_and_strips_are_powers_of_two(kernel, dim):
    for precision in ("ieee", "tf32", "bf16"):
        tiles = tiles_for(kernel, dim, precision)
        assert isinstance(tiles, Tiles)
        for size in (*tiles.tile, *tiles.strip, tiles.warps):
            assert size & (size - 1) == 0
        # Triton before 3.8 takes no product with a shorter side.
        assert tiles.strip[0] * tiles.strip[1] >= 16
        assert kernel != "attention_backward_queries" or tiles.tile[0] * tiles.strip[0] >= 16


@pytest.mark.parametrize(
    ("dtype", "tf32", "name"),
    [
        (torch.float32, False, "ieee"),
        (torch.float32, True, "tf32"),
        (torch.bfloat16, True, "bf16"),
        (torch.float16, False, "fp16"),
    ],
)
def test_a_call_has_the_tiles_that_were_compiled_for_its_precision(dtype, tf32, name, request):
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, tf32
    request.addfinalizer(lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", before))
    for kernel in ("attention_forward", "attention_backward_queries", "attention_backward_keys"):
        for dim in (8, 32, 64):
            assert Triton._tiles(kernel, torch.empty(1, 8, 8, 1, dim, dtype=dtype)) == tiles_for(kernel, dim, name)


def test_the_share_of_memory_of_a_query_does_not_grow_with_the_image():
    def partials(side):
        q = torch.empty(1, side, side, 1, 32, device="meta")
        return interpreted._partial(q, HeadGroup(1, 7, 1)).numel() / side**2

    assert partials(256) == partials(64)


def test_gradients_are_exact_where_a_bias_of_minus_a_billion_lies_on_every_key_of_a_query():
    qkv, bias, grad = made(9, 9, 3, 16, heads=2)
    bias = torch.zeros_like(bias)
    bias[0], bias[1, 1:4, 1:4] = -1e9, -1e9  # Of the second head, the keys of queries away from the border.
    qkv = qkv.detach()
    qkv[:, :, :, 0] = 0  # Scores that lose nothing beside it.
    qkv, bias = qkv.requires_grad_(), bias.requires_grad_()
    for ours, exact in zip(results(interpreted, qkv, bias, grad, 3, 1), exactly(qkv, bias, grad, 3, 1), strict=True):
        assert error(ours, exact) < 5e-6
