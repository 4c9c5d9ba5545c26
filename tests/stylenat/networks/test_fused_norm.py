"""The modulated norm's kernels in Triton's interpreter against the plain formula in float64, and who takes them.

``tests/conftest.py`` sets TRITON_INTERPRET where there is no GPU. What they are compiled to for real cards is in
``tests/stylenat/attention/test_triton_compiled.py``.
"""

import sys

import pytest
import torch
from pretended_gpu import pretended_gpu
from torch.utils._python_dispatch import TorchDispatchMode

from plugins.blocks.hydra import HydraBlock
from plugins.partitions.split import Split
from registry import AttentionSite
from stylenat.networks import fused_norm, modulated_norm
from stylenat.networks.fused_norm import LEAST, MOST, Cut, cut_for
from stylenat.networks.layers import AdaIN

pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds for Linux")
EPS = 1e-5


def made(batch, tokens, channels, mean=0.0, dtype=torch.float32, modulation=torch.float32):
    random = torch.Generator().manual_seed(tokens * channels)
    x, grad = (torch.randn(batch, tokens, channels, generator=random) for _ in range(2))
    # Every channel with a deviation of its own.
    x = x * (0.5 + torch.rand(channels, generator=random)) + mean
    return x.to(dtype), torch.randn(batch, 2 * channels, generator=random).to(modulation), grad.to(dtype)


def formula(x, modulation, eps=EPS):
    """As it is printed: instance norm over tokens, times gamma, plus beta."""
    gamma, beta = modulation[:, None].chunk(2, dim=-1)
    centred = x - x.mean(dim=1, keepdim=True)
    return gamma * centred / (centred.square().mean(dim=1, keepdim=True) + eps).sqrt() + beta


def exactly(x, modulation, grad):
    """The result, and the gradients of x and the modulation, in float64."""
    high = [t.detach().double().requires_grad_() for t in (x, modulation)]
    out = formula(*high)
    return [out.detach(), *torch.autograd.grad(out, high, grad.double())]


def fused(x, modulation, grad, cut=None, dtype=torch.float32):
    out, statistics = fused_norm.forward(x, modulation, EPS, dtype, cut)
    return [out, *fused_norm.backward(grad, x, modulation, statistics, cut)]


def error(ours, exact):
    return float((ours.detach().double() - exact).norm() / exact.norm())


