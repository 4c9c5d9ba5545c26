"""StyleGAN3: what its paper and fact sheet say, without its recordings."""

import pytest
import torch

from plugins.systems.stylegan3.generator import StyleGAN3Generator
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
