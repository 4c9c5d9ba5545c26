"""StyleGAN3 against tensors recorded from its code."""

import json
import zlib

import numpy as np
import pytest
import torch

from plugins.augmentations.blur import FadingBlur, kernel
from plugins.systems.stylegan3.filtered import filtered_leaky_relu
from plugins.systems.stylegan3.filters import low_pass
from plugins.systems.stylegan3.input import FourierInput
from plugins.systems.stylegan3.layers import modulated
from plugins.systems.stylegan3.schedule import Signal, plans, signals
from registry import load_plugins
from stylenat.interfaces import Time
from stylenat.networks.resampling import blur
from stylenat.reference import generator_from_reference, layout_of, layouts, to_ours, to_theirs

FOLDER = "systems"
OPERATOR, GENERATOR = 1e-5, 5e-5


@pytest.fixture
def data(recorded):
    return lambda name: recorded(f"{FOLDER}/{name}.pt")


@pytest.fixture(scope="module")
def registry():
    return load_plugins(["plugins.systems.stylegan3"])


@pytest.fixture(scope="module")
def layout(registry):
    return layouts(registry)["stylegan3_generator"]


def test_parity_of_the_low_pass_filters(data, measure):
    file = data("sg3_filters")
    for case, expected in zip(file["cases"], file["taps"], strict=True):
        taps = low_pass(case["numtaps"], case["cutoff"], case["width"], case["fs"], case["radial"])
        measure.close(taps, expected, 1e-6)


@pytest.mark.parametrize("graph", [True, False])
def test_parity_of_the_filtered_leaky_relu_and_its_gradients(data, measure, graph):
    file = data("sg3_filtered_lrelu")
    for case, given, expected in zip(file["cases"], file["inputs"], file["results"], strict=True):
        taps = [file["filters"].get(case[name]) for name in ("fu", "fd")]
        options = {name: case[name] for name in ("slope", "gain", "clamp") if name in case}
        correlate = case.get("flip_filter", False)
        with torch.set_grad_enabled(graph):
            x, bias = given["x"].requires_grad_(), given["b"].requires_grad_() if case["b"] else torch.zeros(3)
            y = filtered_leaky_relu(
                x + bias[:, None, None], *taps, case["up"], case["down"], case["padding"], **options,
                correlate=correlate,
            )  # fmt: skip
        measure.close(y, expected["y"], OPERATOR)
        if graph:
            y.backward(expected["cotangent"])
            measure.close(x.grad, expected["grad_x"], OPERATOR)
            if case["b"]:
                measure.close(bias.grad, expected["grad_b"], OPERATOR)


@pytest.mark.parametrize("graph", [True, False])
def test_parity_of_modulated_convolutions_and_their_gradients(data, measure, graph):
    file = data("sg3_modconv")
    for case, given, expected in zip(file["cases"], file["inputs"], file["results"], strict=True):
        x, weight, styles = (given[name].requires_grad_() for name in ("x", "w", "s"))
        assert case["padding"] == case["k"] - 1
        with torch.set_grad_enabled(graph):
            y = modulated(x, weight, styles, None, case["demodulate"], given.get("input_gain"))
        measure.close(y, expected["y"], OPERATOR)
        if graph:
            y.backward(expected["cotangent"])
            for name, tensor in (("x", x), ("w", weight), ("s", styles)):
                measure.close(tensor.grad, expected[f"grad_{name}"], OPERATOR)


def test_parity_of_the_input_its_transform_and_its_gradients(data, measure):
    file = data("sg3_input")
    config, state = file["config"], dict(file["state_dict"])
    assert torch.equal(state.pop("transform"), torch.eye(3))
    signal = Signal(config["bandwidth"], 6.0, config["sampling_rate"], config["size"], config["channels"])
    network = FourierInput(signal, config["w_dim"])
    network.load_state_dict(state)
    styles = file["w"].requires_grad_()
    y = network(styles)
    measure.close(y, file["y"], OPERATOR)
    measure.close(network(styles, file["transform"]), file["y_transformed"], OPERATOR)
    zoomed = network(styles, torch.diag(torch.tensor([3.0, 3.0, 1.0])))
    measure.close(zoomed, file["y_zoomed_out_damped"], OPERATOR)
    y.backward(file["cotangent"])
    measure.close(styles.grad, file["grad_w"], OPERATOR)
    for name, parameter in network.named_parameters():
        measure.close(parameter.grad, file["grads"][name], OPERATOR)


