import pytest
import torch

from plugins.blocks.hydra import HydraBlock
from plugins.partitions.split import Split
from plugins.partitions.uniform import Uniform
from registry import UserError
from stylenat.networks.discriminator import WaveletDiscriminator
from stylenat.networks.generator import StyleGenerator
from stylenat.networks.layers import AdaIN


def generator(**options):
    partition = options.pop("partition", Split())
    return StyleGenerator(block=lambda **site: HydraBlock(partition=partition, **site), **options)


def small(**options):
    return generator(
        resolution=16,
        channels=[32, 32, 16],
        style_dim=24,
        latent_dim=24,
        mapping_layers=2,
        min_heads=2,
        **options,
    )


def test_a_generator_makes_finite_images_and_all_parameters_but_key_biases_matter():
    network = small()
    images = network(torch.randn(3, 24))
    assert images.shape == (3, 3, 16, 16) and images.isfinite().all()
    images.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_constants_are_in_no_checkpoint():
    for network in (small(), WaveletDiscriminator(resolution=16, channels=[16, 8])):
        moving = {name for name in network.state_dict() if name not in dict(network.named_parameters())}
        assert all(name.endswith((".u", ".v")) for name in moving)


def test_a_discriminator_is_twice_differentiable_for_r1():
    network = WaveletDiscriminator(resolution=16, channels=[16, 8])
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    (grad,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
    grad.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_adain_equals_instance_norm_and_modulation_twice_differentiably():
    norm = AdaIN(3, 5).double()
    x = torch.randn(2, 3, 3, 3, dtype=torch.double, requires_grad=True)
    style = torch.randn(2, 5, dtype=torch.double, requires_grad=True)
    gamma, beta = norm.style(style).chunk(2, dim=-1)
    plain = torch.nn.functional.instance_norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    plain = plain * gamma[:, None, None] + beta[:, None, None]
    torch.testing.assert_close(norm(x, style), plain)
    inputs, cotangent = [x, style, *norm.parameters()], torch.randn_like(plain)
    expected = torch.autograd.grad(plain, inputs, cotangent, retain_graph=True)
    for twice in (False, True):  # Written once for first derivatives alone, once for second ones.
        found = torch.autograd.grad(norm(x, style), inputs, cotangent, create_graph=twice)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(norm, (x, style))
    assert torch.autograd.gradgradcheck(norm, (x, style))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: generator(resolution=24), "power of two"),
        (lambda: generator(resolution=16, channels=[]), "at least the width at 4x4"),
        (lambda: small(partition=Uniform(7, 2)), "exceeds the resolution"),
        (
            lambda: WaveletDiscriminator(resolution=16, channels=[8, 8])(torch.zeros(6, 3, 16, 16)),
            "does not divide",
        ),
    ],
)
def test_impossible_networks_are_refused_in_one_line(make, message):
    with pytest.raises(UserError, match=message):
        make()
