"""The op, HydraAttention and the discriminators against tensors recorded from the reference implementations."""

import itertools
import re

import pytest
import torch

from stylenat.attention import neighborhood_attention
from stylenat.attention.triton_fused import Triton
from stylenat.reference import discriminator_from_reference, hydra_from_reference, to_theirs

LAYOUT = (0, 2, 3, 1, 4)


OPS = ["op_k3_d1_9x8.pt", "op_k5_d2_11x13.pt", "op_k7_d2_15x14.pt"]


# Triton's interpreter takes seconds for the larger ones, which its own tests cover.
@pytest.mark.parametrize(
    ("backend", "name"),
    [*itertools.product(["tiled", "dense"], OPS), pytest.param(Triton(interpreted=True), OPS[0], id="triton")],
)
def test_parity_of_the_op_and_its_gradients(recorded, measure, name, backend):
    data = recorded(name)
    kernel_size, dilation = map(int, re.search(r"k(\d+)_d(\d+)", name).groups())
    q, k, v = (data[key].permute(LAYOUT).requires_grad_() for key in "qkv")
    bias = data["rpb"].requires_grad_()
    out = neighborhood_attention(
        q, k, v, kernel_size=kernel_size, dilation=dilation, bias=bias, scale=1.0, backend=backend
    )
    measure.close(out, data["out"].permute(LAYOUT), 1e-5)
    out.backward(data["cotangent"].permute(LAYOUT))
    for tensor, key in ((q, "q"), (k, "k"), (v, "v")):
        measure.close(tensor.grad, data[f"grad_{key}"].permute(LAYOUT), 1e-5)
    measure.close(bias.grad, data["grad_rpb"], 1e-5)


@pytest.mark.parametrize("name", ["hydra_k7_d1_h4.pt", "hydra_k357_d1_h6.pt", "hydra_k357_d123_h8_uneven.pt"])
def test_parity_of_hydra_attention_and_its_gradients(recorded, measure, known, name):
    data = recorded(name)
    layer = hydra_from_reference(data["config"], data["state_dict"])
    measure.close(layer(data["x"]), data["y"], 2e-5)
    ours = measure.gradients(layer, known["stylenat"], data["x"], data["cotangent"])
    theirs = data["grads"] | {"input": data["grad_x"]}
    largest = max(float(g.abs().max()) for g in theirs.values())
    for key, expected in theirs.items():
        assert (ours[key] - expected).abs().max() < measure.gradient_tolerance(expected, largest), key


@pytest.mark.parametrize("name", ["d32_sn.pt", "d32_nosn.pt"])
def test_parity_of_discriminators_their_r1_and_power_iteration(recorded, measure, known, name):
    data = recorded(name)
    network = discriminator_from_reference(data["config"], data["state_dict"]).eval()
    assert sum(p.numel() for p in network.parameters()) == data["num_parameters"]
    for batch, logits in data["outputs"].items():
        measure.close(network(data["x"][: int(batch.removeprefix("batch"))]), logits, 2e-5)

    images = data["x"][:4].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
    measure.close(gradient, data["grad_x_batch4"], 1e-4)
    penalty = gradient.square().flatten(1).sum(dim=1).mean()
    measure.close(penalty, data["r1_batch4"], 1e-4)
    penalty.backward()
    zeros = {key: torch.zeros_like(p) if p.grad is None else p.grad for key, p in network.named_parameters()}
    ours = to_theirs(zeros, network, known["wavelet"])
    largest = max(float(g.abs().max()) for g in data["r1_grads_batch4"].values())
    for key, expected in data["r1_grads_batch4"].items():
        assert (ours[key] - expected).abs().max() < measure.gradient_tolerance(expected, largest), key

    network.train()
    measure.close(network(data["x"][:4]), data["train_output_batch4"], 2e-5)
    after = to_theirs(network.state_dict(), network, known["wavelet"])
    for key, expected in data["train_uv_after"].items():
        measure.close(after[key], expected, 2e-5)
