"""HydraAttention merges groups that share a neighborhood; that changes nothing but the number of calls."""

import pytest
import torch
from pretended_gpu import pretended_gpu

from registry import HeadGroup
from stylenat.attention import hydra


@pytest.mark.parametrize(
    "groups, calls",
    [
        ([(2, 3, 1), (2, 3, 2)], 2),
        ([(1, 3, 1), (1, 3, 1), (2, 3, 2)], 2),
        ([(1, 3, 2), (1, 5, 1), (1, 3, 2), (1, 5, 1)], 2),
    ],
)
def test_groups_of_one_neighborhood_are_one_call(groups, calls, monkeypatch):
    groups = [HeadGroup(*g) for g in groups]
    layer = hydra.HydraAttention(16, 4, groups, backend="tiled")
    made = []

    def counting(*args, **options):
        made.append(options["dilation"])
        return op(*args, **options)

    op = hydra.neighborhood_attention
    monkeypatch.setattr(hydra, "neighborhood_attention", counting)
    x = torch.randn(2, 9, 8, 16)
    ours = layer(x)
    assert len(made) == calls

    parts = [t.split([g.num_heads for g in groups], dim=3) for t in layer._heads(layer.qkv(x)).unbind(3)]
    plain = [
        op(*qkv, kernel_size=g.kernel_size, dilation=g.dilation, bias=table, scale=layer.scale, backend="tiled")
        for *qkv, g, table in zip(*parts, groups, layer.relative_position_bias, strict=True)
    ]
    torch.testing.assert_close(ours, layer.proj(torch.cat(plain, dim=3).flatten(3)))


@pytest.mark.parametrize("backend", [None, "tiled", "dense"])
@pytest.mark.parametrize("graph", [True, False])
def test_a_layers_bias_of_minus_infinity_masks_and_heads_without_keys_add_nothing(backend, graph):
    groups = [HeadGroup(1, 3, 2), HeadGroup(1, 5, 1)]
    for layer in (hydra.HydraAttention(8, 2, groups, backend=backend), hydra.FullAttention(8, 2, 9)):
        tables = layer.relative_position_bias
        first = tables[0] if isinstance(tables, torch.nn.ParameterList) else tables[:1]
        with torch.no_grad():
            first.fill_(-torch.inf)
            layer.proj.weight[:, 4:] = 0  # Of the heads, only the first, which sees nothing, would reach the output.
        with torch.set_grad_enabled(graph):
            out = layer(torch.randn(1, 9, 9, 8))
        assert torch.equal(out, layer.proj.bias.expand_as(out))
        if graph:
            out.sum().backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


def test_on_a_gpu_heads_that_are_not_consecutive_are_chosen_without_a_transfer():
    groups = [HeadGroup(1, 3, 2), HeadGroup(1, 3, 1), HeadGroup(1, 3, 2), HeadGroup(1, 3, 1)]
    layer = hydra.HydraAttention(16, 4, groups, backend="tiled")
    assert not {"back", "heads_0", "heads_1"} & set(layer.state_dict())
    with pretended_gpu() as gpu:
        layer = layer.to("cuda")
        x = torch.randn(1, 9, 8, 16).to("cuda")
        layer(x)  # The plan of this shape is sent once.
        gpu.events.clear()
        layer(x).sum().backward()
        assert not gpu.events
