"""Layers against the formulas of their papers, on numbers small enough to compute by hand."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from plugins.blocks.hydra import HydraBlock
from plugins.partitions.split import Split
from registry import UserError
from stylenat.networks import moments as moments_module
from stylenat.networks.discriminator import FromWavelet, WaveletDiscriminator, minibatch_stddev
from stylenat.networks.generator import Mapping, StyleGenerator, ToRGB, Upsample
from stylenat.networks.layers import (
    AdaIN,
    EqualLinear,
    EqualWeight,
    PixelNorm,
    given,
    leaky_relu,
)
from stylenat.networks.moments import gradients, modulated, moments
from stylenat.networks.resampling import UpsampleImage
from stylenat.networks.spectral_norm import SpectralNorm, SpectralNorms, _Divided


def generator():
    torch.manual_seed(0)
    return StyleGenerator(
        resolution=8,
        block=lambda **site: HydraBlock(partition=Split(3), mlp_ratio=1, **site),
        channels=[8, 8],
        latent_dim=6,
        style_dim=6,
        mapping_layers=2,
        min_heads=2,
        to_rgb_gain=1.0,
    )


@torch.no_grad()
def test_an_equalised_linear_scales_weights_and_biases_by_its_multiplier():
    """Progressive GAN, section 4.1; the multiplier is StyleGAN's: a weight of 1 / multiplier counts as 1."""
    layer = EqualLinear(4, 2, lr_multiplier=0.01)
    layer.weight.copy_(torch.tensor([[100.0, 200.0, 0.0, 0.0], [0.0, 0.0, 300.0, 400.0]]))
    layer.bias.copy_(torch.tensor([100.0, -200.0]))
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(layer(x), torch.tensor([[(1 + 4) / 2 + 1, (9 + 16) / 2 - 2]]))
    torch.manual_seed(0)
    wide = EqualLinear(1000, 500, lr_multiplier=0.01, gain=3.0)
    assert float(wide.weight.std()) == pytest.approx(300, rel=0.01) and not wide.bias.any()
    assert float(wide(torch.randn(64, 1000)).std()) == pytest.approx(3, rel=0.05)
    usual = EqualLinear(1000, 500)
    assert usual.lr_multiplier == 1 and float(usual.weight.std()) == pytest.approx(1, rel=0.01)
    torch.testing.assert_close(usual(torch.eye(1000)).t(), usual.weight / 1000**0.5)


def test_an_equalised_weight_has_unit_variance_and_is_scaled_by_its_fan_in():
    torch.manual_seed(0)
    weight = EqualWeight(torch.empty(64, 16, 3, 3))
    assert float(weight.weight.detach().std()) == pytest.approx(1, rel=0.05)
    torch.testing.assert_close(weight(), weight.weight / 12)


def test_leaky_relu_keeps_the_variance():
    torch.testing.assert_close(leaky_relu(torch.tensor([1.0, -1.0])), torch.tensor([1.0, -0.2]) * 2**0.5)


def test_pixel_norm_gives_each_latent_a_mean_square_of_one():
    z = torch.tensor([[3.0, 4.0], [0.1, 0.0]])
    torch.testing.assert_close(PixelNorm()(z), torch.tensor([[3 / 12.5**0.5, 4 / 12.5**0.5], [2**0.5, 0.0]]))


def test_the_mapping_normalises_its_latents_and_learns_at_its_own_rate():
    torch.manual_seed(0)
    mapping = Mapping(6, 6, 2, lr_multiplier=0.01)
    z = torch.randn(3, 6)
    torch.testing.assert_close(mapping(z), mapping(5 * z))
    assert [layer.lr_multiplier for layer in mapping.layers] == [0.01, 0.01]


def test_positions_are_sines_and_cosines_from_1_columns_before_rows():
    """Vaswani et al., arXiv 1706.03762, section 3.5, in two dimensions as StyleSwin has it: frequencies from 1 down to
    1 / 10000 on half of the channels for each axis."""
    upsample = Upsample(4, 8, side=4)
    with torch.no_grad():
        upsample.reduction.weight.zero_()
        upsample.alpha.fill_(1.0)

    def one_axis(position):
        return [math.sin(position), math.sin(position / 10000), math.cos(position), math.cos(position / 10000)]

    expected = [[one_axis(x + 1) + one_axis(y + 1) for x in range(4)] for y in range(4)]
    torch.testing.assert_close(upsample(torch.randn(1, 2, 2, 4))[0], torch.tensor(expected))


def test_rgb_starts_with_xaviers_weights_times_its_gain():
    torch.manual_seed(0)
    rgb = ToRGB(3000, gain=0.02)
    assert float(rgb.linear.weight.detach().std()) == pytest.approx(0.02 * (2 / 3003) ** 0.5, rel=0.03)


