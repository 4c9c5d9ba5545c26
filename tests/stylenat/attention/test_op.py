import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from registry import UserError
from stylenat.attention import neighborhood_attention, plan, tiled
from stylenat.attention.flex import Flex
from stylenat.attention.natten_fused import Natten
from stylenat.attention.op import BACKENDS, choose
from stylenat.attention.window import window


def tensors(height, width, kernel_size, heads=2, dim=4, batch=2):
    random = torch.Generator().manual_seed(0)
    shape = (batch, height, width, heads, dim)
    made = [torch.randn(shape, generator=random, dtype=torch.double) for _ in range(3)]
    span = 2 * kernel_size - 1
    made.append(torch.randn(heads, span, span, generator=random, dtype=torch.double))
    return [t.requires_grad_() for t in made]


def everything(inputs, kernel_size, dilation, backend):
    """The output, its gradients, and second derivatives."""
    q, k, v, bias = inputs

    def op():
        return neighborhood_attention(q, k, v, kernel_size=kernel_size, dilation=dilation, bias=bias, backend=backend)

    out = op()
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    once = torch.autograd.grad(out, inputs, cotangent)
    graph = torch.autograd.grad(op(), inputs, cotangent, create_graph=True)
    twice = torch.autograd.grad(sum(g.square().sum() for g in graph), inputs)
    return [out, *once, *twice]


@pytest.mark.parametrize("chunk", [1, 2**18])
@pytest.mark.parametrize("expanded", [0, 2**18])
@pytest.mark.parametrize(
    "shape", [(7, 7, 7, 1), (16, 16, 7, 2), (20, 17, 3, 1), (17, 19, 3, 5), (41, 40, 13, 3), (33, 18, 7, 1)]
)
def test_tiled_equals_dense_in_value_and_first_and_second_derivatives(shape, chunk, expanded, monkeypatch):
    monkeypatch.setattr(tiled, "CHUNK", chunk)
    monkeypatch.setattr(plan, "EXPANDED_TABLE", expanded)
    plan.plan.cache_clear()
    height, width, kernel_size, dilation = shape
    inputs = tensors(height, width, kernel_size)
    ours = everything(inputs, kernel_size, dilation, "tiled")
    oracle = everything(inputs, kernel_size, dilation, "dense")
    plan.plan.cache_clear()
    for a, b in zip(ours, oracle, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def masking(bias, all_of_head):
    """The bias with -inf for half of its entries, and for all of one head's."""
    masked = bias.detach().masked_fill(torch.arange(bias.numel()).view(bias.shape) % 2 == 0, -torch.inf)
    masked[all_of_head] = -torch.inf
    return masked.requires_grad_()


@pytest.mark.parametrize("chunk", [1, 2**18])
@pytest.mark.parametrize("shape", [(7, 7, 7, 1), (17, 19, 3, 5), (20, 17, 3, 1)])
def test_tiled_equals_dense_where_the_bias_masks_keys(shape, chunk, monkeypatch):
    monkeypatch.setattr(tiled, "CHUNK", chunk)
    height, width, kernel_size, dilation = shape
    *qkv, bias = tensors(height, width, kernel_size)
    inputs = [*qkv, masking(bias, all_of_head=1)]
    ours, oracle = (everything(inputs, kernel_size, dilation, backend) for backend in ("tiled", "dense"))
    for a, b in zip(ours, oracle, strict=True):
        assert b.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["dense", "tiled", "compiled"])
