"""Backend ``flex`` without a GPU: its mask is exact, and it never computes dense attention silently."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from registry import UserError
from stylenat.attention import flex, neighborhood_attention
from stylenat.attention.flex import Flex
from stylenat.attention.flex_mask import block_mask
from stylenat.attention.op import choose

CPU = torch.device("cpu")


def listed(counts, numbers):
    """The block numbers in use, as lists [mask][block]."""
    return [
        [set(row[:n].tolist()) for row, n in zip(rows, count, strict=True)]
        for rows, count in zip(numbers[:, 0], counts[:, 0], strict=True)
    ]


@pytest.mark.parametrize(
    "shape",
    [
        (1, 7, 7, 7, 1),
        (1, 13, 13, 13, 1),  # One window is the map: a block without a hidden key.
        (2, 16, 16, 7, 2),
        (2, 17, 19, 3, 5),
        (2, 40, 37, 5, 3),
        (1, 64, 32, 7, 1),
        (1, 20, 33, 13, 1),
        (1, 5, 200, 5, 1),  # A row longer than a block.
    ],
)
def test_the_mask_has_the_blocks_that_evaluating_every_pair_finds(shape):
    batch, height, width, _, d = shape
    mask = block_mask(*shape, CPU)
    tokens = -(-height // d) * -(-width // d)
    pairs = create_block_mask(
        mask.mask_mod, batch * d * d if height % d or width % d else None, None, tokens, tokens, device="cpu"
    )
    assert mask.shape == pairs.shape
    for side in ("kv", "q"):
        ours = listed(getattr(mask, f"{side}_num_blocks"), getattr(mask, f"{side}_indices"))
        parts = [
            listed(getattr(pairs, f"{kind}{side}_num_blocks"), getattr(pairs, f"{kind}{side}_indices"))
            for kind in ("", "full_")
        ]
        oracle = [[a | b for a, b in zip(*masks, strict=True)] for masks in zip(*parts, strict=True)]
        assert ours == oracle


@pytest.fixture
def on_cpu(monkeypatch):
    """Backend ``flex`` on the CPU, traced and not lowered. Returns the list of graphs that were compiled."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(flex, "_compiled", partial(flex._compiled, backend))
    monkeypatch.setattr(Flex, "unsupported", lambda *arguments: None)
    yield graphs
    torch._dynamo.reset()


def inputs(side):
    random = torch.Generator().manual_seed(side)
    q = torch.randn(1, side, side, 1, 16, generator=random)
    return q, torch.randn(1, 5, 5, generator=random)


@torch._dynamo.config.patch(recompile_limit=1)
def test_more_shapes_than_dynamos_limit_are_each_compiled(on_cpu):
    for side in (6, 7, 8):
        q, bias = inputs(side)
        ours, oracle = (
            neighborhood_attention(q, q, q, kernel_size=3, dilation=2, bias=bias, backend=name)
            for name in ("flex", "dense")
        )
        torch.testing.assert_close(ours, oracle)
    assert len(on_cpu) == 3
    assert torch._dynamo.config.recompile_limit == 1


def test_where_compilation_is_off_it_is_an_error_and_not_dense_attention(on_cpu):
    q, bias = inputs(6)
    with torch.compiler.set_stance("force_eager"), pytest.raises(UserError, match="compiled only.*'tiled'"):
        neighborhood_attention(q, q, q, kernel_size=3, bias=bias, backend="flex")
    assert not on_cpu


def test_a_compiled_network_takes_it_in_with_its_mask_as_a_constant(on_cpu):
    q, bias = inputs(9)

    def network(q):
        return neighborhood_attention(q, q, q, kernel_size=3, bias=bias, backend="flex")

    ours = torch.compile(network, backend=flex._compiled.args[0], fullgraph=True, dynamic=False)(q)
    torch.testing.assert_close(ours, neighborhood_attention(q, q, q, kernel_size=3, bias=bias, backend="dense"))
    (graph,) = on_cpu
    assert len(graph.graph.nodes) < 100


def test_the_result_has_its_inputs_type_under_autocast(on_cpu):
    q, bias = inputs(6)
    with torch.autocast("cpu", torch.bfloat16):
        assert neighborhood_attention(q, q, q, kernel_size=3, bias=bias, backend="flex").dtype == torch.float32


@pytest.fixture
def gpu(monkeypatch):
    """``gpu(capability)``: what ``unsupported`` asks of a tensor on a GPU of this compute capability."""
    flex.no_compiler.cache_clear()

    def gpu(capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: capability)
        return SimpleNamespace(device=torch.device("cuda"), shape=(1, 8, 8, 1, 32), dtype=torch.float32)

    yield gpu
    flex.no_compiler.cache_clear()


def test_a_gpu_that_triton_knows_can_use_it(gpu):
    assert Flex().unsupported(gpu((8, 0)), 7, 1, None) is None


def test_a_gpu_older_than_triton_knows_gets_another_backend_and_a_reason(gpu):
    q, bias = gpu((6, 1)), torch.zeros(1, 13, 13)
    assert choose(None, q, 7, 1, bias).name == "tiled"
    with pytest.raises(UserError, match="'flex' cannot be used: .*capability 7.0 or higher.*has 6.1; 'tiled' can"):
        choose("flex", q, 7, 1, bias)


def test_without_triton_it_says_that_it_is_missing(gpu, monkeypatch):
    monkeypatch.setattr(flex, "find_spec", lambda name: None)
    assert "Triton, which is not installed" in Flex().unsupported(gpu((8, 0)), 7, 1, None)


@pytest.mark.parametrize("variable", ["TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"])
def test_where_the_environment_disables_compilation_it_says_so(gpu, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert variable in Flex().unsupported(gpu((8, 0)), 7, 1, None)