@pytest.mark.parametrize("name", ["sg3_t_g32", "sg3_r_g32"])
def test_parity_of_generators_layer_by_layer_and_their_gradients(data, measure, registry, layout, name):
    file = data(name)
    network = generator_from_reference(file["config"], file["state_dict"], registry).eval()
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    for layer, planned in zip(network.layers, file["layers"], strict=True):
        same_plan(layer.plan, planned)
        assert list(layer.padding) == planned["padding"]
    latents, seen = file["z"].requires_grad_(), []
    styles = network.mapping(latents)[:, None].expand(-1, network.num_styles, -1)
    measure.close(styles, file["ws"], OPERATOR)
    with torch.no_grad():
        measure.close(network(latents), file["image"], GENERATOR)
    for module in (network.input, *network.layers):
        module.register_forward_hook(lambda module, x, out: seen.append(out[:1]))
    image = network(latents)
    measure.close(image, file["image"], GENERATOR)
    for found, expected in zip(seen, file["activations"].values(), strict=True):
        measure.close(found, expected, GENERATOR)
    truncated = network.mean_style.lerp(styles, 0.6)
    measure.close(network.synthesis(truncated), file["image_psi06"], GENERATOR)

    image.backward(file["cotangent"])
    measure.close(latents.grad, file["grad_z"], GENERATOR)
    own = {key: torch.zeros_like(p) if p.grad is None else p.grad for key, p in network.named_parameters()}
    gradients = to_theirs(own, network, layout)
    assert gradients.keys() == file["grads"].keys()
    for key, expected in file["grads"].items():
        assert measure.error(gradients[key], expected) < GENERATOR, key

    # A pass of the discriminator's training moves the averages before it uses them.
    network.observe(file["z"])
    network.train()
    with torch.no_grad():
        measure.close(network(file["z"]), file["image_updating_emas"], GENERATOR)
    after = to_theirs(network.state_dict(), network, layout)
    for key, expected in file["buffers_after"].items():
        measure.close(after[key], expected, OPERATOR)


def same_plan(plan, expected):
    assert plan.name == expected["name"]
    assert (plan.critical, plan.to_rgb) == (expected["is_critically_sampled"], expected["is_torgb"])
    for side, signal in (("in", plan.source), ("out", plan.target)):
        numbers = signal.cutoff, signal.half_width, signal.rate, signal.size, signal.channels
        names = "cutoff", "half_width", "sampling_rate", "size", "channels"
        recorded = [expected[f"{side}_{name}"] for name in names]
        recorded[3] = recorded[3][0]
        assert numbers == pytest.approx(recorded, rel=1e-9)


def test_parity_of_every_recorded_schedule(recorded_path):
    recorded = json.loads((recorded_path / FOLDER / "schedule_stylegan3.json").read_text())
    for name, expected in recorded.items():
        configuration, resolution, base = name.split("_")
        times = 2 if configuration == "r" else 1
        found = signals(int(resolution), channel_base=int(base.removeprefix("cbase")) * times, channel_max=512 * times)
        assert found[0].channels == expected["input"]["channels"]
        for plan, layer in zip(plans(found), expected["layers"], strict=True):
            same_plan(plan, layer)


def recipe_weights(network, layout):
    """The recorded full-size network's weights by the code's names, from the recipe in the file."""
    found = {}
    for name, tensor in to_theirs(network.state_dict(), network, layout).items():
        source = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        shape, last = tuple(tensor.shape), name.rpartition(".")[2]
        if last == "phases":
            found[name] = torch.from_numpy(source.random(shape, dtype=np.float32) - np.float32(0.5))
            continue
        a = source.standard_normal(shape, dtype=np.float32)
        if last == "magnitude_ema":
            a = np.exp(np.float32(0.3) * a)
        elif last == "freqs":
            radius = np.sqrt(np.square(a).sum(axis=1, keepdims=True))
            a = a * (np.float32(2) / (radius * np.exp(radius * radius) ** np.float32(0.25)))
        elif name.startswith("mapping.fc"):
            a = np.float32(100 if last == "weight" else 20) * a
        elif name.endswith("input.affine.weight"):
            a = np.float32(0.3) * a
        elif name.endswith("input.affine.bias"):
            a = np.array([1, 0, 0, 0], dtype=np.float32) + np.float32(0.1) * a
        elif last in ("bias", "w_avg"):
            shift = np.float32(1 if name.endswith("affine.bias") else 0)
            a = shift + np.float32(0.4 if last == "w_avg" else 0.2) * a
        found[name] = torch.from_numpy(np.asarray(a, dtype=np.float32))
    return found


