"""StyleGAN3: what its paper and fact sheet say, without its recordings."""

import json
from pathlib import Path

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from plugins.metrics.equivariance import EquivarianceRotation, EquivarianceTranslation
from plugins.systems.stylegan3 import filtered
from plugins.systems.stylegan3.filtered import filtered_leaky_relu
from plugins.systems.stylegan3.filters import low_pass
from plugins.systems.stylegan3.generator import StyleGAN3Generator
from registry import UserError, load_plugins
from stylenat import checkpoint
from stylenat.commands.export_weights import main as export_weights
from stylenat.commands.import_weights import main as import_weights
from stylenat.commands.run import main as run
from stylenat.networks.resampling import upfirdn
from stylenat.reference import layouts, to_theirs
from stylenat.sampling import Sampler
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


@pytest.mark.parametrize("options", [{}, R], ids=["t", "r"])
def test_half_precision_is_close_and_its_images_are_in_float32(options):
    torch.manual_seed(0)
    network = StyleGAN3Generator(**SMALL | options)
    with torch.no_grad():
        for layer in network.layers:
            layer.weight.mul_(100)  # Demodulation cancels it, but for RGB.
        network.layers[-1].weight.mul_(0.01)
    latents = torch.randn(2, 8)
    exact = network(latents).detach()
    with torch.autocast("cpu", torch.bfloat16):
        image = network(latents)
    assert image.dtype == torch.float32 and image.isfinite().all()
    torch.testing.assert_close(image, exact, atol=0.05 * float(exact.abs().max()), rtol=0.05)
    image.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


PLUGIN = ["--plugin", "plugins.systems.stylegan3"]


@pytest.fixture
def small(tiny):
    """Arguments of a run of seconds."""
    binds = [
        "train.generator = @generator.stylegan3",
        "generator.stylegan3.resolution = %SIDE",
        *(f"generator.stylegan3.{name} = {value}" for name, value in SMALL.items() if name != "resolution"),
        "generator.stylegan3.magnitude_decay = 0.9",
        "train.discriminator = @discriminator.stylegan2",
        "discriminator.stylegan2.resolution = %SIDE",
        "discriminator.stylegan2.channel_base = 128",
        "discriminator.stylegan2.channel_max = 12",
        "discriminator.stylegan2.stddev_group = 2",
        "train.recipe = @recipe.stylegan2()",
        "train.augmentation = @augmentation.blur()",
        "augmentation.blur.then = @augmentation.ada()",
        "train.metrics = [@metric.equivariance_translation()]",
        "train.pixel_space = 'symmetric'",
    ]
    dropped = ("generator.style.", "discriminator.wavelet.", "train.metrics")
    pairs = list(zip(tiny[::2], tiny[1::2], strict=True))
    kept = [item for pair in pairs if not pair[1].startswith(dropped) for item in pair]
    return [*PLUGIN, *kept, *(item for bind in binds for item in ("--bind", bind))]


def test_magnitudes_are_trained_and_copied_into_the_average_whatever_the_microbatches(small, everything):
    assert run([*small, "--run-dir", "whole"]) == 0
    assert run([*small, "--bind", "train.accumulate = 2", "--run-dir", "parts"]) == 0
    weights = {name: everything(Path(name)) for name in ("whole", "parts")}
    found = {name: json.loads(Path(name, "metrics.jsonl").read_text().splitlines()[-1]) for name in weights}
    assert all(line["metrics"]["eqt"] > 0 and line["metrics"]["eqt_frac"] > 0 for line in found.values())
    first = "layers.0.magnitude_ema"
    states = {name: checkpoint.weights(checkpoint.found(Path(name) / "checkpoints")[-1], "ema") for name in weights}
    for name, state in states.items():
        trained = checkpoint.weights(checkpoint.found(Path(name) / "checkpoints")[-1], "generator")
        assert torch.equal(state[first], trained[first]) and state[first] != 1
    torch.testing.assert_close(states["whole"][first], states["parts"][first], rtol=1e-3, atol=0)


def test_weights_are_imported_and_exported_bit_for_bit(small, capsys):
    layout = layouts(load_plugins(PLUGIN[1:]))["stylegan3_generator"]
    network = StyleGAN3Generator(**SMALL)
    theirs = to_theirs(network.state_dict(), network, layout) | layout.constants(network)
    torch.save({"g_ema": theirs}, "theirs.pt")
    assert import_weights(["theirs.pt", *small, "--out", "imported"]) == 0
    assert "ema: layout stylegan3_generator" in capsys.readouterr().out
    assert export_weights([*PLUGIN, "imported", "back.pt"]) == 0
    back = torch.load("back.pt", weights_only=True)["g_ema"]
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.items())
    assert import_weights(["theirs.pt", *small, "--bind", "SIDE = 32", "--out", "other"]) == 2
    assert "has resolution 16, num_classes 0, and the experiment's network resolution 32" in capsys.readouterr().err


def test_too_few_layers_are_one_line():
    with pytest.raises(UserError, match="2 of 2 layers are critically sampled.*; bind at least 3"):
        StyleGAN3Generator(**SMALL | {"num_layers": 2})


@pytest.mark.parametrize("options, turns", [({}, False), (R, True)], ids=["t", "r"])
def test_random_networks_are_equivariant_as_their_configuration_says(options, turns):
    torch.manual_seed(0)
    wide = {"resolution": 64, "channel_base": 1024, "channel_max": 16, "num_layers": 8}
    network = StyleGAN3Generator(**SMALL | wide | options).eval()
    torch.nn.init.normal_(network.input.affine.weight, std=0.3)
    found = {}
    for metric in (EquivarianceTranslation(), EquivarianceRotation()):
        rows = metric.accumulator()
        rows.update(metric.needs.along(Sampler(network, 0, pixel_space="symmetric"), 0, 2))
        found |= metric.compare(metric.accumulator(), rows)
    assert found["eqt"] > 55 and found["eqt_frac"] > 55
    assert found["eqr"] > 50 if turns else found["eqr"] < 35
