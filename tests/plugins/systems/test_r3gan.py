"""R3GAN: what its paper and fact sheet say, without its recordings."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from plugins.augmentations.draws import ROW, Draws
from plugins.schedules.schedules import Cosine
from plugins.systems.r3gan.augmentation import MULTIPLIERS, ScheduledAugmentation, applied
from plugins.systems.r3gan.configuration import discriminator, generator
from plugins.systems.r3gan.discriminator import R3Discriminator
from plugins.systems.r3gan.generator import R3Generator
from plugins.systems.r3gan.layers import Resampler
from plugins.systems.r3gan.loss import Relativistic
from registry import UserError
from stylenat.interfaces import Time
from stylenat.reference import discriminator_from_reference, generator_from_reference, layout_of, to_theirs
from stylenat.testing import check_loss

SMALL = {"resolution": 16, "channels": [16]}
CONFIG = {
    "NoiseDimension": 8,
    "WidthPerStage": [16, 8, 8],
    "CardinalityPerStage": [4, 2, 2],
    "BlocksPerStage": [1, 2, 1],
    "ExpansionFactor": 2,
}


def test_upsampling_keeps_a_constant_inside_and_darkens_the_border_by_a_quarter():
    image = Resampler(up=True)(torch.ones(1, 2, 4, 4))
    assert torch.allclose(image[:, :, 1:-1, 1:-1], torch.ones(()))
    assert torch.allclose(image[:, :, 0, 1:-1], torch.tensor(0.75))
    assert torch.allclose(image[:, :, 0, 0], torch.tensor(0.5625))


def test_inside_upsampling_is_bilinear_and_downsampling_is_its_adjoint_over_four():
    x, y = torch.randn(1, 3, 6, 8), torch.randn(1, 3, 12, 16)
    up, down = Resampler(up=True), Resampler(up=False)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(up(x)[:, :, 1:-1, 1:-1], bilinear[:, :, 1:-1, 1:-1], atol=1e-6)
    assert torch.allclose((up(x) * y).sum(), 4 * (x * down(y)).sum(), rtol=1e-4)


def test_at_the_start_blocks_are_the_identity_and_the_image_is_linear_in_the_latent():
    network = R3Generator(**SMALL, latent_dim=8)
    z = torch.randn(2, 8)
    assert torch.allclose(network(3 * z), 3 * network(z), rtol=1e-4, atol=1e-5)
    network(z).square().mean().backward()
    block = network.stages[1].blocks[0]
    assert block.contract.weight.grad.any()
    assert not block.expand.weight.grad.any() and not block.first.bias.grad.any()


def test_the_initial_deviations_depend_on_the_number_of_blocks_in_the_whole_network():
    torch.manual_seed(0)
    network = R3Generator(resolution=32, channels=[256])
    block = network.stages[0].blocks[0]
    gain = math.sqrt(2 / 1.04) * 8**-0.25
    assert float(block.expand.weight.detach().std()) == pytest.approx(gain / 256**0.5, rel=0.01)
    assert float(block.grouped.weight.detach().std()) == pytest.approx(gain / (16 * 9) ** 0.5, rel=0.02)


def test_published_widths_and_groups_follow_from_the_resolution():
    with torch.device("meta"):
        network = R3Generator(resolution=256)
    blocks = [stage.blocks[0] for stage in network.stages]
    assert [block.contract.weight.shape[0] for block in blocks] == [768, 768, 768, 768, 384, 192, 96]
    assert [block.grouped.groups for block in blocks] == [96, 96, 96, 96, 48, 24, 12]
    assert sum(p.numel() for p in network.parameters()) == 23_057_952


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cardinality": [5]}, "5 groups do not divide"),
        ({"channels": []}, "channels needs at least the value at 4x4"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"resolution": 24}, "resolution must be a power of two"),
    ],
)
@pytest.mark.parametrize("network, selector", [(R3Generator, "generator"), (R3Discriminator, "discriminator")])
def test_impossible_sizes_are_one_line(network, selector, options, message):
    with pytest.raises(UserError, match=message) as raised:
        network(**SMALL | options)
    assert f"{selector}.r3gan" in str(raised.value)


def test_the_largest_resolutions_are_in_bfloat16_with_weights_in_float32():
    network, judge = R3Generator(**SMALL, bf16_resolutions=1), R3Discriminator(**SMALL, bf16_resolutions=2)
    types = []
    for stage in (*network.stages, *judge.stages):
        stage.register_forward_hook(lambda m, x, out: types.append(out.dtype))
    image = network(torch.randn(2, 64))
    assert image.dtype == torch.bfloat16 and judge(image).dtype == torch.float32
    low, high = torch.bfloat16, torch.float32
    assert types == [high, high, low, low, low, high]
    assert {p.dtype for p in (*network.parameters(), *judge.parameters())} == {high}


def test_a_conditional_logit_is_the_product_of_features_and_embedding():
    judge = R3Discriminator(**SMALL, num_classes=3)
    x, labels = torch.randn(2, 3, 16, 16), torch.eye(3)[:2]
    features = {}
    judge.stages[-1].register_forward_hook(lambda m, x, out: features.update(out=out))
    logits = judge(x, labels)
    embedded = judge.embedding.weight.t()[:2]
    assert torch.allclose(logits[:, 0], (features["out"] * embedded).sum(dim=1), rtol=1e-5, atol=1e-6)
    assert not judge(x, torch.zeros(2, 3)).any()  # No term without a label.


def test_the_loss_compares_each_real_image_with_its_own_fake():
    loss, real, fake = Relativistic(), torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [3.0]])
    expected = (math.log1p(math.exp(0.5 - 2)) + math.log1p(math.exp(3 + 1))) / 2
    assert float(loss.discriminator(real, fake)) == pytest.approx(expected, rel=1e-6)
    assert float(loss.generator(fake, real)) == pytest.approx(float(loss.discriminator(fake, real)), rel=1e-6)
    assert float(loss.discriminator(real.flip(0), fake)) != pytest.approx(expected, rel=1e-3)
    check_loss(loss)


def no_draws(batch):
    zeros = np.zeros((2, len(ROW), batch))
    return Draws(np.zeros((len(ROW), batch), dtype=bool), zeros, zeros.copy())


def test_the_warp_without_draws_is_the_identity_and_a_flip_mirrors_a_smooth_image():
    images = torch.randn(2, 3, 16, 16)
    draws = no_draws(2)
    assert torch.allclose(applied(images, draws), images, atol=1e-5)
    draws.fires[ROW["x_flip"], 1], draws.uniform[0, ROW["x_flip"], 1] = True, 0.7
    flipped = applied(images, draws)
    assert torch.allclose(flipped[0], images[0], atol=1e-5)
    # Sym6 is not symmetric; only smooth images are mirrored.
    smooth = torch.cos(torch.linspace(0, 3, 16)).expand(2, 3, 16, 16).contiguous()
    assert torch.allclose(applied(smooth, draws)[1, :, :, 3:-3], smooth[1].flip(-1)[:, :, 3:-3], atol=0.06)


def test_whole_pixels_of_translation_follow_the_quarter_turn():
    images, draws = torch.randn(1, 3, 16, 16), no_draws(1)
    for name, value in (("rotate_90", 0.3), ("integer_translation", 1.0)):  # A quarter turn; two pixels in x and y.
        draws.fires[ROW[name]], draws.uniform[:, ROW[name]] = True, value
    found = applied(images, draws)
    draws.fires[ROW["integer_translation"]] = False
    turned = applied(images, draws)
    assert torch.allclose(found[:, :, 4:-2, 4:-2], turned[:, :, 2:-4, 2:-4], atol=1e-4)


def test_the_strength_follows_its_schedule_and_halves_for_colour():
    augmentation = ScheduledAugmentation(Cosine(0.0, 0.3, 1000))
    images, random = torch.randn(1, 3, 16, 16), torch.Generator()
    assert augmentation(images, random) is images
    for seen, expected in ((0, 0.0), (500, 0.15), (2000, 0.3)):
        augmentation.begin(Time(1, seen, 10, 4))
        assert augmentation.scalars()["augmentation/p"] == pytest.approx(expected)
    of = dict(zip(ROW, MULTIPLIERS, strict=False))
    assert {of[name] for name in ("x_flip", "isotropic_scale", "cutout")} == {1.0}
    assert {of[name] for name in ("brightness", "saturation")} == {0.5}
    assert {of[name] for name in ("band_1", "noise")} == {0.0}


@pytest.mark.parametrize("make, from_reference, kind", [
    (generator, generator_from_reference, "generator"),
    (discriminator, discriminator_from_reference, "discriminator"),
])  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "Model."])
def test_a_state_in_its_names_builds_the_network_and_comes_back_bit_for_bit(make, from_reference, kind, prefix):
    from registry import load_plugins
    from stylenat.reference import layouts

    registry = load_plugins()
    known = layouts(registry)
    config = {k: v for k, v in CONFIG.items() if kind == "generator" or k != "NoiseDimension"}
    config |= {"ConditionDimension": 3, "ConditionEmbeddingDimension": 16}
    network = make(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter))
    layout = known["r3gan" + ("_discriminator" if kind == "discriminator" else "") + ("_pickle" if prefix else "")]
    state = to_theirs(network.state_dict(), network, layout) | layout.constants(network)
    assert all(name.startswith(f"{prefix}MainLayers.") for name in state if "Main" in name)
    assert known[layout_of(state, registry, kind)].prefix == prefix
    built = from_reference(config, state, registry)
    for name, value in network.state_dict().items():
        assert torch.equal(built.state_dict()[name], value)
    assert layout.dimensions(state) == {"resolution": 16, "num_classes": 3}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"Unknown": 1}, "options unknown here: Unknown"),
        ({"FP16Stages": [0]}, r"FP16Stages = \[0\] is not built here"),
        ({"WidthPerStage": [16, 8]}, "2 widths, 3 cardinalities and 3 numbers of blocks"),
        ({"ResamplingFilter": [1, 4, 6, 4, 1]}, "ResamplingFilter"),
    ],
)
def test_configurations_that_are_not_built_are_one_line(options, message):
    with pytest.raises(UserError, match=message):
        generator(CONFIG | options)
