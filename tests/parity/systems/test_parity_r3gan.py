"""R3GAN's networks against tensors recorded from its own code: layers, values, gradients, precision, names, counts."""

import json
import zlib

import numpy as np
import pytest
import torch

from plugins.systems.r3gan import layers
from plugins.systems.r3gan.configuration import discriminator, generator
from plugins.systems.r3gan.layout import DiscriminatorLayout, GeneratorLayout
from stylenat.reference import to_ours, to_theirs

LAYER, VALUE, GRADIENT, FULL, BF16 = 5e-6, 1e-5, 5e-5, 2e-5, 3e-2
CONFIGURATIONS = ("cifar10_cond", "cifar10_uncond", "ffhq64", "ffhq256", "imagenet32", "imagenet64")


@pytest.fixture
def data(recorded):
    return lambda name: recorded(f"systems/r3_{name}.pt")


def network_of(config, state):
    make, layout = (
        (generator, GeneratorLayout()) if "NoiseDimension" in config else (discriminator, DiscriminatorLayout())
    )
    network = make(config)
    found = to_ours(state, network, layout)
    assert not found.left_over
    network.load_state_dict(found.check("the recorded state"))
    return network, layout


def gradients(network, layout):
    """By the reference's names; zeros for a parameter that takes no part, as recorded."""
    own = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}
    return to_theirs(own, network, layout)


