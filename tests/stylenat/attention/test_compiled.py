"""Backend ``compiled``: exact, the same on any number of threads, and giving way where it cannot be."""

import multiprocessing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import HeadGroup, UserError
from stylenat.attention import compiled, neighborhood_attention
from stylenat.attention.hydra import HydraAttention
from stylenat.native import build

needs_kernel = pytest.mark.skipif(isinstance(build.library(), str), reason=str(build.library()))


def tensors(shape, kernel_size):
    """q, k, v (views of one tensor, as a layer makes them) and a bias, in float32."""
    random = torch.Generator().manual_seed(0)
    batch, height, width, heads, dim = shape
    q, k, v = torch.randn(batch, height, width, 3, heads, dim, generator=random).unbind(3)
    bias = torch.randn(heads, 2 * kernel_size - 1, 2 * kernel_size - 1, generator=random)
    return [t.requires_grad_() for t in (q, k, v, bias)]


def op(inputs, kernel_size, dilation, backend):
    q, k, v, bias = inputs
    return neighborhood_attention(q, k, v, kernel_size=kernel_size, dilation=dilation, bias=bias, backend=backend)


def cotangent(out):
    return torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)


def assert_exact(shape, kernel_size, dilation, biased=True, masked=False):
    """Output and gradients within 1e-5 of the oracle in float64, relative to the largest entry."""
    inputs = tensors(shape, kernel_size)
    if masked:  # Nearly all, so that some queries see no key.
        inputs[3] = inputs[3].detach().masked_fill(inputs[3] < 1.5, -torch.inf).requires_grad_()
    if not biased:
        inputs[3] = None
    given = [t for t in inputs if t is not None]
    out = op(inputs, kernel_size, dilation, "compiled")
    ours = [out, *torch.autograd.grad(out, given, cotangent(out))]
    exact = [None if t is None else t.detach().double().requires_grad_() for t in inputs]
    out = op(exact, kernel_size, dilation, "dense")
    oracle = [out, *torch.autograd.grad(out, [t for t in exact if t is not None], cotangent(out))]
    for a, b in zip(ours, oracle, strict=True):
        assert float((a.detach().double() - b.detach()).abs().max()) <= 1e-5 * max(1.0, float(b.detach().abs().max()))


@needs_kernel
@pytest.mark.parametrize(
    "shape, kernel_size, dilation",
    [
        ((1, 7, 7, 1, 32), 7, 1),  # the window is the image
        ((2, 16, 16, 2, 32), 7, 2),
        ((1, 20, 17, 3, 5), 3, 1),  # rectangular; a head narrower than a vector
        ((2, 17, 19, 2, 33), 3, 5),  # ragged classes
        ((1, 41, 40, 1, 16), 13, 3),
        ((1, 3, 70, 1, 1), 3, 1),
        ((1, 45, 21, 2, 48), 7, 1),  # two bands
        ((1, 70, 9, 1, 8), 9, 1),  # three bands, a window as wide as the image
    ],
)
def test_outputs_and_gradients_agree_with_the_oracle_to_1e_5(shape, kernel_size, dilation):
    for biased in (True, False):
        assert_exact(shape, kernel_size, dilation, biased)
    assert_exact(shape, kernel_size, dilation, masked=True)


@needs_kernel
@pytest.mark.parametrize("shape, kernel_size, dilation", [((2, 16, 18, 2, 32), 7, 2), ((1, 9, 19, 3, 5), 3, 3)])
def test_bfloat16_is_computed_as_float32_and_rounded_once(shape, kernel_size, dilation):
    q, k, v, bias = (t.detach() for t in tensors(shape, kernel_size))
    halves = torch.stack((q, k, v), dim=3).bfloat16()
    with torch.no_grad():
        given = [*halves.unbind(3), bias]
        out = op(given, kernel_size, dilation, "compiled")
        exact = op([t.double() for t in given], kernel_size, dilation, "dense")
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=1e-6)
        layer = HydraAttention(shape[3] * shape[4], shape[3], [HeadGroup(shape[3], kernel_size, dilation)])
        layer.relative_position_bias[0].copy_(bias)
        assert layer.scale == shape[4] ** -0.5
        assert torch.equal(layer.attended(halves), out)  # In place, since no graph is kept.
        given[0] = given[0].fill_(torch.nan)
        assert op(given, kernel_size, dilation, "compiled").isnan().all()
    with pytest.raises(UserError, match=r"it keeps no graph of torch.bfloat16; 'tiled' can"):
        op(given, kernel_size, dilation, "compiled")


@needs_kernel
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_it_is_exact_at_any_size(data):
    kernel_size, dilation = data.draw(st.sampled_from([3, 5, 7])), data.draw(st.integers(1, 4))
    sides = st.integers(kernel_size * dilation, kernel_size * dilation + 20)
    dim, batch = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 2))
    assert_exact((batch, data.draw(sides), data.draw(sides), 1, dim), kernel_size, dilation)


