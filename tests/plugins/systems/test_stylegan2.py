"""StyleGAN2's networks, recipe and checkpoint layouts, without recordings."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from plugins.systems.stylegan2.discriminator import StyleGAN2Discriminator
from plugins.systems.stylegan2.generator import StyleGAN2Generator
from plugins.systems.stylegan2.layers import Convolution, StyledConvolution, modulated
from plugins.systems.stylegan2.layout_ada import Generator as AdaGenerator
from plugins.systems.stylegan2.layout_rosinality import Discriminator, Generator
from plugins.systems.stylegan2.recipe import GeneratorFirst
from registry import UserError, load_plugins
from stylenat.commands.export_weights import main as export_weights
from stylenat.commands.import_weights import main as import_weights
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample
from stylenat.networks.resampling import blur_kernel
from stylenat.reference import discriminator_from_reference, generator_from_reference, layouts, to_theirs
from stylenat.sampling import mean_style, sampler_of
from stylenat.training import loop
from stylenat.training.step import steps_of

SMALL = {"resolution": 16, "channel_base": 128, "channel_max": 12}


def generator(**options):
    torch.manual_seed(0)
    small = SMALL | {"latent_dim": 8, "style_dim": 8, "mapping_layers": 2}
    network = StyleGAN2Generator(**small | options)
    for name, tensor in network.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(tensor, 0.5)
    return network


def drawn(network, count, seed=1):
    source = torch.Generator().manual_seed(seed)
    return {name: draw(count, source) for name, draw in network.draws.items()}


@pytest.mark.parametrize(
    "options, parameters",
    [
        ({"resolution": 256, "channel_base": 16384}, 24_767_458),
        ({"resolution": 256}, 30_034_338),
        ({"resolution": 512}, 30_276_583),
        ({"resolution": 1024}, 30_370_060),
        ({"resolution": 256, "channel_base": 16384, "mapping_layers": 2}, 23_191_522),
        ({"resolution": 1024, "mapping_layers": 2}, 28_794_124),
        ({"resolution": 32, "mapping_layers": 2}, 19_947_539),
        ({"resolution": 32, "mapping_layers": 2, "num_classes": 10}, 20_215_315),
    ],
)
def test_generators_have_the_published_parameters(options, parameters):
    with torch.device("meta"):
        network = StyleGAN2Generator(**options)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(
    "options, parameters",
    [
        ({"resolution": 256, "channel_base": 16384}, 24_001_089),
        ({"resolution": 256}, 28_864_129),
        ({"resolution": 512}, 28_982_849),
        ({"resolution": 1024}, 29_012_513),
        ({"resolution": 32, "architecture": "orig"}, 20_720_641),
        ({"resolution": 32, "architecture": "orig", "num_classes": 10}, 23_089_664),
    ],
)
def test_discriminators_have_the_published_parameters(options, parameters):
    with torch.device("meta"):
        network = StyleGAN2Discriminator(**options)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("up", [1, 2])
def test_a_modulated_convolution_is_the_papers_for_each_image(up):
    """Equations 1 and 3: the weight of every image is scaled, then normalised over its inputs."""
    x, weight, styles = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 3, 3), torch.randn(2, 3)
    found = modulated(x, weight, styles, blur_kernel(), up)
    for i in range(2):
        scaled = weight * styles[i][None, :, None, None]
        scaled = scaled / (scaled.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up == 1:
            expected = F.conv2d(x[i : i + 1], scaled, padding=1)
        else:
            expected = F.conv_transpose2d(x[i : i + 1], scaled.transpose(0, 1), stride=2)
            kernel = 4 * blur_kernel().expand(5, 1, 4, 4)
            expected = F.conv2d(expected, kernel, padding=1, groups=5)
        torch.testing.assert_close(found[i : i + 1], expected)


def test_noise_enters_before_the_activation_and_its_clamp_is_scaled_by_the_gain():
    layer = StyledConvolution(2, 2, 4, side=4, up=1, clamp=0.5)
    with torch.no_grad():
        layer.weight.zero_()
        layer.noise_strength.fill_(1.0)
        layer.bias.fill_(1.0)
    x, style = torch.randn(1, 2, 4, 4), torch.randn(1, 4)
    low = layer(x, style, torch.full((1, 1, 4, 4), -1.2))
    torch.testing.assert_close(low, torch.full_like(low, -0.2 * 0.2 * 2**0.5))
    high = layer(x, style, torch.full((1, 1, 4, 4), 5.0), gain=0.3)
    torch.testing.assert_close(high, torch.full_like(high, 0.15))


def test_a_linear_convolution_is_scaled_and_not_clamped():
    layer = Convolution(2, 3, 1, bias=False, clamp=1e-3)
    x = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(layer(x, 0.5), F.conv2d(x, layer.weight) * 0.5 / 2**0.5)


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
def test_every_generator_architecture_has_the_same_styles_and_its_own_layers(architecture):
    network = generator(architecture=architecture)
    assert network.num_styles == 6
    assert network(torch.randn(2, 8), **drawn(network, 2)).shape == (2, 3, 16, 16)
    names = set(network.state_dict())
    assert ("blocks.0.to_rgb.weight" in names) == (architecture == "skip")
    assert ("blocks.1.skip.weight" in names) == (architecture == "resnet")
    styles = torch.randn(2, 6, 8, requires_grad=True)
    network.synthesis(styles).square().sum().backward()
    assert (styles.grad.abs().amax(dim=2) > 0).all()


@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_every_discriminator_architecture_sees_the_image_and_the_label(architecture, num_classes):
    network = StyleGAN2Discriminator(**SMALL, architecture=architecture, num_classes=num_classes)
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    labels = [torch.eye(3)[[0, 1, 2, 0]]] if num_classes else []
    logits = network(images, *labels)
    assert logits.shape == (4, 1)
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    slope.square().sum().backward()
    assert (network.final_from_rgb is not None) == (architecture == "skip")
    if num_classes:
        assert not torch.equal(logits, network(images, labels[0].roll(1, dims=1)))


def test_styles_are_mixed_from_one_layer_of_the_whole_batch_on_and_only_in_training():
    network = generator(style_mixing=0.5)
    z = torch.randn(4, 8)
    firsts = set()
    for seed in range(60):
        draws = drawn(network, 4, seed)
        assert torch.equal(draws["mixing"][0].expand(4, 2), draws["mixing"])
        styles, others = network.styles(z, **draws), network.mapping(draws["mixing_latents"])
        mixed = (styles == others[:, None]).all(dim=2)
        assert (mixed == mixed[0]).all() and torch.equal(styles[:, 0], network.mapping(z))
        first = int((~mixed[0]).sum())
        assert mixed[0, first:].all()
        firsts.add(first)
    assert firsts == {1, 2, 3, 4, 5, 6}  # 6: not mixed.
    assert torch.equal(network.eval().styles(z, **draws), network.mapping(z)[:, None].expand(-1, 6, -1))
    assert "mixing" not in network.draws


@pytest.mark.parametrize("training, option", [(True, "noise"), (False, "sampling_noise")])
def test_noise_is_random_constant_or_left_out(training, option):
    images = {}
    for kind in ("random", "const", "none"):
        network = generator(style_mixing=0.0, **{option: kind}).train(training)
        assert bool(network.draws) == (kind == "random")
        z = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
        images[kind] = network(z, **drawn(network, 2))
        other = network(z, **drawn(network, 2, seed=2))
        assert torch.equal(images[kind], other) == (kind != "random")
    assert not torch.allclose(images["random"], images["const"]) and not torch.allclose(images["const"], images["none"])


def test_the_mean_style_follows_the_batches_and_is_what_truncation_pulls_towards():
    network = generator(mean_style_decay=0.75)
    z = torch.randn(6, 8)
    network.observe(z)
    torch.testing.assert_close(network.mean_style, 0.25 * network.mapping(z).mean(dim=0))
    assert torch.equal(mean_style(network)[0], network.mean_style)
    sampler = sampler_of(network.eval(), seed=0, truncation_psi=0.0)
    assert torch.equal(sampler.styles(z), network.mean_style.expand(6, 8))
    assert sampler.protocol()["truncation_centre"] == "mean style kept in training"
    computed = generator(mean_style_decay=None)
    assert "mean_style" not in computed.state_dict() and mean_style(computed).any()
    computed.observe(z)


def test_the_recipe_is_the_reference_training_loops():
    from plugins.regularizers.gradient_penalty import R1
    from plugins.regularizers.path_length import PathLength

    steps = steps_of(GeneratorFirst(), [R1(), PathLength()])
    rows = [(step.phases[0].name, step.interval, step.new_images, step.new_latents) for step in steps]
    assert rows == [
        ("generator", 1, True, True),
        ("path_length", 4, False, True),
        ("discriminator", 1, False, True),
        ("r1", 16, False, False),
    ]


def test_layers_are_frozen_from_the_image_on():
    network = StyleGAN2Discriminator(**SMALL)
    network.freeze(3)
    first = network.blocks[0]
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {f"blocks.0.{m}.{t}" for m in ("from_rgb", "conv0", "conv1") for t in ("weight", "bias")}
    assert first.skip.weight.requires_grad
    with pytest.raises(UserError, match="has 7 layers to freeze at 16x16"):
        network.freeze(8)


ROSINALITY = {
    "input.input": (1, 12, 4, 4), "style.1.weight": (8, 8), "style.2.bias": (8,),
    "conv1.conv.weight": (1, 12, 12, 3, 3),
    "conv1.conv.modulation.weight": (12, 8), "conv1.noise.weight": (1,), "conv1.activate.bias": (12,),
    "to_rgb1.conv.weight": (1, 3, 12, 1, 1), "to_rgb1.bias": (1, 3, 1, 1), "convs.0.conv.weight": (1, 12, 12, 3, 3),
    "convs.0.conv.blur.kernel": (4, 4), "convs.3.conv.weight": (1, 8, 8, 3, 3), "convs.3.noise.weight": (1,),
    "to_rgbs.1.conv.modulation.bias": (8,), "to_rgbs.1.upsample.kernel": (4, 4), "noises.noise_0": (1, 1, 4, 4),
    "noises.noise_1": (1, 1, 8, 8), "noises.noise_4": (1, 1, 16, 16),
}  # fmt: skip
"""Some names and shapes of that code's generator, of these sizes."""