# Tokens, channels, cut: one program or several chunks, the last of them whole or ragged, channels of one block or more.
CASES = [
    (16, 16, None),
    (35, 3, None),
    (1, 5, None),
    (70, 72, None),
    (32, 16, Cut(16, 8, 16)),
    (21, 24, Cut(16, 4, 8)),
    (9, 33, Cut(32, 2, 8)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernels_equal_the_formula_in_float64_and_give_the_same_bits_twice(case):
    tokens, channels, cut = case
    inputs = made(2, tokens, channels)
    ours, exact = fused(*inputs, cut), exactly(*inputs)
    if tokens > 1:
        assert all(error(a, b) < 2e-6 for a, b in zip(ours, exact, strict=True))
    else:  # The variance of one token is 0.
        torch.testing.assert_close(ours[0], exact[0].float())
        assert not ours[1].any()
    if cut is not None:
        assert all(torch.equal(a, b) for a, b in zip(ours, fused(*inputs, cut), strict=True))


@pytest.mark.parametrize("cut", [None, Cut(16, 8, 80)])
def test_a_mean_a_thousand_times_the_deviation_costs_its_own_rounding_alone(cut):
    inputs = made(1, 250, 16, mean=1e3)
    ours, exact = fused(*inputs, cut), exactly(*inputs)
    # Half a unit in the last place of 1e3 is 3e-5.
    assert error(ours[0], exact[0]) < 6e-5
    assert error(ours[1], exact[1]) < 6e-5 and error(ours[2], exact[2]) < 6e-5
    _, statistics = fused_norm.forward(*inputs[:2], EPS, torch.float32, cut)
    variance = inputs[0].double().var(dim=1, correction=0)
    assert error(statistics[:, 1], (variance + EPS).rsqrt()) < 5e-6


def test_one_token_that_is_far_from_all_others():
    x, modulation, grad = made(1, 200, 16)
    x[:, 0] = 1e4
    assert all(
        error(a, b) < 1e-5 for a, b in zip(fused(x, modulation, grad), exactly(x, modulation, grad), strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_and_written_as_it_is_with_statistics_in_float32(dtype):
    x, modulation, grad = made(2, 40, 24, dtype=dtype, modulation=dtype)
    ours, exact = fused(x, modulation, grad, Cut(16, 4, 16), dtype), exactly(x, modulation, grad)
    assert all(t.dtype == dtype for t in ours)
    assert all(error(a, b) < torch.finfo(dtype).eps for a, b in zip(ours, exact, strict=True))
    out, statistics = fused_norm.forward(x, modulation, EPS, torch.float32, None)
    assert out.dtype == statistics.dtype == torch.float32 and error(out, exact[0]) < 2e-6


def test_strided_inputs_are_read_where_they_are():
    x, modulation, grad = made(2, 12, 16)
    exact = exactly(x[:1].expand(3, -1, -1), modulation[:1].expand(3, -1), grad[:1].expand(3, -1, -1))
    wide = torch.zeros(12, 3, 40)
    wide[..., 4:20] = x[0][:, None]
    columns = modulation[0, :, None].repeat(1, 3)
    for given in (
        (x[:1].expand(3, -1, -1), modulation[:1].expand(3, -1), grad[:1].expand(3, -1, -1)),
        (wide.transpose(0, 1)[..., 4:20], columns.t(), grad[0].t().contiguous().t().expand(3, -1, -1)),
        (x[:1].expand(3, -1, -1).unflatten(1, (4, 3)), columns.t(), grad[0].expand(3, -1, -1).unflatten(1, (2, 6))),
    ):
        out, *gradients = fused(*given)
        assert out.shape == gradients[0].shape == given[0].shape
        ours = out.flatten(1, -2), gradients[0].flatten(1, -2), gradients[1]
        assert all(error(a, b) < 2e-6 for a, b in zip(ours, exact, strict=True))


@pytest.mark.parametrize("function", [modulated_norm.plain, modulated_norm.fused, "kernels"])
def test_the_tokens_of_a_batch_may_be_the_rows_of_a_matrix(function):
    x, modulation, grad = (t.requires_grad_() for t in made(3, 20, 7))
    found = []
    for shape in (x.shape, (60, 7)):
        if function == "kernels":
            with torch.no_grad():
                found.append(fused(x.view(shape), modulation, grad.view(shape)))
                continue
        out = function(x.view(shape), modulation, EPS)
        first = torch.autograd.grad(out, (x, modulation), grad.view(shape), create_graph=True)
        found.append([out, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, modulation, grad))])
        assert out.shape == shape
    for rows, tokens in zip(*reversed(found), strict=True):
        torch.testing.assert_close(rows.flatten(), tokens.flatten())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operators_on_a_cpu_are_the_kernels_formula(dtype):
    x, modulation, grad = made(2, 30, 7, dtype=dtype, modulation=dtype)
    with torch.no_grad():
        out, statistics = torch.ops.stylenat.modulated_norm(x, modulation, EPS, dtype)
        plain = out, *torch.ops.stylenat.modulated_norm_backward(grad, x, modulation, statistics)
    assert all(t.dtype == dtype for t in plain)
    kept = fused_norm.forward(x, modulation, EPS, dtype)[1]
    torch.testing.assert_close(statistics, kept, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(plain, fused(x, modulation, grad, dtype=dtype), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2 * torch.finfo(dtype).eps, atol=2e-5)


def test_the_shapes_for_tracers_are_those_of_the_operators():
    x, modulation, grad = made(2, 6, 5, dtype=torch.bfloat16)
    x, grad = (t.view(2, 3, 2, 5) for t in (x, grad))
    statistics = torch.zeros(2, 2, 5)
    operators = torch.ops.stylenat
    for operator, given in (
        (operators.modulated_norm, (x, modulation, EPS, torch.float32)),
        (operators.modulated_norm, (x, modulation, EPS, torch.float16)),
        (operators.modulated_norm_backward, (grad, x, modulation, statistics)),
    ):
        torch.library.opcheck(operator.default, given, test_utils=("test_schema", "test_faketensor"))


def test_a_second_derivative_of_the_operator_goes_through_differentiable_pieces():
    x, modulation, grad = made(2, 10, 3)
    x, grad = (t.view(2, 5, 2, 3) for t in (x, grad))
    x, modulation, grad = (t.requires_grad_() for t in (x, modulation, grad))
    found = []
    for f in (
        lambda: modulated_norm.fused(x, modulation, EPS),
        lambda: formula(x.flatten(1, 2), modulation).view(x.shape),
    ):
        first = torch.autograd.grad(f(), (x, modulation), grad, create_graph=True)
        found.append([*first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, modulation, grad))])
        (alone,) = torch.autograd.grad(f(), modulation, grad, create_graph=True)
        found[-1] += torch.autograd.grad(alone.square().sum(), (x, grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def results(device, dtype=torch.float32, made=lambda: AdaIN(6, 5), side=(3, 4), channels=6):
    """Of a layer: the result, and the gradients of its inputs and parameters."""
    torch.manual_seed(0)
    layer, shape = made().to(device, dtype), (2, *side, channels)
    x, style, grad = (torch.randn(*size).to(device, dtype) for size in (shape, (2, 5), shape))
    given = [x.requires_grad_(), style.requires_grad_()]
    out = layer(*given)
    return [t.detach().cpu() for t in (out, *torch.autograd.grad(out, [*given, *layer.parameters()], grad))]


@pytest.fixture
def compiler(monkeypatch):
    """Says that there is a C compiler; whether there is one is no matter here."""
    monkeypatch.setenv("CC", "cc")
    fused_norm._no_compiler.cache_clear()
    yield
    fused_norm._no_compiler.cache_clear()


class Seen(TorchDispatchMode):
    """The names of the norm's operators, in order."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names += [name] if (name := function.overloadpacket.__name__).startswith("modulated_norm") else []
        return function(*args, **(kwargs or {}))


def test_a_layer_on_a_gpu_is_one_operator_and_its_gradient_another(compiler):
    with Seen() as seen:
        plain = results("cpu")
    assert not seen.names
    with pretended_gpu(), seen:
        on_gpu = results("cuda")
    assert seen.names == ["modulated_norm", "modulated_norm_backward"]
    for ours, theirs in zip(on_gpu, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("resolution", [4, 8])
def test_a_block_on_a_gpu_whose_tokens_are_rows_of_a_matrix_is_the_block_on_a_cpu(resolution, compiler):
    def block():
        site = AttentionSite(resolution, 4, 16, 0)
        return HydraBlock(site=site, style_dim=5, partition=Split(3), mlp_ratio=2)

    given = {"made": block, "side": (resolution, resolution), "channels": 16}
    on_cpu = results("cpu", **given)
    with pretended_gpu():
        on_gpu = results("cuda", **given)
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_the_kernels_do_not_take_has_the_plain_formula(compiler, monkeypatch):
    with pretended_gpu(), Seen() as seen:
        results("cuda", torch.float64)
        with monkeypatch.context() as old:
            old.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
            results("cuda")
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "triton", None)
            results("cuda")
        monkeypatch.delenv("CC")
        monkeypatch.setenv("PATH", "")
        fused_norm._no_compiler.cache_clear()
        assert "C compiler" in fused_norm.why_not(0)
        results("cuda")
    assert not seen.names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_within_autocast_the_result_is_what_the_next_product_would_round_it_to(dtype, compiler):
    x, modulation, _ = made(2, 12, 8)
    with torch.autocast("cpu", dtype):
        plain = modulated_norm.modulated_norm(x, modulation, EPS)
        assert plain.dtype == torch.float32  # Where there is no kernel.
        with pretended_gpu():
            ours = modulated_norm.modulated_norm(x.to("cuda"), modulation.to("cuda"), EPS).cpu()
    assert torch.equal(ours, plain.to(dtype))


@pytest.mark.parametrize("batch", [1, 8, 32])
@pytest.mark.parametrize("size", [(4, 512), (16, 512), (64, 512), (128, 256), (256, 128), (1024, 32), (10, 3)])
def test_every_map_is_cut_into_few_chunks_that_cover_it(batch, size):
    side, channels = size
    tokens, cut = side**2, cut_for(batch, side**2, channels)
    chunks = cut.chunks(tokens)
    assert 1 <= chunks <= MOST and (chunks - 1) * cut.chunk < tokens <= chunks * cut.chunk
    assert cut.chunk % cut.rows == 0 and (chunks == 1 or cut.chunk >= LEAST)
    assert all(number & (number - 1) == 0 for number in (cut.rows, cut.block))
    assert chunks > 1 or side < 64 or batch == 32  # Few images must keep a card busy, too.