@needs_kernel
def test_results_are_the_same_bits_on_any_number_of_threads():
    inputs, results, before = tensors((1, 40, 33, 3, 32), 5), [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            out = op(inputs, 5, 2, "compiled")
            results.append([out, *torch.autograd.grad(out, inputs, cotangent(out))])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_kernel
def test_second_derivatives_are_those_of_tiled():
    inputs = tensors((1, 9, 8, 2, 4), 3)

    def twice(backend):
        out = op(inputs, 3, 2, backend)
        graph = torch.autograd.grad(out, inputs, cotangent(out), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in graph), inputs)

    for ours, theirs in zip(twice("compiled"), twice("tiled"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@needs_kernel
def test_a_layer_of_several_groups_equals_the_groups_one_by_one():
    groups = [HeadGroup(1, 3, 2), HeadGroup(2, 5, 1), HeadGroup(1, 3, 1)]
    results = []
    for backend in ("compiled", "tiled"):
        torch.manual_seed(0)
        layer = HydraAttention(16, 4, groups, backend=backend)
        x = torch.randn(2, 9, 8, 16, requires_grad=True)
        out = layer(x)
        first = torch.autograd.grad(out, [x, *layer.parameters()], cotangent(out), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), [x, *layer.parameters()], allow_unused=True)
        results.append([out, *first, *(s for s in second if s is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@needs_kernel
def test_what_is_not_a_number_stays_so_and_large_logits_do_not_overflow():
    q, k, v, bias = (t.detach() for t in tensors((1, 9, 8, 1, 4), 3))
    large = op((100 * q, 100 * k, v, bias), 3, 1, "compiled")
    torch.testing.assert_close(large, op((100 * q, 100 * k, v, bias), 3, 1, "dense"), rtol=1e-4, atol=1e-4)
    q[0, 4, 4, 0, 0] = float("nan")
    out = op((q, k, v, bias), 3, 1, "compiled")
    assert out[0, 4, 4].isnan().all() and int(out.isnan().sum()) == 4


@needs_kernel
def test_it_is_the_first_choice_on_a_cpu_and_names_tiled_for_what_it_cannot_take():
    inputs = [t.detach() for t in tensors((1, 9, 8, 1, 4), 3)]
    assert torch.equal(op(inputs, 3, 1, None), op(inputs, 3, 1, "compiled"))
    with pytest.raises(UserError, match="computes in float32, not in torch.float64; 'tiled' can"):
        op([t.double() for t in inputs], 3, 1, "compiled")


def _in_a_fork(queue, inputs):
    out = op(inputs, 3, 2, "compiled")
    queue.put([t.tolist() for t in (out.detach(), *torch.autograd.grad(out, inputs, cotangent(out)))])


@needs_kernel
def test_a_forked_process_computes_the_same():
    inputs = tensors((2, 9, 8, 2, 4), 3)
    out = op(inputs, 3, 2, "compiled")  # This process's threads exist now; the fork will not have them.
    ours = [out, *torch.autograd.grad(out, inputs, cotangent(out))]
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    inputs = [t.detach().requires_grad_() for t in inputs]
    process = fork.Process(target=_in_a_fork, args=(queue, inputs), daemon=True)
    process.start()
    theirs = queue.get(timeout=60)
    process.join()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.detach(), torch.tensor(b))


@needs_kernel
def test_scratch_memory_does_not_grow_with_the_height_of_the_image():
    def floats(height, backward):
        problem = compiled._Problem.of(torch.empty(1, height, 256, 4, 32), HeadGroup(4, 7, 1), 1.0)
        return compiled._scratch(problem, backward).numel() / problem.threads

    assert floats(1024, False) == floats(256, False) and floats(1024, True) == floats(256, True)
    row = 32 * 256
    assert floats(256, False) < (2 * 7 + 2) * 1.5 * row  # keys, values, queries; margins beside them
    assert floats(256, True) < (2 * 7 + 2 * 32 + 4) * 1.5 * row + 2 * 7 * 13 * 1.5 * 256


@pytest.mark.parametrize(
    "cxx, said", [("/nowhere/g++", "no C\\+\\+ compiler"), ("false", "could not be built|returned non-zero")]
)
def test_without_a_working_compiler_tiled_takes_over_and_one_line_says_so(cxx, said, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("STYLENAT_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", cxx)
    if cxx.startswith("/"):
        monkeypatch.setenv("PATH", str(tmp_path))
    build.library.cache_clear()
    try:
        inputs = [t.detach() for t in tensors((1, 9, 8, 1, 4), 3)]
        for _ in range(2):
            assert torch.equal(op(inputs, 3, 1, None), op(inputs, 3, 1, "tiled"))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and "slower PyTorch code is used" in lines[0]
        with pytest.raises(UserError, match=f"({said}).*'tiled' can"):
            op(inputs, 3, 1, "compiled")
    finally:
        build.library.cache_clear()


@needs_kernel
def test_the_kernel_is_built_once_announced_and_found_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("STYLENAT_CACHE", str(tmp_path / "made" / "here"))
    try:
        for expected in (1, 0):
            build.library.cache_clear()
            assert not isinstance(build.library(), str)
            assert capsys.readouterr().err.count("compiled the CPU kernels") == expected
        assert len(list((tmp_path / "made" / "here" / "native").iterdir())) == 1
    finally:
        build.library.cache_clear()


@needs_kernel
def test_without_a_graph_a_layer_gives_the_same_and_leaves_its_input_alone():
    layer = HydraAttention(16, 4, [HeadGroup(2, 3, 2), HeadGroup(2, 5, 1)])
    x = torch.randn(2, 33, 17, 16)
    given = x.clone()
    with torch.no_grad():
        out = layer(given)
    assert torch.equal(out, layer(x).detach()) and torch.equal(given, x)


@needs_kernel
def test_gradients_are_exact_where_a_bias_of_minus_a_billion_lies_on_every_key_of_a_query():
    q, k, v, bias = tensors((1, 9, 9, 2, 4), 3)
    bias = torch.zeros_like(bias)
    bias[0], bias[1, 1:4, 1:4] = -1e9, -1e9  # Of the second head, the keys of queries away from the border.
    given = [torch.zeros_like(q).requires_grad_(), k, v, bias.requires_grad_()]  # Scores that lose nothing beside it.
    for ours, exact in zip(
        torch.autograd.grad(op(given, 3, 1, "compiled"), given, cotangent(q)),
        torch.autograd.grad(op([t.double() for t in given], 3, 1, "dense"), given, cotangent(q).double()),
        strict=True,
    ):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)
