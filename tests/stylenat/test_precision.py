"""``--precision bf16``: near the images in float32, for every kind of generator, and said where it is no gain."""

import copy

import pytest
import torch

from plugins.blocks.hydra import HydraBlock
from plugins.blocks.swin import SwinBlock
from plugins.partitions.split import Split
from registry import load_experiment, load_plugins
from stylenat import precision
from stylenat.attention import op
from stylenat.commands._command import CORE, experiments_folder
from stylenat.draws import conditions
from stylenat.networks.generator import StyleGenerator
from stylenat.precision import lower
from stylenat.sampling import sampled_in, takes_transform

CPU = torch.device("cpu")


def generator(block=lambda **site: HydraBlock(partition=Split(3), **site)):
    torch.manual_seed(0)
    made = StyleGenerator(
        block=block, resolution=16, channels=[32, 32, 16], min_heads=2, style_dim=24, latent_dim=24, mapping_layers=2
    )
    with torch.no_grad():
        for name, parameter in made.named_parameters():  # Every term must matter.
            if name.endswith(("alpha", "bias")):
                parameter.normal_()
    return made


@pytest.mark.parametrize("backend", ["compiled", "tiled"])
@pytest.mark.parametrize("block", [None, SwinBlock])
def test_images_are_near_those_in_float32(block, backend, monkeypatch):
    """A block that cannot change its weights has autocast."""
    if backend == "tiled":
        monkeypatch.setattr(op, "BACKENDS", {"tiled": op.BACKENDS["tiled"]})
    exact = generator(block) if block else generator()
    lowered, z = copy.deepcopy(exact), torch.randn(3, 24)
    lower(lowered, CPU)
    with torch.no_grad():
        styles = exact.mapping(z)
        assert torch.equal(styles, lowered.mapping(z))
        images, ours = exact(z), lowered(z)
    assert ours.dtype == torch.float32
    assert 0 < (ours - images).abs().mean() < 0.01 * images.std()
    assert (sampled_in(exact), sampled_in(lowered)) == ("float32", "bfloat16")
    assert (lowered.stages[0].blocks[0].expand.weight.dtype == torch.bfloat16) is (block is None)


def test_the_image_is_summed_in_float32():
    """No stage after the first adds anything: the image is the first one's, as exact as its own sums."""
    lowered = generator()
    lower(lowered, CPU)
    with torch.no_grad():
        for stage in lowered.stages:
            stage.to_rgb.linear.weight.zero_()
            stage.to_rgb.linear.bias.zero_()
            stage.to_rgb.bias.fill_(1 + 2**-12)
        expected = len(lowered.stages) * torch.tensor(1 + 2**-12).bfloat16().float()
        assert (lowered(torch.randn(1, 24))[..., 4:-4, 4:-4] - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    "flags, expected",
    [("flags : fpu avx512f avx512_bf16", None), ("Features : fp asimd bf16", None), ("flags : fpu avx2", "CPU has no")],
)
def test_a_cpu_without_the_instructions_is_told_so(flags, expected, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(precision, "CPUINFO", file)
    found = precision.why_not_faster(CPU)
    assert found is None if expected is None else expected in found


@pytest.mark.parametrize("name", ["stylegan2", "stylegan3", "r3gan", "hit", "stylegan_xl", "digits"])
def test_other_systems_and_conditional_generators_have_it_too(name):
    gin = {"stylegan_xl": "stylegan_xl_faces8.gin", "digits": "digits.gin"}.get(name, f"{name}_quickstart.gin")
    experiment = load_experiment(
        load_plugins(core=CORE), [gin], ["train.trackers = []"], search_path=[experiments_folder()]
    )
    torch.manual_seed(0)
    exact = experiment.value("train.generator")().eval()
    with torch.no_grad():
        for parameter in exact.parameters():  # Every term must matter.
            if not parameter.any():
                parameter.normal_(std=0.1)
    lowered = copy.deepcopy(exact)
    lower(lowered, CPU)
    z = torch.randn(4, exact.latent_dim)
    assert takes_transform(lowered) is takes_transform(exact) is (name in ("stylegan3", "stylegan_xl"))
    labels = torch.eye(exact.num_classes)[:4] if getattr(exact, "num_classes", 0) else None
    draws = {key: draw(4, torch.Generator()) for key, draw in getattr(exact, "draws", {}).items()}
    with torch.no_grad():
        images, ours = (network(z, *conditions(labels), **draws) for network in (exact, lowered))
    assert ours.dtype == torch.float32 and sampled_in(lowered) == "bfloat16"
    assert 0 < (ours - images).abs().mean() < 0.02 * images.std()
