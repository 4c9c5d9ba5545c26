"""StyleGAN-XL's stages, discriminator, loss and guidance, without recordings."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from plugins.backbones.convolution import Convolution
from plugins.systems.stylegan_xl.diffaug import DRAWS, augmented
from plugins.systems.stylegan_xl.discriminator import ProjectedDiscriminator
from plugins.systems.stylegan_xl.embeddings import ClassEmbeddings
from plugins.systems.stylegan_xl.generator import StyleGANXLGenerator
from plugins.systems.stylegan_xl.guidance import ClassifierGuidance
from plugins.systems.stylegan_xl.layout import Generator
from plugins.systems.stylegan_xl.loss import ProjectedHinge
from plugins.systems.stylegan_xl.stages import sides_of
from registry import UserError
from stylenat import checkpoint
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample
from stylenat.commands.stages import main as stages
from stylenat.interfaces import Microbatch, Time
from stylenat.reference import to_ours, to_theirs
from stylenat.sampling import mean_style, sampler_of
from stylenat.testing import check_discriminator, check_generator
from stylenat.training import loop

SMALL = {
    "channel_base": 64, "channel_max": 8, "latent_dim": 6, "style_dim": 8, "stem_layers": 4, "head_layers": 3,
    "margin": 2, "embedding_dim": 5,
}  # fmt: skip
NARROW = {"channel_base": 32768, "channel_max": 512}
JUDGE = {"width": 4, "channels": (4, 4), "embedding_rows": 10, "embedding_dim": 6, "label_dim": 4}


def tiny_backbone():
    return Convolution(side=16, channels=(4, 8, 8))


def generator(**options):
    torch.manual_seed(0)
    return StyleGANXLGenerator(**SMALL | {"resolution": 16, "stem_resolution": 8, "embedding_rows": 4} | options)


def discriminator(**options):
    torch.manual_seed(0)
    return ProjectedDiscriminator(**JUDGE | {"resolution": 16, "backbones": [tiny_backbone, tiny_backbone]} | options)


@pytest.mark.parametrize(
    "options, parameters",
    [
        ({"resolution": 256, "stem_layers": 7, "head_layers": 4, **NARROW}, 34_015_675),
        ({"resolution": 256, **NARROW}, 62_186_010),
        ({"resolution": 16, **NARROW}, 27_368_967),
        ({"resolution": 256}, 233_322_598),
        ({"resolution": 1024, "head_layers": [7, 7, 7, 7, 7, 5], "num_classes": 1000}, 235_799_929),
        (
            {"resolution": 256, "channel_base": 131072, "channel_max": 2048, "kernel_size": 1, "radial_filters": True,
             "num_classes": 1000}, 128_953_587,
        ),
    ],
)  # fmt: skip
def test_generators_have_the_parameters_of_the_public_flags(options, parameters):
    with torch.device("meta"):
        network = StyleGANXLGenerator(**options)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_trained_in_a_stage_are_its_head_and_the_input():
    with torch.device("meta"):
        found = [StyleGANXLGenerator(resolution=side) for side in (32, 64, 128, 256)]
    trained = [sum(p.numel() for p in network.parameters() if p.requires_grad) for network in found]
    inputs = sum(p.numel() for p in found[0].input.parameters())
    assert [count - inputs for count in trained] == [70_273_027, 70_273_027, 44_787_007, 13_531_527]


@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, {"resolution": 8}, {"train_kept": True, "num_classes": 2}])
def test_generators_keep_the_contract(options):
    check_generator(
        StyleGANXLGenerator, **SMALL | {"resolution": 16, "stem_resolution": 8, "embedding_rows": 4} | options
    )


@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, {"pixel_space": "imagenet", "diffaugment": "color"}])
def test_discriminators_keep_the_contract(options):
    check_discriminator(ProjectedDiscriminator, resolution=16, backbones=[tiny_backbone], **JUDGE | options)


def test_a_stage_of_several_doublings_and_other_numbers_of_layers_can_be_built():
    network = generator(resolution=64, growth=[32, 64], head_layers=[4, 3])
    assert network.plan.sides == (8, 32, 64) and network(torch.randn(1, 6)).shape[-1] == 64
    # 5 layers with ToRGB, less 3, and 5; less 3, and 4.
    assert network.plan.kept == 4 and len(network.layers) == 8


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((48, 16, None), "stages of 16, 32, 64 do not lead to resolution = 48"),
        ((8, 16, None), "stages of 16 do not lead to resolution = 8"),
        ((64, 16, [64, 32]), "stages of 16, 64, 32 do not lead"),
        ((64, 12, None), "stages of 12, 24, 48, 96 do not lead"),
    ],
)
def test_stages_that_do_not_lead_to_the_resolution_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        sides_of(*arguments, "generator.stylegan_xl")


def test_too_few_numbers_of_layers_and_too_many_classes_are_refused_in_one_line():
    with pytest.raises(UserError, match="head_layers has 1 numbers for 2 stages"):
        generator(resolution=32, head_layers=[3])
    with pytest.raises(UserError, match="generator.stylegan_xl.num_classes = 5 is more than the 4 class embeddings"):
        generator(num_classes=5)
    with pytest.raises(UserError, match="discriminator.projected.num_classes = 11 is more than the 10"):
        discriminator(num_classes=11)


def test_each_class_has_a_mean_style_that_its_latents_move_one_after_the_other():
    network = generator(num_classes=3, mean_style_decay=0.9)
    latents, classes = torch.randn(5, 6), torch.tensor([0, 2, 0, 0, 2])
    labels = F.one_hot(classes, 3).float()
    expected = torch.randn(3, 8)
    network.mean_style.copy_(expected)
    styles = network.mapping(latents, labels)
    for style, number in zip(styles, classes.tolist(), strict=True):
        expected[number] = style.lerp(expected[number], 0.9)
    network.observe(latents, labels)
    torch.testing.assert_close(network.mean_style, expected)


def test_truncation_pulls_towards_the_mean_style_of_the_class():
    from stylenat.classes import Classes

    network = generator(num_classes=3).eval()
    network.mean_style.normal_()
    assert mean_style(network) is network.mean_style or torch.equal(mean_style(network), network.mean_style)
    sampler = sampler_of(network, 0, 0.5, classes=Classes((1, 1, 1), ("a", "b", "c"))).of_class(1)
    latents, labels = sampler.latents(0, 4), sampler.labels(0, 4)
    free = network.mapping(latents, labels)
    torch.testing.assert_close(sampler.styles(latents, labels), network.mean_style[1].lerp(free, 0.5))


def test_diffaugment_is_drawn_anew_for_each_backbone_and_only_in_training():
    network = discriminator(diffaugment="color,translation,cutout")
    assert list(network.draws) == ["augmentation0", "augmentation1"] and not network.eval().draws
    same = discriminator(diffaugment="color,translation,cutout").eval()
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    draws = torch.rand(4, DRAWS)
    sizes = same.logit_sizes()
    plain = same(images).split(sizes, dim=1)
    first, second = same(images, augmentation0=draws).split(sizes, dim=1)
    assert torch.equal(second, plain[1]) and not torch.allclose(first, plain[0])
    seen = augmented(images, draws, ("color", "translation", "cutout"))
    torch.testing.assert_close(first, same(seen).split(sizes, dim=1)[0])
    assert not discriminator(diffaugment="").draws


def test_backbone_and_projector_stay_as_they_are_in_training():
    built, network = discriminator(), discriminator().eval().train()
    for one in (built, network):
        assert not any(part.backbone.training for part in one.networks) and one.networks[0].scales.training
    frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert frozen and all("backbone" in name or "projector" in name for name in frozen)


def test_maps_that_are_not_halved_and_unknown_policies_are_refused_in_one_line():
    class Odd(nn.Module):
        channels = (2, 2)

        def forward(self, images):
            return [images[:, :2], images[:, :2, ::4, ::4]]

    network = ProjectedDiscriminator(resolution=16, backbones=[Odd], **JUDGE)
    with pytest.raises(UserError, match="maps have the sides 16, 4, and each must be half of the one before"):
        network(torch.randn(2, 3, 16, 16))
    with pytest.raises(UserError, match="a mixed map of side 16 is too small for 4 halvings"):
        discriminator(channels=(4, 4, 4, 4))(torch.randn(2, 3, 16, 16))
    with pytest.raises(UserError, match="diffaugment has no 'colour'; there are color, translation, cutout"):
        discriminator(diffaugment="colour")
    with pytest.raises(UserError, match="backbones is empty"):
        discriminator(backbones=[])


def test_the_hinge_loss_sums_over_networks_and_images_and_averages_an_images_logits():
    class Judge(nn.Module):
        def logit_sizes(self):
            return [1, 3]

    loss = ProjectedHinge(images=5)
    loss.check(nn.Identity(), Judge())
    logits = torch.tensor([[0.5, 1.0, 2.0, 3.0], [-0.5, 0.0, 0.0, 0.0]])
    assert loss.generator(logits).item() == pytest.approx(5 * -(0.0 + (2 + 0) / 2))
    real = (0.5 + 1.5) / 2 + (0 + 1) / 2
    fake = (1.5 + 0.5) / 2 + (3 + 1) / 2
    assert loss.discriminator(logits, logits).item() == pytest.approx(5 * (real + fake))


class Classifier(nn.Module):
    channels, num_classes = (3,), 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def logits(self, images):
        return self.scale * images.mean(dim=(2, 3))


def test_guidance_is_the_cross_entropy_of_the_displayed_colours():
    term = ClassifierGuidance(Classifier, weight=8.0)
    term.check(generator(num_classes=3), discriminator(num_classes=3))
    fake = torch.randn(4, 3, 8, 8, requires_grad=True)
    labels = F.one_hot(torch.tensor([0, 1, 2, 1]), 3).float()
    batch = Microbatch(None, None, None, Time(0, 0, 1, 4), torch.Generator(), fake=fake, fake_labels=labels)
    expected = 8 * F.cross_entropy(2 * ((fake + 1) / 2).mean(dim=(2, 3)), torch.tensor([0, 1, 2, 1]))
    torch.testing.assert_close(term(batch), expected)
    (gradient,) = torch.autograd.grad(term(batch), fake)
    assert gradient.any()


def test_guidance_refuses_what_it_cannot_guide_in_one_line():
    with pytest.raises(UserError, match="needs a conditional generator"):
        ClassifierGuidance(Classifier).check(generator(), discriminator())
    with pytest.raises(UserError, match="has 0 classes and the generator 3"):
        ClassifierGuidance(tiny_backbone).check(generator(num_classes=3), discriminator(num_classes=3))


def test_class_embeddings_come_from_a_file_when_a_run_begins(tmp_path):
    table = torch.randn(4, 5)
    torch.save({"embed": table, "counts": torch.ones(4)}, tmp_path / "table.pt")
    network = generator(resolution=8, num_classes=3, embeddings=str(tmp_path / "table.pt"))
    assert not torch.equal(network.mapping.embed.table, table)
    recorded = network.begin()
    assert torch.equal(network.mapping.embed.table, table) and recorded["embeddings"].endswith("table.pt")
    judge = discriminator(num_classes=3, embedding_rows=4, embedding_dim=5, embeddings=str(tmp_path / "table.pt"))
    assert judge.begin() == recorded
    assert all(torch.equal(s.classes.table, table) for part in judge.networks for s in part.scales)
    with pytest.raises(UserError, match=r"holds \[4, 5\] embeddings and the network has \[6, 5\]"):
        generator(resolution=8, num_classes=3, embedding_rows=6, embeddings=str(tmp_path / "table.pt")).begin()
    with pytest.raises(UserError, match="embeddings: there is no file absent.pt"):
        generator(resolution=8, num_classes=3, embeddings="absent.pt").begin()


@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, {"resolution": 32}])
def test_import_and_export_change_no_bit(options):
    network, layout = generator(**options), Generator()
    for name, buffer in network.named_buffers():
        if name.endswith(("mean_style", "magnitude_ema")):
            buffer.uniform_(0.5, 2)
    state = to_theirs(network.state_dict(), network, layout) | dict(layout.constants(network))
    assert layout.recognises(state)
    assert layout.dimensions(state) == {"resolution": network.resolution, "num_classes": network.num_classes}
    found = to_ours(state, generator(**options), layout)
    tensors = found.check("it")
    assert not found.left_over and all(torch.equal(tensors[name], t) for name, t in network.state_dict().items())


PLUGINS = [
    "--plugin",
    "plugins.systems.stylegan3",
    "--plugin",
    "plugins.systems.stylegan_xl",
    "--plugin",
    "plugins.backbones",
]
QUICK = [
    "generator.stylegan_xl.stem_layers = 3",
    "generator.stylegan_xl.head_layers = 3",
    "generator.stylegan_xl.channel_max = 4",
    "generator.stylegan_xl.latent_dim = 8",
    "generator.stylegan_xl.style_dim = 8",
    "backbone.convolution.side = 16",
    "narrow/backbone.convolution.channels = [4, 4, 4]",
    "wide/backbone.convolution.channels = [4, 4, 4]",
    "discriminator.projected.channels = [4, 4]",
    "discriminator.projected.width = 4",
    "train.iterations = 3",
    "train.batch_size = 4",
    "train.checkpoint_every = 1",
    "train.sample_every = 3",
    "train.evaluate_every = 3",
    "train.sample_count = 4",
    "train.trackers = [@tracker.jsonl()]",
    "train.metrics = []",
    "train.threads = 1",
]


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Bindings for a stage of seconds, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return [*PLUGINS, *(word for bind in QUICK for word in ("--bind", bind))]


def stage(side):
    return ["--gin", f"stylegan_xl_faces{side}.gin"]


ALL = [*stage(8), *stage(16), *stage(32)]


def weights_of(side):
    folder = Path(f"runs/stylegan_xl_faces{side}/checkpoints/step-000000003")
    return {name: checkpoint.weights(folder, name) for name in ("generator", "ema", "discriminator")}


def same(left, right):
    return all(torch.equal(left[n][key], right[n][key]) for n in left for key in left[n])


def test_one_command_grows_a_generator_and_goes_on_wherever_it_was_stopped(quick, monkeypatch, capsys):
    assert stages([*ALL, *quick]) == 0
    whole = {side: weights_of(side) for side in (8, 16, 32)}
    assert "stage 3 of 3" in capsys.readouterr().out
    for before, side in ((8, 16), (16, 32)):
        kept = [n for n in whole[side]["ema"] if n.startswith(("mapping", "layers.0."))]
        assert kept and all(torch.equal(whole[side]["ema"][n], whole[before]["ema"][n]) for n in kept)
        begun = json.loads(Path(f"runs/stylegan_xl_faces{side}/environment.json").read_text())["begun_from"]
        assert begun["generator"]["stem"] == f"runs/stylegan_xl_faces{before}/checkpoints/step-000000003"
        assert len(begun["generator"]["sha256"]) == 64
    Path("runs").rename("whole")

    iteration, seen = loop.iteration, []

    def stopped(state, images):
        seen.append((state.generator.resolution, state.step))
        if seen[-1] in ((8, 1), (16, 1)) and seen.count(seen[-1]) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return iteration(state, images)

    monkeypatch.setattr(loop, "iteration", stopped)
    assert stages([*ALL, *quick]) == 75
    assert stages([*ALL, *quick]) == 75
    # From here on the stage at 16 has begun: its stem is never read again.
    Path("runs/stylegan_xl_faces8/checkpoints").rename("away")
    assert run([*stage(16), *quick, "--run-dir", "runs/stylegan_xl_faces16"]) == 0
    Path("away").rename("runs/stylegan_xl_faces8/checkpoints")
    assert stages([*ALL, *quick]) == 0
    assert all(same(whole[side], weights_of(side)) for side in (8, 16, 32))
    assert (
        sample(["runs/stylegan_xl_faces32", *PLUGINS, "--seeds", "0-3", "--truncation-psi", "0.5", "--out", "out"]) == 0
    )


def test_a_stage_refuses_what_it_cannot_begin_from_in_one_line(quick, capsys):
    def refused(*arguments):
        capsys.readouterr()
        assert run([*quick, *arguments, "--run-dir", "refused"]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and not Path("refused").exists()
        return lines[0]

    stem = "--bind", "generator.stylegan_xl.stem = 'runs/a'"
    said = refused(*stage(16), *stem)
    assert "generator.stylegan_xl.stem = 'runs/a' cannot be used: runs/a does not exist" in said
    assert "train the stage at 8x8 first" in said
    assert "bind generator.stylegan_xl.stem to its run" in refused(
        *stage(16), "--bind", "generator.stylegan_xl.stem = None"
    )
    assert "this generator is itself a stem" in refused(*stage(8), *stem)
    assert run([*stage(8), *quick, "--run-dir", "runs/a"]) == 0
    wider = "--bind", "generator.stylegan_xl.style_dim = 12"
    assert "does not fit this stage: mean_style is [8] there and [12] here; bind the same widths" in refused(
        *stage(16), *stem, *wider
    )
    assert "is of resolution 8, and this stage continues one of 16" in refused(*stage(32), *stem)
    clamped = "--bind", "generator.stylegan_xl.conv_clamp = 1.0"
    assert "has conv_clamp = 256.0, and this stage 1.0" in refused(*stage(16), *stem, *clamped)
    assert "has 4 layers with ToRGB, and this stage continues 5" in refused(
        *stage(16), *stem, "--bind", "generator.stylegan_xl.stem_layers = 4"
    )
    absent = (
        "--bind",
        "discriminator.projected.backbones = [@backbone.timm]",
        "--bind",
        "backbone.timm.name = 'tf_efficientnet_lite0'",
    )
    line = refused(*stage(8), *absent, "--bind", "backbone.timm.weights = 'absent.pth'")
    assert "there is no file absent.pth" in line or "timm, which is not installed" in line


@pytest.mark.parametrize(
    "held, message",
    [
        (torch.zeros(3, 4, dtype=torch.int32), "holds no table of floating-point embeddings"),
        (torch.zeros(4), "holds no table of floating-point embeddings"),
        (torch.full((3, 4), torch.nan), "holds embeddings that are not finite"),
    ],
)
def test_files_that_are_no_embeddings_are_refused(held, message, tmp_path):
    torch.save(held, tmp_path / "file.pt")
    with pytest.raises(UserError, match=message):
        ClassEmbeddings(str(tmp_path / "file.pt"), "generator.stylegan_xl.embeddings")