def all_close(measure, ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        if expected.any():
            measure.close(ours[name], expected, tolerance)
        else:
            assert not ours[name].any(), name


def conditions(file):
    return (file["c"],) if "c" in file else ()


def test_parity_of_resampling_and_its_gradients(data, measure):
    file = data("resample")
    for case, expected in zip(file["config"]["cases"], file["results"], strict=True):
        resample = layers.Resampler(case["op"] == "up", case["Filter"])
        measure.close(resample.kernel, expected["Kernel"], LAYER)
        x = file["x"].clone().requires_grad_()
        y = resample(x)
        y.backward(expected["cotangent"])
        measure.close(y, expected["y"], LAYER)
        measure.close(x.grad, expected["grad_x"], LAYER)


def layer_of(case):
    """One of our layers from a recorded case, and our names of its parameters by the reference's."""
    a = case["arguments"]
    match case["layer"]:
        case "UpsampleLayer":
            return layers.Upsample(a["InputChannels"], a["OutputChannels"]), {
                "LinearLayer.Layer.weight": "convolution.weight"
            }
        case "DownsampleLayer":
            return layers.Downsample(a["InputChannels"], a["OutputChannels"]), {
                "LinearLayer.Layer.weight": "convolution.weight"
            }
        case "GenerativeBasis":
            layer = layers.GenerativeBasis(a["InputDimension"], a["OutputChannels"])
            return layer, {"Basis": "basis", "LinearLayer.weight": "linear.weight"}
        case "DiscriminativeBasis":
            layer = layers.DiscriminativeBasis(a["InputChannels"], a["OutputDimension"])
            return layer, {"Basis.weight": "basis.weight", "LinearLayer.weight": "linear.weight"}
        case "BiasedActivation":
            return layers.BiasedActivation(a["InputUnits"]), {"Bias": "bias"}
        case "ResidualBlock":
            layer = layers.ResidualBlock(
                a["InputChannels"], a["Cardinality"], a["ExpansionFactor"], a["KernelSize"],
                a["VarianceScalingParameter"],
            )  # fmt: skip
            return layer, {
                "LinearLayer1.Layer.weight": "expand.weight", "NonLinearity1.Bias": "first.bias",
                "LinearLayer2.Layer.weight": "grouped.weight", "NonLinearity2.Bias": "second.bias",
                "LinearLayer3.Layer.weight": "contract.weight",
            }  # fmt: skip


@pytest.mark.parametrize("name", ["layers", "block"])
def test_parity_of_layers_and_of_their_first_and_second_derivatives(data, measure, name):
    file = data(name)
    for case, expected in zip(file["cases"], file["results"], strict=True):
        layer, names = layer_of(case)
        weights = {key: value for key, value in case["state_dict"].items() if "Kernel" not in key}
        layer.load_state_dict({names[key]: value for key, value in weights.items()})
        parameters = dict(layer.named_parameters())
        x = case["x"].clone().requires_grad_()
        y = layer(x)
        measure.close(y, expected["y"], LAYER)
        ordered = [parameters[names[key]] for key in expected["grads"]]
        grad_x, *grads = torch.autograd.grad(y, [x, *ordered], expected["cotangent"], create_graph=True)
        measure.close(grad_x, expected["grad_x"], LAYER)
        for ours, theirs in zip(grads, expected["grads"].values(), strict=True):
            measure.close(ours, theirs, LAYER)
        squared = grad_x.square().flatten(1).sum(dim=1)
        measure.close(squared, expected["grad_x_squared"], LAYER)
        if ordered and squared.requires_grad:
            found = torch.autograd.grad(squared.mean(), ordered, allow_unused=True)
            second = expected["grads_of_grad_x_squared_mean"]
            for ours, theirs in zip(found, second.values(), strict=True):
                if theirs.any():
                    measure.close(ours, theirs, GRADIENT)
                else:
                    assert ours is None or not ours.any()


def watched(network, embedding=False):
    """What the reference's children give, by its names, as the network runs."""
    seen = {}
    outer = "to_rgb" if hasattr(network, "to_rgb") else "from_rgb"
    modules = {f"MainLayers.{i}": stage for i, stage in enumerate(network.stages)}
    modules["AggregationLayer" if outer == "to_rgb" else "ExtractionLayer"] = getattr(network, outer)
    if network.embedding is not None:
        modules["EmbeddingLayer"] = network.embedding
    for name, module in modules.items():
        module.register_forward_hook(lambda m, x, out, name=name: seen.update({name: out}))
    return seen


@pytest.mark.parametrize("name", ["g32", "g16_cond"])
def test_parity_of_whole_generators(data, measure, name):
    file = data(name)
    network, layout = network_of(file["config"], file["state_dict"])
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    seen, z = watched(network), file["z"].clone().requires_grad_()
    image = network(z, *conditions(file))
    measure.close(image, file["image"], VALUE)
    assert seen.keys() == file["activations"].keys()
    for key, expected in file["activations"].items():
        measure.close(seen[key][:1], expected, VALUE)
    image.backward(file["cotangent"])
    measure.close(z.grad, file["grad_z"], GRADIENT)
    all_close(measure, gradients(network, layout), file["grads"], GRADIENT)


@pytest.mark.parametrize("name", ["d32", "d16_cond"])
def test_parity_of_whole_discriminators_and_their_penalty(data, measure, name):
    file = data(name)
    network, layout = network_of(file["config"], file["state_dict"])
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    seen, x = watched(network), file["x"].clone().requires_grad_()
    logits = network(x, *conditions(file))
    measure.close(logits.flatten(), file["logits"], VALUE)
    assert seen.keys() == file["activations"].keys()
    for key, expected in file["activations"].items():
        measure.close(seen[key][:1], expected, VALUE)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    measure.close(gradient, file["grad_x"], GRADIENT)
    penalty = gradient.square().flatten(1).sum(dim=1)
    measure.close(penalty, file["penalty"], GRADIENT)
    (file["gamma"] / 2 * penalty).mean().backward(retain_graph=True)
    all_close(measure, gradients(network, layout), file["penalty_grads"], GRADIENT)
    network.zero_grad()
    torch.nn.functional.softplus(-logits).mean().backward()
    all_close(measure, gradients(network, layout), file["softplus_grads"], GRADIENT)


@pytest.mark.parametrize("name", ["g32", "d32"])
def test_parity_of_bfloat16_in_the_largest_resolutions(data, measure, name):
    file = data(name)
    recorded = file["bfloat16"]
    config = file["config"] | {"FP16Stages": recorded["FP16Stages"]}
    network, _ = network_of(config, file["state_dict"])
    seen = watched(network)
    out = network(file["z" if name == "g32" else "x"])
    what = "image" if name == "g32" else "logits"
    assert {key: str(value.dtype).removeprefix("torch.") for key, value in seen.items()} == recorded["dtypes"]
    assert str(out.dtype) == f"torch.{recorded[f'{what}_dtype']}"
    measure.close(out.float().reshape(recorded[what].shape), recorded[what], BF16)


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_parity_of_names_shapes_counts_and_initial_deviations_of_the_published_sizes(recorded_path, name, kind):
    file = json.loads((recorded_path / "systems" / f"keys_r3_{name}_{kind}.json").read_text())
    config = file["config"] | {"FP16Stages": file["FP16Stages"]}
    layout = GeneratorLayout() if kind == "generator" else DiscriminatorLayout()
    with torch.device("meta"):
        network = layout.build(config)
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    assert network.resolution == file["resolution"]
    constants = layout.constants(network)
    theirs = to_theirs(network.state_dict(), network, layout) | constants
    assert {key: list(value.shape) for key, value in theirs.items()} == file["state_dict"]
    assert sorted(constants) == sorted(file["buffers"])
    assert layout.dimensions(theirs) == {"resolution": network.resolution, "num_classes": network.num_classes}


@pytest.mark.parametrize("name", ["cifar10_cond_generator", "ffhq64_discriminator"])
def test_parity_of_the_initial_deviations(recorded_path, name):
    file = json.loads((recorded_path / "systems" / f"keys_r3_{name}.json").read_text())
    layout = GeneratorLayout() if "generator" in name else DiscriminatorLayout()
    torch.manual_seed(0)
    network = layout.build(file["config"])
    theirs = to_theirs(dict(network.named_parameters()), network, layout)
    assert theirs.keys() == file["init_std"].keys()
    for key, expected in file["init_std"].items():
        values = theirs[key].detach()
        assert float(values.square().mean().sqrt()) == pytest.approx(expected, rel=5 / values.numel() ** 0.5), key


def normal(name, shape):
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return generator.standard_normal(shape, dtype=np.float32)


def recipe_state(network, layout):
    """The full-size networks' weights, from the recipe in the files."""
    found = {}
    for name, tensor in to_theirs(dict(network.named_parameters()), network, layout).items():
        a, deviation = normal(name, tensor.shape), np.sqrt(np.prod(tensor.shape[1:]))
        if name.endswith(".Bias"):
            a = np.float32(0.2) * a
        elif not name.endswith(".Basis"):
            a = a * np.float32((0.5 if "LinearLayer3" in name else 1) / deviation)
        found[name] = torch.from_numpy(a)
    return found


@pytest.mark.parametrize("name", ["cifar10_cond_g", "cifar10_cond_d", "ffhq256_g", "ffhq256_d"])
def test_parity_of_the_published_sizes_with_random_weights(data, measure, name):
    file = data(f"{name}_full_recipe")
    layout = GeneratorLayout() if name.endswith("_g") else DiscriminatorLayout()
    network = layout.build(file["config"])
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    state = recipe_state(network, layout) | layout.constants(network)
    for key, expected in file["checksums"].items():
        assert float(state[key].double().sum()) == pytest.approx(expected, rel=1e-9, abs=1e-9), key
    network.load_state_dict(to_ours(state, network, layout).check("the recipe"))
    labels = ()
    if "classes" in file:
        labels = (torch.nn.functional.one_hot(torch.tensor(file["classes"]), 10).float(),)
    with torch.no_grad():
        if name.endswith("_g"):
            image = network(file["noise"], *labels)
            expected = file.get("image", file.get("image_stride3"))
            measure.close(image if "image" in file else image[:, :, ::3, ::3], expected, FULL)
        else:
            batch, times = len(file["logits"]), network.resolution // 4
            x = torch.from_numpy(normal("x", (batch, 3, 4, 4)))
            x = x.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
            assert float(x.double().sum()) == pytest.approx(file["x_checksum"])
            measure.close(network(x, *labels).flatten(), file["logits"], FULL)
