import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stylenat.networks import mlp as module


@pytest.mark.parametrize("piece", [1, 2**20])
def test_the_mlp_equals_its_layers_twice_differentiably(piece, monkeypatch):
    monkeypatch.setattr(module, "PIECE", piece)
    expand, contract = nn.Linear(3, 5).double(), nn.Linear(5, 2).double()
    x = torch.randn(2, 2, 2, 3, dtype=torch.double, requires_grad=True)
    parameters = [x, *expand.parameters(), *contract.parameters()]

    def ours(x, *_):
        return module.mlp(x, expand, contract)

    plain = contract(F.gelu(expand(x)))
    torch.testing.assert_close(ours(x), plain)
    expected = torch.autograd.grad(plain.square().sum(), parameters)
    for twice in (False, True):
        found = torch.autograd.grad(ours(x).square().sum(), parameters, create_graph=twice)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(ours, parameters)
    assert torch.autograd.gradgradcheck(ours, parameters)


def test_the_mlp_keeps_its_input_and_no_hidden_layer():
    expand, contract = nn.Linear(8, 32), nn.Linear(32, 8)
    x, kept = torch.randn(64, 8, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        module.mlp(x, expand, contract)
    assert max(kept) == x.numel()
