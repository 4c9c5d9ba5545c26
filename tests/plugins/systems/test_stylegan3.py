"""StyleGAN3: what its paper and fact sheet say, without its recordings."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from plugins.systems.stylegan3 import filtered
from plugins.systems.stylegan3.filtered import filtered_leaky_relu
from plugins.systems.stylegan3.filters import low_pass
from plugins.systems.stylegan3.generator import StyleGAN3Generator
from stylenat.networks.resampling import upfirdn
from stylenat.testing import check_generator

SMALL = {
    "resolution": 16, "channel_base": 128, "channel_max": 12, "latent_dim": 8, "style_dim": 8, "num_layers": 4,
}  # fmt: skip
R = {"kernel_size": 1, "radial_filters": True}


@pytest.mark.parametrize("options", [{}, R, {"num_classes": 3}], ids=["t", "r", "conditional"])
def test_generators_keep_the_contract(options):
    check_generator(StyleGAN3Generator, **SMALL | options)


@pytest.mark.parametrize(
    "options, t, r",
    [
        ({"resolution": 256, "channel_base": 16384}, 23_320_443, 15_779_565),
        ({"resolution": 256}, 28_472_133, 18_816_387),
        ({"resolution": 512}, 24_873_519, 16_665_594),
        ({"resolution": 1024}, 22_313_167, 15_093_151),
    ],
)
def test_generators_have_the_published_parameters(options, t, r):
    doubled = {"channel_base": 2 * options.get("channel_base", 32768), "channel_max": 1024}
    for found, expected in ((options, t), (options | R | doubled, r)):
        with torch.device("meta"):
            network = StyleGAN3Generator(**found)
        assert sum(p.numel() for p in network.parameters()) == expected


def taps(radial, up, down):
    return low_pass(6 * up, 0.4, 0.5, up).double(), low_pass(6 * down, 0.4, 0.5, down, radial).double()


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize("up, down, padding", [(2, 2, (9, 8, 9, 8)), (4, 2, (-6, -9, 2, -3)), (2, 4, (30, 4, 6, 40))])
def test_the_filtered_leaky_relu_of_a_cpu_is_its_definition(up, down, padding, radial, monkeypatch):
    monkeypatch.setattr(filtered, "CACHED", 1500)  # Fewer channels at once than there are.
    x = torch.randn(2, 3, 15, 21, dtype=torch.float64)
    up_taps, down_taps = taps(radial, up, down)
    up_taps = up_taps * torch.linspace(1, 2, len(up_taps))  # Not symmetric: a flip shows.
    for correlate in (False, True):
        found = filtered_leaky_relu(x, up_taps, down_taps, up, down, padding, clamp=0.9, correlate=correlate)
        high = upfirdn(x, up_taps, up, padding=padding, gain=up**2, correlate=correlate)
        high = (F.leaky_relu(high, 0.2) * 2**0.5).clamp(-0.9, 0.9)
        expected = upfirdn(high, down_taps, down=down, correlate=correlate)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)  # Radial filters are cut at 1e-7.


@pytest.mark.parametrize("radial", [False, True])
def test_the_filtered_leaky_relu_is_twice_differentiable(radial):
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def function(x):
        return filtered_leaky_relu(x, *taps(radial, 2, 2), 2, 2, (9, 8, 7, 10), clamp=0.7)

    assert gradcheck(function, [x]) and gradgradcheck(lambda x: function(x) ** 2, [x])


def test_an_image_does_not_depend_on_the_others_nor_on_whether_there_is_a_graph():
    network = StyleGAN3Generator(**SMALL).eval()
    latents = torch.randn(3, 8)
    with torch.no_grad():
        images = network(latents)
        for i in range(3):
            torch.testing.assert_close(network(latents[i : i + 1])[0], images[i], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network(latents), images, atol=1e-5, rtol=1e-4)


def test_magnitudes_move_in_training_without_a_graph_alone():
    network, latents = StyleGAN3Generator(**SMALL, magnitude_decay=0.9), torch.randn(2, 8)
    network(latents)
    network.eval()
    with torch.no_grad():
        network(latents)
        assert all(layer.magnitude_ema == 1 for layer in network.layers)
        network.train()
        x = network.input(network.mapping(latents))
        network(latents)
    torch.testing.assert_close(network.layers[0].magnitude_ema, 0.1 * x.square().mean() + 0.9)
    still = StyleGAN3Generator(**SMALL, magnitude_decay=None)
    with torch.no_grad():
        still(latents)
    assert all(layer.magnitude_ema == 1 for layer in still.layers)