def test_upsampling_keeps_the_brightness_of_an_image_and_places_its_pixels():
    """Zero insertion and [1, 3, 3, 1] / 4 along each axis: inside, 3/4 of the nearest pixel and 1/4 of the next."""
    image = torch.tensor([[1.0, 2.0, 5.0]]).expand(1, 1, 3, 3)
    up = UpsampleImage()(image)[0, 0]
    torch.testing.assert_close(up[2, 1:5], torch.tensor([1.25, 1.75, 2.75, 4.25]))


def test_every_style_reaches_the_image_by_its_own_block():
    network = generator()
    styles = torch.randn(1, network.num_styles, 6).requires_grad_()
    seen = []
    for stage in network.stages:
        for block in stage.blocks:
            block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    network.synthesis(styles).square().sum().backward()
    assert len(seen) == network.num_styles == 4
    assert all(torch.equal(style, styles[:, i]) for i, style in enumerate(seen))
    assert (styles.grad.abs().amax(dim=2) > 0).all()


@pytest.mark.parametrize("compiler", [True, False])
@pytest.mark.parametrize("shape", [(2, 50, 3), (1, 40_000, 12), (3, 30_001, 7)])
def test_moments_of_large_maps_keep_their_digits_where_the_mean_is_large(shape, compiler, monkeypatch):
    if not compiler:
        monkeypatch.setattr(moments_module, "library", lambda: "no compiler")
    torch.manual_seed(0)
    x = torch.randn(shape) * torch.linspace(0.5, 2, shape[2]) + torch.linspace(-1000, 1000, shape[2])
    x[:, : shape[1] // 2] += 1  # Pieces with different means.
    variance, mean = moments(x)
    exact = torch.var_mean(x.double(), dim=1, keepdim=True, correction=0)
    torch.testing.assert_close(variance.double(), exact[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(mean.double(), exact[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("compiler", [True, False])
@pytest.mark.parametrize("shape", [(2, 50, 3), (1, 3000, 20), (3, 2048, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maps_are_normalised_with_statistics_in_float32(shape, dtype, compiler, monkeypatch):
    """A view of a larger batch, whose images lie apart, and one image for all of a batch."""
    if not compiler:
        monkeypatch.setattr(moments_module, "library", lambda: "no compiler")
    torch.manual_seed(0)
    batch, count, channels = shape
    for x in (torch.randn(batch, count + 2, channels)[:, 1:-1], torch.randn(1, count, channels).expand(shape)):
        x = (x + 5).to(dtype)
        gamma, beta = torch.randn(batch, 1, 2 * channels).chunk(2, dim=-1)
        variance, mean = moments(x)
        assert variance.dtype == mean.dtype == torch.float32
        slope = gamma * torch.rsqrt(variance + 1e-5)
        out = torch.empty(batch, count + 1, channels, dtype=dtype)[:, :count]
        assert modulated(x, mean, slope, beta, out) is out
        exact = torch.nn.functional.instance_norm(x.double().transpose(1, 2)).transpose(1, 2) * gamma + beta
        torch.testing.assert_close(out.double(), exact, rtol=2**-8 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


@pytest.mark.parametrize("compiler", [True, False])
@pytest.mark.parametrize("shape", [(2, 50, 3), (3, 3001, 20)])
def test_gradients_of_what_is_normalised_are_those_of_the_formula(shape, compiler, monkeypatch):
    if not compiler:
        monkeypatch.setattr(moments_module, "library", lambda: "no compiler")
    torch.manual_seed(0)
    x, grad = (torch.randn(shape[0], shape[1] + 1, shape[2])[:, 1:] for _ in range(2))
    x, modulation = x * 3 + 100, torch.randn(shape[0], 1, 2 * shape[2])
    exact = [t.double().requires_grad_() for t in (x, *modulation.chunk(2, dim=-1))]
    variance, mean = torch.var_mean(exact[0], dim=1, keepdim=True, correction=0)
    out = exact[1] * (exact[0] - mean) * torch.rsqrt(variance + 1e-5) + exact[2]
    expected = torch.autograd.grad(out, exact, grad.double())
    variance, mean = moments(x)
    found = gradients(grad, x, modulation.chunk(2, dim=-1)[0], mean, torch.rsqrt(variance + 1e-5))
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_what_is_not_a_number_stays_so_in_bfloat16():
    x = torch.ones(1, 40, 17, dtype=torch.bfloat16)
    x[0, 7, 3] = torch.nan
    variance, mean = moments(x)
    assert variance.isnan().nonzero().tolist() == mean.isnan().nonzero().tolist() == [[0, 0, 3]]
    bits = torch.full((1, 1, 17), -1, dtype=torch.int32).view(torch.float32)  # The NaN that rounding would carry over.
    out = modulated(x, bits, torch.ones_like(bits), torch.ones_like(bits), torch.empty_like(x))
    assert out.isnan().all()


def test_moments_are_the_same_bits_on_any_number_of_threads(all_threads):
    x, found = torch.randn(2, 5000, 24), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(moments(x))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_spectral_norm_divides_by_the_largest_singular_value_and_differentiates_it():
    """Miyato et al., arXiv 1802.05957, equation 12: W / sigma does not depend on W's scale, so the gradient is
    orthogonal to W."""
    torch.manual_seed(0)
    norm = SpectralNorm(torch.randn(5, 3, 2, 1).double()).double()
    for _ in range(200):
        norm()
    norm.eval()
    vectors = norm.u.clone(), norm.v.clone()
    weight = norm()
    assert torch.equal(norm.u, vectors[0]) and torch.equal(norm.v, vectors[1])  # None in evaluation mode.
    assert float(torch.linalg.svdvals(weight.detach().flatten(1))[0]) == pytest.approx(1)
    assert torch.equal(norm(2.0), 2 * weight)
    matrix = norm.weight.detach().clone().requires_grad_()
    factor = lambda w: 1.5 / torch.dot(norm.u, w.detach().flatten(1) @ norm.v)  # noqa: E731
    divided = lambda w: _Divided.apply((1.5,), None, [norm.u], [norm.v], [factor(w)], w)[0]  # noqa: E731
    plain = lambda w: 1.5 * w / torch.dot(norm.u, w.flatten(1) @ norm.v)  # noqa: E731
    grad = torch.randn_like(weight)
    for ours, formula in zip(*(torch.autograd.grad(f(matrix), matrix, grad) for f in (divided, plain)), strict=True):
        torch.testing.assert_close(ours, formula, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradgradcheck(divided, matrix)
    (weight * torch.randn_like(weight)).sum().backward()
    assert abs(float((norm.weight.grad * norm.weight.detach()).sum())) < 1e-9 < float(norm.weight.grad.abs().max())


def test_adain_begins_with_its_gamma_bias_and_the_styles_of_an_equalised_layer():
    torch.manual_seed(0)
    published, other = AdaIN(300, 100), AdaIN(300, 100, gamma_bias=1.0, style_gain=0.1)
    assert not published.style.bias.any() and float(published.style.weight.detach().std()) == pytest.approx(1, rel=0.02)
    assert torch.equal(other.style.bias, torch.cat([torch.ones(300), torch.zeros(300)]))
    assert float(other.style.weight.detach().std()) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("training", [True, False])
def test_spectral_norms_together_are_those_of_the_single_calls(training):
    torch.manual_seed(0)
    together = nn.ModuleList(SpectralNorm(torch.randn(shape)) for shape in [(5, 3, 2, 2), (4, 6), (1, 5)])
    together.train(training)
    together[1].requires_grad_(False)  # A frozen layer.
    single = copy.deepcopy(together)
    gains = [1.0, 2.0, 0.5]
    norms = SpectralNorms(together, gains).train(training)
    assert not norms.state_dict()
    for _ in range(2):
        weights = norms()
        expected = [norm(gain) for norm, gain in zip(single, gains, strict=True)]
        for ours, theirs in zip(weights, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
        assert [weight.requires_grad for weight in weights] == [True, False, True]
        for name, value in single.state_dict().items():
            torch.testing.assert_close(together.state_dict()[name], value)
            assert together.state_dict()[name].untyped_storage().nbytes() == value.numel() * 4  # For checkpoints.
    # The loss sees two, or one of them.
    for used in ([0, 2], [2]):
        for layers, found in ((together, weights), (single, expected)):
            layers.zero_grad(set_to_none=True)
            sum(found[i].square().sum() * found[i].sum() for i in used).backward(retain_graph=True)
        for ours, theirs in zip(together.parameters(), single.parameters(), strict=True):
            assert (ours.grad is None) == (theirs.grad is None)
            if ours.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad)


def test_one_power_iteration_a_call_in_training():
    torch.manual_seed(0)
    norm = SpectralNorm(torch.randn(4, 3))
    matrix, u = norm.weight.detach(), norm.u.clone()
    norm()
    v = F.normalize(matrix.t() @ u, dim=0)
    torch.testing.assert_close(norm.v, v)
    torch.testing.assert_close(norm.u, F.normalize(matrix @ v, dim=0))
    assert set(norm.state_dict()) == {"weight", "u", "v"}  # A resume goes on with the same vectors.


@pytest.mark.parametrize("labels", [None, torch.zeros(4, 2), torch.zeros(4)])
def test_labels_that_are_missing_or_of_other_classes_are_refused(labels):
    assert given(torch.ones(4, 3), 3).shape == (4, 3)
    with pytest.raises(ValueError, match="needs labels"):
        given(labels, 3)


@pytest.mark.parametrize("band, expected", [(0, 5.0), (1, -2.0), (2, -1.0), (3, 0.0)])
@pytest.mark.parametrize("colour", range(3))
def test_the_wavelet_channels_are_bands_of_three_colours(band, colour, expected):
    """Of [[1, 2], [3, 4]]: low-low 10 / 2; upper less lower row -4 / 2; left less right column -2 / 2; both 0."""
    layer = FromWavelet(1, spectral_norm=False)
    with torch.no_grad():
        layer.weight.weight.zero_()
        layer.weight.weight[0, 3 * band + colour] = 1 / layer.weight.scale
    image = torch.full((1, 3, 2, 2), 7.0)
    image[0, colour] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    (weight,) = layer.on_pixels([layer.weight(layer.gain)])
    torch.testing.assert_close(layer(image, weight, layer.bias), leaky_relu(torch.tensor(expected)).view(1, 1, 1, 1))


def test_biases_of_activated_layers_have_the_gain_of_the_activation_and_those_of_linear_layers_none():
    """As in ``leaky_relu(convolution(x) + bias)``, with derivatives; a frozen layer's bias gets none."""
    network = WaveletDiscriminator(resolution=16, channels=[4, 4], stddev_group=1).double()
    layers = [*network.from_wavelet, *network.blocks[0], network.final_convolution, network.final_linear, network.logit]
    for layer in layers:
        nn.init.normal_(layer.bias)
    network.freeze(1)
    found = {layer: bias for layer, (_, bias) in network.weights().items()}
    assert set(found) == set(layers)
    slopes = [torch.randn_like(layer.bias) for layer in layers]
    total = sum((slope * found[layer].square()).sum() for slope, layer in zip(slopes, layers, strict=True))
    trained = [i for i, layer in enumerate(layers) if layer.bias.requires_grad]
    assert len(layers) - len(trained) == 3
    grads = torch.autograd.grad(total, [layers[i].bias for i in trained], create_graph=True)
    seconds = torch.autograd.grad(sum(g.sum() for g in grads), [layers[i].bias for i in trained])
    for i, grad, second in zip(trained, grads, seconds, strict=True):
        gain = 1.0 if layers[i] in (network.final_linear, network.logit) else 2**0.5
        torch.testing.assert_close(found[layers[i]], gain * layers[i].bias)
        torch.testing.assert_close(grad, 2 * gain**2 * slopes[i] * layers[i].bias)
        torch.testing.assert_close(second, 2 * gain**2 * slopes[i])
    for i in set(range(len(layers))) - set(trained):
        assert not found[layers[i]].requires_grad


def test_minibatch_stddev_is_the_mean_deviation_of_every_group():
    """Progressive GAN, section 3: images 0 and 2 are a group, 1 and 3 another."""
    x = torch.tensor([[1.0, 0.0], [5.0, 5.0], [3.0, 4.0], [5.0, 5.0]])[:, :, None, None]
    out = minibatch_stddev(x, 2)
    assert torch.equal(out[:, :2], x)
    torch.testing.assert_close(out[:, 2].flatten(), torch.tensor([1.5, 1e-4, 1.5, 1e-4]))


def test_the_projection_of_each_image_on_its_own_class_is_added_to_its_logit():
    """arXiv 1802.05637: psi(phi(x)) + <V y, phi(x)>, scaled as StyleGAN2-ADA scales it."""
    network = WaveletDiscriminator(resolution=8, channels=[4], stddev_group=1, num_classes=3).double().eval()
    images, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[[0, 2, 1, 0]]
    features = network.features(images)
    made = network.weights()[network.logit]
    expected = [
        network.logit(f, *made) + network.embed(y) @ f / len(f) ** 0.5 for f, y in zip(features, labels, strict=True)
    ]
    torch.testing.assert_close(network(images, labels), torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_as_many_layers_can_be_frozen_as_there_are():
    def trained(layers):
        network = WaveletDiscriminator(resolution=32, channels=[4, 4, 4], stddev_group=1)
        network.freeze(layers)
        return [any(p.requires_grad for p in block.parameters()) for block in network.blocks]

    assert [trained(layers) for layers in (0, 1, 2)] == [[True, True], [False, True], [False, False]]
    for layers in (-1, 3):
        with pytest.raises(UserError, match="has 2 layers to freeze"):
            trained(layers)
