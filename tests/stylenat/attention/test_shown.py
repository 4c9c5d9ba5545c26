"""Attention maps are the weights that the layer computes with."""

import pytest
import torch

from plugins.blocks.swin import DoubleAttention
from plugins.blocks.windowed import WindowAttention
from registry import AttentionSite, HeadGroup
from stylenat.attention.hydra import FullAttention, HydraAttention
from stylenat.attention.shown import Statistics, observed, spread_queries, statistics

SIDE, CHANNELS, HEADS = 8, 16, 4
SITE = AttentionSite(SIDE, HEADS, CHANNELS, 0)
LAYERS = {
    "neighborhood": lambda: HydraAttention(
        CHANNELS, HEADS, [HeadGroup(1, 3, 2), HeadGroup(2, 7, 1), HeadGroup(1, 3, 1)]
    ),
    "full": lambda: FullAttention(CHANNELS, HEADS, SIDE),
    "shifted and straight windows": lambda: DoubleAttention(SITE, 4, True, None),
    "one window": lambda: DoubleAttention(SITE, 8, True, None),
    "shifted windows": lambda: WindowAttention(SITE, 4, True),
    "straight windows": lambda: WindowAttention(SITE, 4, False),
    "a window of the map": lambda: WindowAttention(SITE, 8, True),
}


@pytest.mark.parametrize("kind", LAYERS)
@torch.no_grad()
def test_the_weights_times_the_values_are_the_layers_result(kind):
    torch.manual_seed(0)
    layer = LAYERS[kind]().eval()
    for parameter in layer.parameters():
        parameter.normal_(std=0.5)
    x = torch.randn(2, SIDE, SIDE, CHANNELS)
    queries = spread_queries(SIDE, SIDE**2)
    with observed(layer, lambda side: queries) as found:
        out = layer(x)
    ((shown,),) = found.values()
    weights = torch.cat([group.weights for group in shown], dim=1)
    assert weights.shape == (2, HEADS, SIDE**2, SIDE, SIDE)
    assert torch.allclose(weights.sum((-2, -1)), torch.ones(()), atol=1e-5)
    v = layer.qkv(x)[..., 2 * CHANNELS :].unflatten(-1, (HEADS, -1))
    heads = torch.einsum("bhqyx,byxhd->bqhd", weights, v).reshape(2, SIDE, SIDE, CHANNELS)
    torch.testing.assert_close(layer.proj(heads), out, atol=1e-5, rtol=1e-4)
    assert torch.equal(layer(x), out) and "attend" not in vars(layer)


def test_groups_are_named_by_their_neighborhoods():
    x = torch.randn(1, SIDE, SIDE, CHANNELS)
    with observed(layer := LAYERS["neighborhood"](), lambda side: torch.tensor([[1, 2]])) as found:
        layer(x)
        layer(x)
    (calls,) = found.values()
    assert len(calls) == 2
    assert [(s.label, s.weights.shape[1], int((s.weights > 0).sum())) for s in calls[0]] == [
        ("k3 d2", 1, 9), ("k7 d1", 2, 98), ("k3 d1", 1, 9)
    ]  # fmt: skip


def test_statistics_are_those_of_known_maps():
    query = torch.tensor([[2, 3]])
    there = torch.zeros(1, 1, 1, 6, 8)
    there[..., 2, 3] = 1
    assert statistics(there, query) == Statistics(0.0, 0.0, 1)
    far = torch.zeros(1, 1, 1, 6, 8)
    far[..., 5, 7] = 0.5
    far[..., 2, 3] = 0.5
    found = statistics(far, query)
    assert found.distance == pytest.approx(2.5) and found.keys == 2
    assert found.entropy == pytest.approx(0.6931, abs=1e-4)


def test_queries_are_all_positions_of_a_small_map_and_a_grid_of_a_large_one():
    assert len({tuple(q) for q in spread_queries(4, 64).tolist()}) == 16
    grid = spread_queries(64, 16)
    assert grid[:, 0].unique().tolist() == [8, 24, 40, 56] and len(grid) == 16