def test_a_masked_key_has_no_weight_and_a_query_without_keys_gives_0(backend):
    q, k, v, bias = (t.detach().float() for t in tensors(9, 8, 3, dim=16))
    if (reason := BACKENDS[backend].unsupported(q, 3, 1, bias)) is not None:
        pytest.skip(reason)
    bias[0, 2, 2] = -torch.inf  # Head 0: no query sees itself.
    bias[1] = -torch.inf
    inputs = [t.requires_grad_() for t in (q, k, v, bias)]
    out = neighborhood_attention(q, k, v, kernel_size=3, bias=bias, backend=backend)
    assert not out[:, :, :, 1].any() and out[:, :, :, 0].isfinite().all()
    (of_v,) = torch.autograd.grad(out[0, 4, 4, 0].sum(), v, retain_graph=True)
    assert of_v[0, 4, 4, 0].abs().max() == 0 and of_v[0, 4, 5, 0].abs().min() > 0
    *of_qkv, of_bias = torch.autograd.grad(out.sum(), inputs)
    assert not any(gradient[:, :, :, 1].any() for gradient in of_qkv) and not of_bias[1].any()
    assert all(gradient.isfinite().all() for gradient in (*of_qkv, of_bias))


@pytest.mark.filterwarnings("ignore:flex_attention called without", "ignore:return_lse is deprecated")
@pytest.mark.parametrize("shape", [(7, 7, 7, 1), (16, 16, 7, 2), (17, 19, 3, 5), (20, 9, 3, 3)])
def test_flex_equals_dense(shape):
    height, width, kernel_size, dilation = shape
    q, k, v, bias = (t.detach() for t in tensors(height, width, kernel_size))
    for table in (bias, masking(bias, all_of_head=1).detach(), None):
        options = {"kernel_size": kernel_size, "dilation": dilation, "bias": table}
        ours = neighborhood_attention(q, k, v, backend=Flex(eager=True), **options)
        torch.testing.assert_close(ours, neighborhood_attention(q, k, v, backend="dense", **options))


@pytest.mark.filterwarnings("ignore:flex_attention called without", "ignore:return_lse is deprecated")
@pytest.mark.parametrize("shape", [(14, 15, 7, 2), (16, 16, 7, 1)])
def test_natten_equals_dense(shape):
    height, width, kernel_size, dilation = shape
    q, k, v, _ = (t.detach().float() for t in tensors(height, width, kernel_size, dim=32))
    options = {"kernel_size": kernel_size, "dilation": dilation}
    ours = neighborhood_attention(q, k, v, backend=Natten("flex-fna"), **options)
    torch.testing.assert_close(ours, neighborhood_attention(q, k, v, backend="dense", **options), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend, reason", [("natten", "no relative position bias"), ("flex", "compiled for CUDA")])
def test_a_backend_that_cannot_be_used_says_why_and_names_one_that_can(backend, reason):
    q, k, v, bias = tensors(9, 8, 3)
    with pytest.raises(UserError, match=f"{reason}.*'tiled' can"):
        neighborhood_attention(q, k, v, kernel_size=3, bias=bias, backend=backend)


class Strict:
    """A plugin's backend that takes one kernel size."""

    name = "strict"

    def __init__(self, kernel_size):
        self.kernel_size, self.calls = kernel_size, 0

    def unsupported(self, q, kernel_size, dilation, bias):
        return None if kernel_size == self.kernel_size else f"it takes kernel size {self.kernel_size}"

    def __call__(self, q, k, v, **options):
        self.calls += 1
        return BACKENDS["tiled"](q, k, v, **options)


def test_a_list_of_backends_is_asked_in_its_order_and_before_the_bundled_ones():
    q, k, v, bias = tensors(9, 8, 5)
    first, second = Strict(3), Strict(5)
    assert choose([first, second], q, 5, 1, bias) is second and choose([first, "dense"], q, 5, 1, bias).name == "dense"
    assert choose([first], q, 5, 1, bias) is choose(None, q, 5, 1, bias) is choose([], q, 5, 1, bias)
    neighborhood_attention(q, k, v, kernel_size=5, bias=bias, backend=[first, second])
    assert (first.calls, second.calls) == (0, 1)
    with pytest.raises(UserError, match="'strict' cannot be used: it takes kernel size 3"):
        neighborhood_attention(q, k, v, kernel_size=5, bias=bias, backend=first)
    with pytest.raises(UserError, match="no attention backend 'tield'.*'tiled'"):
        neighborhood_attention(q, k, v, kernel_size=5, bias=bias, backend=[first, "tield"])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_tiled_equals_dense_at_any_size(data):
    kernel_size = data.draw(st.sampled_from([3, 5, 7]))
    dilation = data.draw(st.integers(1, 4))
    sides = st.integers(kernel_size * dilation, kernel_size * dilation + 20)
    q, k, v, bias = tensors(data.draw(sides), data.draw(sides), kernel_size, heads=1, batch=1)
    both = [
        neighborhood_attention(q, k, v, kernel_size=kernel_size, dilation=dilation, bias=bias, backend=name)
        for name in ("tiled", "dense")
    ]
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 2**18])
def test_gradcheck_and_gradgradcheck_pass(chunk, monkeypatch):
    monkeypatch.setattr(tiled, "CHUNK", chunk)
    inputs = [t.detach()[..., :2].requires_grad_() for t in tensors(4, 5, 3, heads=1, batch=1)[:3]]
    bias = tensors(4, 5, 3, heads=1)[3]

    def op(q, k, v, bias):
        return neighborhood_attention(q, k, v, kernel_size=3, bias=bias, backend="tiled")

    assert torch.autograd.gradcheck(op, (*inputs, bias))
    assert torch.autograd.gradgradcheck(op, (*inputs, bias))


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for t in made if isinstance(made, tuple | list) else [made]:
            if isinstance(t, torch.Tensor):
                self.elements = max(self.elements, t.numel())
        return made


