"""Where no graph is kept the networks work in place and piece by piece; the images are the same."""

import pytest
import torch

from plugins.blocks.hydra import HydraBlock
from plugins.partitions.split import Split
from registry import AttentionSite
from stylenat.networks import generator, pieces
from stylenat.networks.layers import AdaIN


@pytest.fixture(params=[pieces.PIECE, 1000, 1])
def small_pieces(request, monkeypatch):
    """Pieces of a whole map, of some rows, of one token."""
    monkeypatch.setattr(pieces, "PIECE", request.param)
    monkeypatch.setattr(generator, "LARGE", min(request.param, generator.LARGE))


def test_images_without_a_graph_are_those_with_one(small_pieces):
    network = generator.StyleGenerator(
        block=lambda **site: HydraBlock(partition=Split(3), **site),
        resolution=8,
        channels=[16, 8],
        min_heads=2,
        style_dim=12,
        latent_dim=12,
        mapping_layers=2,
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():  # Every term must matter.
            if name.endswith(("alpha", "bias")):
                parameter.normal_()
    latents = torch.randn(3, 12)
    before = [p.clone() for p in network.parameters()]
    with_graph = network(latents)
    with torch.no_grad():
        torch.testing.assert_close(network(latents), with_graph.detach(), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_layers_leave_their_inputs_alone(small_pieces):
    site = AttentionSite(8, 2, 8, 0)
    layers = [
        lambda x, style: HydraBlock(partition=Split(3), site=site, style_dim=5)(x, style),
        lambda x, style: AdaIN(8, 5)(x, style),
        lambda x, style: generator.Upsample(8, 4, 16)(x),
    ]
    x, style = torch.randn(2, 8, 8, 8), torch.randn(2, 5)
    for layer in layers:
        torch.manual_seed(0)
        given = x.clone()
        with torch.no_grad():
            out = layer(given, style)
        torch.manual_seed(0)
        torch.testing.assert_close(out, layer(x, style).detach(), rtol=1e-4, atol=1e-5)
        assert torch.equal(given, x)