@pytest.mark.slow  # 27 s; the smaller recordings have every layer.
@torch.no_grad()
def test_parity_of_the_full_size_generator(data, measure, registry, layout, all_threads):
    file = data("sg3_t_g256_full_recipe")
    with torch.device("meta"):
        shapes = layout.build(file["config"])
    weights = recipe_weights(shapes, layout)
    network = generator_from_reference(file["config"], weights, registry).eval()
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    sums = weights | dict(layout.constants(network))
    assert sums.keys() == file["checksums"].keys()
    for key, expected in file["checksums"].items():
        assert float(sums[key].double().sum()) == pytest.approx(expected, rel=1e-5, abs=1e-3), key
    measure.close(network.mapping(file["z"]), file["ws_first"], OPERATOR)
    measure.close(network(file["z"]), file["image"], GENERATOR)


@pytest.mark.parametrize("configuration", ["t", "r"])
def test_parity_of_every_name_and_shape_of_the_published_files(recorded_path, registry, layout, configuration):
    file = recorded_path / FOLDER / f"keys_stylegan3_{configuration}_256_cbase16384_generator.json"
    published = json.loads(file.read_text())
    config = {"img_resolution": 256, "c_dim": 0, "z_dim": 512, "w_dim": 512, "channel_base": 16384}
    if configuration == "r":
        config |= {"channel_base": 32768, "channel_max": 1024, "conv_kernel": 1, "use_radial_filters": True}
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in published["state_dict"].items()}
    built = layout.build(config)
    assert layout_of(state, registry, "generator") == "stylegan3_generator"
    found = to_ours(state, built.to("meta"), layout)
    assert not (found.missing or found.left_over or found.misfits)
    shapes = {key: list(tensor.shape) for key, tensor in layout.constants(built).items()}
    assert shapes == {key: published["state_dict"][key] for key in found.constants}
    kept = {"freqs", "phases", "magnitude_ema", "w_avg"}
    assert set(found.constants) == {key for key in published["buffers"] if key.rpartition(".")[2] not in kept}
    assert sum(p.numel() for p in built.parameters()) == published["num_parameters"]
    assert layout.dimensions(state) == {"resolution": 256, "num_classes": 0}


@pytest.mark.parametrize("name", ["sg3_t_g32", "sg3_r_g32"])
def test_parity_of_a_round_trip_is_bit_identical(data, registry, layout, name):
    file = data(name)
    network = generator_from_reference(file["config"], file["state_dict"], registry)
    back = to_theirs(network.state_dict(), network, layout) | dict(layout.constants(network))
    assert back.keys() == file["state_dict"].keys()
    for key, expected in file["state_dict"].items():
        assert back[key].dtype == expected.dtype and torch.equal(back[key], expected), key


def test_parity_of_the_fading_blur(data, measure):
    file = data("xl_blur")
    augmentation = FadingBlur(float(file["blur_init_sigma"]), 1000 * file["blur_fade_kimg"])
    for seen, expected in zip(file["cur_nimg"], file["results"], strict=True):
        augmentation.begin(Time(0, seen, 1, 1))
        sigma = augmentation.scalars()["augmentation/blur_sigma"]
        assert sigma == pytest.approx(float(expected["sigma"]), abs=1e-6)
        reach = int(3 * sigma)
        if not reach:
            assert len(expected["kernel"]) == 1
            continue
        taps = torch.from_numpy(kernel(sigma, reach)).float()
        measure.close(taps, expected["kernel"], OPERATOR)
        measure.close(blur(file["x"], taps), expected["y"], OPERATOR)