def test_rosinalitys_generators_have_their_names_and_shapes():
    network, layout = generator(mean_style_decay=None), Generator()
    theirs = to_theirs(network.state_dict(), network, layout) | layout.constants(network)
    for name, shape in ROSINALITY.items():
        assert tuple(theirs[name].shape) == shape, name
    # Each of these kinds: one at 4x4, two for each further resolution.
    assert sum(name.startswith("noises.") for name in theirs) == 5
    assert len({name.split(".")[1] for name in theirs if name.startswith("convs.")}) == 4


def test_rosinalitys_generator_computes_the_same_image():
    """Its forward, written from its structure: the first RGB has style 1, each further block i, i + 1 and i + 2."""
    network = generator(mean_style_decay=None).eval()
    theirs = to_theirs(network.state_dict(), network, Generator())
    z = torch.randn(2, 8)
    latent = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
    for i in (1, 2):
        weight, bias = theirs[f"style.{i}.weight"], theirs[f"style.{i}.bias"]
        latent = F.leaky_relu(F.linear(latent, weight * 0.01 / 8**0.5, bias * 0.01), 0.2) * 2**0.5

    def convolved(x, name, up=False, demodulate=True):
        weight = theirs[f"{name}.conv.weight"]
        _, out, inputs, side, _ = weight.shape
        style = F.linear(latent, theirs[f"{name}.conv.modulation.weight"] / 8**0.5)
        style = style + theirs[f"{name}.conv.modulation.bias"]
        weight = weight * style[:, None, :, None, None] / (inputs * side**2) ** 0.5
        if demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        if not up:
            return torch.cat([F.conv2d(x[i : i + 1], weight[i], padding=side // 2) for i in range(2)])
        parts = [F.conv_transpose2d(x[i : i + 1], weight[i].transpose(0, 1), stride=2) for i in range(2)]
        return F.conv2d(torch.cat(parts), 4 * blur_kernel().expand(out, 1, 4, 4), padding=1, groups=out)

    def styled(x, name, number, up=False):
        x = convolved(x, name, up) + theirs[f"{name}.noise.weight"] * theirs[f"noises.noise_{number}"]
        return F.leaky_relu(x + theirs[f"{name}.activate.bias"][:, None, None], 0.2) * 2**0.5

    def rgb(x, name):
        return convolved(x, name, demodulate=False) + theirs[f"{name}.bias"]

    x = styled(theirs["input.input"].expand(2, -1, -1, -1), "conv1", 0)
    image = rgb(x, "to_rgb1")
    for i in (0, 1):
        x = styled(styled(x, f"convs.{2 * i}", 2 * i + 1, up=True), f"convs.{2 * i + 1}", 2 * i + 2)
        image = F.conv_transpose2d(image, 4 * blur_kernel().expand(3, 1, 4, 4), stride=2, padding=1, groups=3)
        image = image + rgb(x, f"to_rgbs.{i}")
    torch.testing.assert_close(network(z), image, atol=1e-4, rtol=1e-4)


def test_rosinalitys_files_are_built_from_their_configurations():
    config = {"size": 16, "style_dim": 8, "n_mlp": 2, "channel_multiplier": 1}
    with torch.device("meta"):
        network = Generator().build(config)
        other = Discriminator().build({"size": 16, "channel_multiplier": 1})
    assert network.blocks[0].conv1.weight.shape[0] == 512 and not hasattr(network, "mean_style")
    assert Discriminator().dimensions(to_theirs(other.state_dict(), other, Discriminator())) == {
        "resolution": 16, "num_classes": 0,
    }  # fmt: skip
    for kept in (generator(), generator(architecture="orig"), generator(num_classes=2)):
        with pytest.raises(UserError, match="no names for"):
            Generator().pairs(kept)


CONFIG = {
    "z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 3, "mapping_kwargs": {"num_layers": 2},
    "synthesis_kwargs": {"channel_base": 128, "channel_max": 12, "num_fp16_res": 4, "conv_clamp": 256},
}  # fmt: skip


@pytest.mark.parametrize(
    "options, message",
    [
        ({"img_channels": 1}, "img_channels = 1 is not built here"),
        ({"new": 1}, "options unknown here: new"),
        ({"synthesis_kwargs": {"activation": "relu"}}, "activation"),
        ({"mapping_kwargs": {"layer_features": 3}}, "layer_features"),
        ({"img_resolution": 32}, "has resolution 16, num_classes 0, and the experiment's network resolution 32"),
        ({"c_dim": 3}, "num_classes 0, and the experiment's network resolution 16, num_classes 3"),
    ],
)
def test_another_configuration_than_the_states_is_refused_in_one_line(options, message):
    network = AdaGenerator().build(CONFIG)
    state = to_theirs(network.state_dict(), network, AdaGenerator())
    assert generator_from_reference(CONFIG, state).blocks[0].conv1.clamp == 256
    with pytest.raises(UserError, match=message):
        generator_from_reference(CONFIG | options, state)


def test_a_discriminators_configuration_is_checked_too():
    config = {"img_resolution": 16, "c_dim": 3, "channel_base": 128, "channel_max": 12}
    layout = layouts(load_plugins())["stylegan2_ada_discriminator"]
    network = layout.build(config | {"epilogue_kwargs": {"mbstd_group_size": 2}})
    assert network.stddev_group == 2 and network.num_classes == 3
    state = to_theirs(network.state_dict(), network, layout)
    assert discriminator_from_reference(config, state).num_classes == 3
    for options, message in (
        ({"c_dim": 0}, "num_classes 3"),
        ({"epilogue_kwargs": {"mbstd_num_channels": 2}}, "mbstd"),
    ):
        with pytest.raises(UserError, match=message):
            discriminator_from_reference(config | options, state)


@pytest.fixture
def small(tiny):
    """Arguments of a run of seconds."""
    binds = [
        "train.generator = @generator.stylegan2",
        "generator.stylegan2.resolution = %SIDE",
        "generator.stylegan2.channel_base = 128",
        "generator.stylegan2.channel_max = 12",
        "generator.stylegan2.latent_dim = 8",
        "generator.stylegan2.style_dim = 8",
        "generator.stylegan2.mapping_layers = 2",
        "train.discriminator = @discriminator.stylegan2",
        "discriminator.stylegan2.resolution = %SIDE",
        "discriminator.stylegan2.channel_base = 128",
        "discriminator.stylegan2.channel_max = 12",
        "train.recipe = @recipe.stylegan2()",
        "train.regularizers = [@regularizer.path_length(), @regularizer.r1()]",
        "train.pixel_space = 'symmetric'",
        "train.truncation_psi = 0.7",
    ]
    dropped = ("generator.style.", "discriminator.wavelet.")
    pairs = list(zip(tiny[::2], tiny[1::2], strict=True))
    kept = [item for pair in pairs if not pair[1].startswith(dropped) for item in pair]
    return [*kept, *(item for bind in binds for item in ("--bind", bind))]


def test_a_run_trains_resumes_and_is_sampled(small, everything, monkeypatch):
    assert run([*small, "--run-dir", "whole"]) == 0
    iteration = loop.iteration

    def stopped(state, images):
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return iteration(state, images)

    monkeypatch.setattr(loop, "iteration", stopped)
    assert run([*small, "--run-dir", "parts"]) == 75
    monkeypatch.setattr(loop, "iteration", iteration)
    assert run([*small, "--run-dir", "parts"]) == 0
    assert everything(Path("whole")) == everything(Path("parts"))
    state = everything(Path("whole"))["state"]
    assert state["parts"]["regularizer/path_length"]["mean"] > 0
    assert sample(["whole", "--seeds", "0-3", "--truncation-psi", "0.5", "--out", "pictures"]) == 0


@pytest.mark.parametrize("system", ["ada", "rosinality"])
def test_weights_are_imported_sampled_and_exported_bit_for_bit(small, system, capsys):
    known = layouts(load_plugins())
    keeps = {"mean_style_decay": None} if system == "rosinality" else {}
    networks = {"g_ema": generator(**keeps), "d": StyleGAN2Discriminator(**SMALL)}
    theirs = {}
    for name, network in networks.items():
        layout = known[f"stylegan2_{system}_{'generator' if name == 'g_ema' else 'discriminator'}"]
        theirs[name] = to_theirs(network.state_dict(), network, layout) | dict(layout.constants(network))
    torch.save(theirs, "theirs.pt")
    binds = [*small, "--bind", "generator.stylegan2.mean_style_decay = None"] if keeps else small
    assert import_weights(["theirs.pt", *binds, "--out", "imported"]) == 0
    assert f"ema: layout stylegan2_{system}_generator" in capsys.readouterr().out
    assert export_weights(["imported", "back.pt"]) == 0
    back = torch.load("back.pt", weights_only=True)
    assert back.keys() == theirs.keys()
    for name, state in theirs.items():
        assert back[name].keys() == state.keys()
        assert all(torch.equal(back[name][key], value) for key, value in state.items())
    assert sample(["imported", "--seeds", "0-1", "--out", "pictures"]) == 0

    torch.save(theirs["g_ema"], "bare.pt")
    wrong = [*binds, "--bind", "train.pixel_space = 'imagenet'"]
    assert import_weights(["bare.pt", *wrong, "--out", "other"]) == 2
    assert import_weights(["bare.pt", *binds, "--bind", "SIDE = 32", "--out", "other"]) == 2
    message = capsys.readouterr().err
    assert (
        "pixel space 'symmetric'" in message
        and "has resolution 16, num_classes 0, and the experiment's network resolution 32" in message
    )
    assert not Path("other").exists()


def test_conditional_weights_by_themselves_are_of_the_other_systems_names(small, capsys):
    """Both networks call the labels' embedding ``mapping.embed``, here and there."""
    known = layouts(load_plugins())
    binds = [*small]
    for kind in ("generator", "discriminator"):
        binds += ["--bind", f"{kind}.stylegan2.num_classes = 3"]
    networks = {
        "ema": (generator(num_classes=3), "generator"),
        "discriminator": (StyleGAN2Discriminator(**SMALL, num_classes=3), "discriminator"),
    }
    for name, (network, kind) in networks.items():
        layout = known[f"stylegan2_ada_{kind}"]
        torch.save(to_theirs(network.state_dict(), network, layout) | layout.constants(network), "bare.pt")
        assert import_weights(["bare.pt", *binds, "--out", name]) == 0
        assert f"{name}: layout stylegan2_ada_{kind}" in capsys.readouterr().out
    assert import_weights(["bare.pt", *small, "--out", "other"]) == 2
    assert "has resolution 16, num_classes 3, and the experiment's network" in capsys.readouterr().err


def test_path_length_and_truncation_need_styles_before_anything_is_written(tiny, capsys):
    Path("plain.py").write_text(PLAIN)
    plain = [*tiny, "--plugin", "plain.py", "--bind", "train.generator = @generator.plain"]
    plain += ["--bind", "generator.plain.resolution = %SIDE"]
    for bind in ("train.regularizers = [@regularizer.path_length()]", "train.truncation_psi = 0.5"):
        assert run([*plain, "--bind", bind, "--run-dir", "out"]) == 2
        assert run([*plain, "--bind", bind, "--dry-run"]) == 2
    assert capsys.readouterr().err.count("styles") == 4 and not Path("out").exists()


PLAIN = """
from torch import nn
from registry import hookimpl


class Plain(nn.Module):
    def __init__(self, resolution=16):
        super().__init__()
        self.resolution, self.latent_dim = resolution, 4
        self.layer = nn.Linear(4, 3 * resolution**2)

    def forward(self, latents, labels=None):
        return self.layer(latents).view(-1, 3, self.resolution, self.resolution)


@hookimpl
def stylenat_register(register):
    register("generator", "plain", Plain)
"""


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_keeps_large_weights_and_styles_in_range(dtype, tolerance):
    """Squares of 9 * 400 weights and of styles are beyond float16's 65504."""
    x, weight, styles = torch.randn(1, 400, 4, 4), 10 * torch.randn(4, 400, 3, 3), 10 * torch.randn(1, 400)
    exact = modulated(x, weight, styles, blur_kernel())
    with torch.autocast("cpu", dtype):
        found = modulated(x.to(dtype), weight, styles, blur_kernel())
    assert found.dtype == dtype and found.isfinite().all()
    torch.testing.assert_close(found.float(), exact, atol=tolerance, rtol=tolerance)
    network = generator()
    with torch.autocast("cpu", dtype):
        image = network(torch.randn(2, 8))
    assert image.dtype == torch.float32