@pytest.mark.parametrize("backend", ["tiled", "compiled"])
@pytest.mark.parametrize("dilation", [1, 4])
def test_nothing_larger_than_keys_and_values_together_is_made(backend, dilation, monkeypatch):
    monkeypatch.setattr(tiled, "CHUNK", 2**15)
    q, k, v, bias = (t.detach().float().requires_grad_() for t in tensors(96, 64, 7, dim=8, heads=4))
    if (reason := BACKENDS[backend].unsupported(q, 7, dilation, bias)) is not None:
        pytest.skip(reason)
    with Largest() as largest:
        out = neighborhood_attention(q, k, v, kernel_size=7, dilation=dilation, bias=bias, backend=backend)
        torch.autograd.grad(out, (q, k, v, bias), torch.ones_like(out))
    assert largest.elements <= 2 * q.numel()


@given(st.integers(1, 60), st.sampled_from([3, 5, 7]), st.integers(1, 5))
def test_every_window_has_kernel_size_keys_of_its_own_residue_class(size, kernel_size, dilation):
    size = max(size, kernel_size * dilation)
    for position in range(size):
        keys = window(position, size, kernel_size, dilation)
        assert len(keys) == kernel_size and 0 <= keys[0] and keys[-1] < size
        assert all(key % dilation == position % dilation for key in keys) and position in keys


@pytest.mark.parametrize("backend", [None, "tiled"])
def test_half_precision_and_autocast_keep_their_dtype_and_agree(backend):
    q, k, v, bias = (t.detach().float() for t in tensors(9, 8, 3))
    exact = neighborhood_attention(q, k, v, kernel_size=3, bias=bias, backend=backend)
    half = neighborhood_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), kernel_size=3, bias=bias, backend=backend)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(neighborhood_attention(q, k, v, kernel_size=3, bias=bias, backend=backend), exact)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kernel_size": 4}, "odd"),
        ({"kernel_size": 3, "dilation": 0}, "dilation"),
        ({"kernel_size": 7, "dilation": 2}, "exceeds the 9 x 8"),
        ({"kernel_size": 3, "bias": torch.zeros(2, 3, 3)}, "bias must be"),
        ({"kernel_size": 3, "k": torch.zeros(2, 9, 8, 2, 4)}, "one dtype on one device; got .*float64.*float32"),
        ({"kernel_size": 3, "backend": "warp"}, "There are triton, natten, flex, compiled, tiled, dense"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(options, message):
    q, k, v, _ = tensors(9, 8, 3)
    with pytest.raises(UserError, match=message):
        neighborhood_attention(**{"q": q, "k": k, "v": v} | options)
