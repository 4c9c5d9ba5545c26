"""StyleGAN2 against tensors recorded from stylegan2-ada-pytorch."""

import json
import zlib

import numpy as np
import pytest
import torch

from plugins.losses.adversarial import NonSaturating
from plugins.regularizers import path_length
from plugins.regularizers.gradient_penalty import R1
from plugins.regularizers.path_length import PathLength
from plugins.systems.stylegan2.generator import StyleGAN2Generator
from plugins.systems.stylegan2.layers import modulated
from registry import load_plugins
from stylenat.interfaces import Microbatch, Time
from stylenat.networks.resampling import blur, convolve, downsample, filter_taps, upfirdn, upsample
from stylenat.reference import discriminator_from_reference, generator_from_reference, layout_of, to_ours, to_theirs
from stylenat.training.step import frozen

FOLDER = "systems"
OPERATOR, GENERATOR, DISCRIMINATOR = 1e-5, 5e-5, 2e-4


@pytest.fixture
def data(recorded):
    return lambda name: recorded(f"{FOLDER}/{name}.pt")


def both(number):
    return tuple(number) if isinstance(number, list) else number


def test_parity_of_resampling_and_its_gradients(data, measure):
    file = data("sg2_resample")
    operations = {"upfirdn2d": upfirdn, "upsample2d": upsample, "downsample2d": downsample, "filter2d": blur}
    for case, x, expected in zip(file["cases"], file["x"], file["results"], strict=True):
        options = {name: both(value) for name, value in case.items() if name not in ("op", "taps", "flip_filter")}
        if case.get("flip_filter"):
            options["correlate"] = True
        taps = filter_taps(case["taps"])
        measure.close(taps, expected["f"] if expected["f"] is not None else torch.ones(1, 1), OPERATOR)
        y = operations[case["op"]](x.requires_grad_(), taps, **options)
        measure.close(y, expected["y"], OPERATOR)
        y.backward(expected["cotangent"])
        measure.close(x.grad, expected["grad_x"], OPERATOR)


def test_parity_of_convolutions_with_resampling_and_their_gradients(data, measure):
    file = data("sg2_conv")
    for case, x, w, expected in zip(file["cases"], file["x"], file["w"], file["results"], strict=True):
        y = convolve(
            x.requires_grad_(), w.requires_grad_(), filter_taps(case["taps"]), case["up"], case["down"],
            case["padding"], case["groups"], case["flip_weight"],
        )  # fmt: skip
        measure.close(y, expected["y"], OPERATOR)
        y.backward(expected["cotangent"])
        measure.close(x.grad, expected["grad_x"], OPERATOR)
        measure.close(w.grad, expected["grad_w"], OPERATOR)


def test_parity_of_modulated_convolutions_and_their_gradients(data, measure):
    file = data("sg2_modconv")
    for case, given, expected in zip(file["cases"], file["inputs"], file["results"], strict=True):
        x, weight, styles = (given[name].requires_grad_() for name in ("x", "weight", "styles"))
        assert case["flip_weight"] == (case["up"] == 1) and case["padding"] == case["kernel"] // 2
        y = modulated(x, weight, styles, filter_taps(case["taps"]), case["up"], case["demodulate"])
        y = y + given["noise"] if case["has_noise"] else y
        measure.close(y, expected["y"], OPERATOR)
        y.backward(expected["cotangent"])
        for name, tensor in (("x", x), ("weight", weight), ("styles", styles)):
            measure.close(tensor.grad, expected[f"grad_{name}"], OPERATOR)


@pytest.mark.parametrize("name", ["sg2_mapping", "sg2_mapping_cond"])
def test_parity_of_mappings_their_gradients_and_the_mean_style(data, measure, name):
    file = data(name)
    config = file["config"]
    classes = config.get("c_dim", 0)
    network = StyleGAN2Generator(
        resolution=16, channel_max=1, latent_dim=config["z_dim"], style_dim=config["w_dim"], num_classes=classes,
        mapping_layers=config["num_layers"], mean_style_decay=config["w_avg_beta"],
    )  # fmt: skip
    state = {f"mapping.{key.replace('fc', 'layers.')}": value for key, value in file["state_dict"].items()}
    mean = state.pop("mapping.w_avg")
    network.load_state_dict(state | {"mean_style": mean}, strict=False)
    latents, labels = file["z"].requires_grad_(), file["c"] if classes else None
    styles = network.styles(latents, labels)
    measure.close(styles, file["ws_psi1"], OPERATOR)
    measure.close(mean.lerp(styles, 0.7), file["ws_psi07"], OPERATOR)
    cut = torch.cat([mean.lerp(styles[:, :3], 0.5), styles[:, 3:]], dim=1)
    measure.close(cut, file["ws_psi05_cut3"], OPERATOR)
    styles.backward(file["cotangent"])
    measure.close(latents.grad, file["grad_z"], OPERATOR)
    own = {key: p.grad for key, p in network.mapping.named_parameters()}
    assert {key.replace("layers.", "fc") for key in own} == file["grads"].keys()
    for key, gradient in own.items():
        measure.close(gradient, file["grads"][key.replace("layers.", "fc")], OPERATOR)
    network.observe(file["z"], labels)
    measure.close(network.mean_style, file["w_avg_after_training_forward"], OPERATOR)


def given(file):
    """Labels of a recording: none where it has no classes."""
    return [file["c"]] if file["c"].shape[1] else []


@pytest.mark.parametrize("name", ["sg2_g32", "sg2_g32_cond"])
def test_parity_of_generators_layer_by_layer_and_their_gradients(data, measure, known, name):
    file = data(name)
    network = generator_from_reference(file["config"], file["state_dict"]).eval()
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    seen = {}
    for block in network.blocks:
        block.register_forward_hook(lambda module, x, out: seen.update({f"synthesis.b{module.side}": out}))
    measure.close(network.styles(file["z"], *given(file)), file["ws"], OPERATOR)
    measure.close(network(file["z"], *given(file)), file["image_const"], GENERATOR)
    measure.close(network(file["z"], *given(file)), file["image_const_unfused"], GENERATOR)
    assert seen.keys() == file["activations"].keys()
    for key, expected in file["activations"].items():
        measure.close(seen[key][0][:1], expected["x"], GENERATOR)
        measure.close(seen[key][1][:1], expected["img"], GENERATOR)

    latents = file["z"].requires_grad_()
    network.zero_grad()
    network(latents, *given(file)).backward(file["cotangent"])
    measure.close(latents.grad, file["grad_z"], GENERATOR)
    same_gradients(network, known["stylegan2_ada_generator"], file["grads"], measure, GENERATOR)

    network.sampling_noise = "none"
    measure.close(network(file["z"], *given(file)), file["image_none"], GENERATOR)
    styles = network.styles(file["z"], *given(file))
    styles = torch.cat([network.mean_style.lerp(styles[:, :4], 0.5), styles[:, 4:]], dim=1)
    measure.close(network.synthesis(styles), file["image_none_psi05_cut4"], GENERATOR)


def same_gradients(network, layout, expected, measure, tolerance):
    """Every parameter's, by the reference's names."""
    own = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in network.named_parameters()}
    ours = to_theirs(own, network, layout)
    # Recordings with random noise are of strength 0, and leave out its gradient.
    assert expected.keys() <= ours.keys() and all("noise_strength" in key for key in ours.keys() - expected.keys())
    for key, gradient in expected.items():
        if not gradient.any():
            assert not ours[key].any(), key
        else:
            assert measure.error(ours[key], gradient) < tolerance, f"{key}: {measure.error(ours[key], gradient):.1e}"


@pytest.mark.parametrize("name", ["sg2_d32", "sg2_d32_cond"])
def test_parity_of_discriminators_r1_and_their_gradients(data, measure, known, name):
    file, layout = data(name), known["stylegan2_ada_discriminator"]
    network = discriminator_from_reference(file["config"], file["state_dict"])
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    labels = [c[:4] for c in given(file)]
    seen = {}
    for i, block in enumerate(network.blocks):
        block.register_forward_hook(lambda module, x, out, i=i: seen.update({f"b{32 >> i}": out[0]}))
    for batch, logits in file["outputs"].items():
        count = int(batch.removeprefix("batch"))
        measure.close(network(file["x"][:count], *(c[:count] for c in given(file))), logits, DISCRIMINATOR)
    assert seen.keys() == file["activations"].keys()
    for key, expected in file["activations"].items():
        measure.close(seen[key][:1], expected, DISCRIMINATOR)

    images = file["x"][:4].clone().requires_grad_()
    logits = network(images, *labels)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    measure.close(gradient, file["grad_x_batch4"], DISCRIMINATOR)
    penalty = gradient.square().flatten(1).sum(dim=1)
    measure.close(penalty, file["r1_penalty_batch4"], DISCRIMINATOR)
    (penalty * (file["r1_gamma"] / 2)).mean().backward()
    same_gradients(network, layout, file["r1_grads_batch4"], measure, DISCRIMINATOR)
    network.zero_grad()
    torch.nn.functional.softplus(-network(file["x"][:4], *labels)).mean().backward()
    same_gradients(network, layout, file["grads_softplus_batch4"], measure, DISCRIMINATOR)


def recipe_weights(network, layout):
    """The recorded full-size networks' weights by the reference's names, from the recipe in the files."""
    found = {}
    for name, tensor in to_theirs(network.state_dict(), network, layout).items():
        source = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        a = source.standard_normal(tuple(tensor.shape), dtype=np.float32)
        scale = {"noise_strength": 0.1, "w_avg": 0.4, "bias": 0.2}.get(name.rpartition(".")[2], 1.0)
        if name.startswith("mapping.fc"):
            scale = 100 if name.endswith("weight") else 20
        shift = np.float32(1 if name.endswith("affine.bias") else 0)
        found[name] = torch.from_numpy(np.asarray(shift + np.float32(scale) * a, dtype=np.float32))
    return found


def full_size(file, known, name):
    """The network of a recording's configuration, with its weights."""
    layout = known[f"stylegan2_ada_{name}"]
    build = {"generator": generator_from_reference, "discriminator": discriminator_from_reference}[name]
    with torch.device("meta"):
        shapes = layout.build(file["config"])
    weights = recipe_weights(shapes, layout)
    network = build(file["config"], weights).eval()
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    sums = weights | dict(layout.constants(network))
    assert sums.keys() == file["checksums"].keys()
    for key, expected in file["checksums"].items():
        assert float(sums[key].double().sum()) == pytest.approx(expected, rel=1e-5, abs=1e-3), key
    return network


@torch.no_grad()
def test_parity_of_the_full_size_generator(data, measure, known, all_threads):
    file = data("sg2_g256_full_recipe")
    network = full_size(file, known, "generator")
    measure.close(network.mapping(file["z"]), file["ws_first"], OPERATOR)
    measure.close(network(file["z"]), file["image"], GENERATOR)


@torch.no_grad()
def test_parity_of_the_full_size_discriminator(data, measure, known, all_threads):
    file = data("sg2_d256_full_recipe")
    network = full_size(file, known, "discriminator")
    x = np.random.Generator(np.random.PCG64(zlib.crc32(b"x"))).standard_normal(file["x_shape"], dtype=np.float32)
    measure.close(network(torch.from_numpy(np.float32(0.5) * x)), file["output"], DISCRIMINATOR)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize("file, resolution, channel_base", [("paper256", 256, 16384), ("1024", 1024, 32768)])
def test_parity_of_every_name_and_shape_of_the_published_files(
    recorded_path, known, network, file, resolution, channel_base
):
    published = json.loads((recorded_path / FOLDER / f"keys_stylegan2_{file}_{network}.json").read_text())
    widths = {"channel_base": channel_base, "channel_max": 512}
    config = {"img_resolution": resolution, "c_dim": 0}
    config |= {"z_dim": 512, "w_dim": 512, "synthesis_kwargs": widths} if network == "generator" else widths
    layout = known[f"stylegan2_ada_{network}"]
    with torch.device("meta"):
        built = layout.build(config)
        state = {key: torch.empty(shape) for key, shape in published["state_dict"].items()}
        assert layout_of(state, load_plugins(), network) == f"stylegan2_ada_{network}"
        found = to_ours(state, built, layout)
    assert not (found.missing or found.left_over or found.misfits)
    shapes = {key: list(tensor.shape) for key, tensor in layout.constants(built).items()}
    assert shapes == {key: published["state_dict"][key] for key in found.constants}
    assert set(found.constants) == {key for key in published["buffers"] if key.endswith("resample_filter")}
    assert sum(p.numel() for p in built.parameters()) == published["num_parameters"]


@pytest.mark.parametrize("name", ["sg2_g32", "sg2_g32_cond", "sg2_d32", "sg2_d32_cond"])
def test_parity_of_a_round_trip_is_bit_identical(data, known, name):
    file = data(name)
    kind = "generator" if "_g" in name else "discriminator"
    build = {"generator": generator_from_reference, "discriminator": discriminator_from_reference}[kind]
    layout = known[f"stylegan2_ada_{kind}"]
    network = build(file["config"], file["state_dict"])
    back = to_theirs(network.state_dict(), network, layout) | dict(layout.constants(network))
    assert back.keys() == file["state_dict"].keys()
    for key, expected in file["state_dict"].items():
        assert back[key].dtype == expected.dtype and torch.equal(back[key], expected), key


def microbatch(file, **options):
    """Recorded networks of one sub-batch; ``discriminate`` is the discriminator itself."""
    generator = generator_from_reference(file["config"]["generator"], file["g0"])
    discriminator = discriminator_from_reference(file["config"]["discriminator"], file["d0"])
    time = Time(0, 0, 1, len(file["z"]))
    return Microbatch(generator, discriminator, discriminator, time, torch.Generator().manual_seed(0), **options)


def test_parity_of_the_losses_of_all_four_phases(data, measure, known, monkeypatch):
    file = data("sg2_losses")
    config, loss = file["config"], NonSaturating()
    layouts = {kind: known[f"stylegan2_ada_{kind}"] for kind in ("generator", "discriminator")}

    batch = microbatch(file, latents=file["z"])
    batch.generator.observe(file["z"])
    with frozen(batch.discriminator):
        value = loss.generator(batch.discriminator(batch.generator(file["z"])))
        value.backward()
    measure.close(value, file["Gmain"]["reported"]["Loss/G/loss"].mean(), DISCRIMINATOR)
    same_gradients(batch.generator, layouts["generator"], file["Gmain"]["grads"], measure, DISCRIMINATOR)
    measure.close(batch.generator.mean_style, file["Gmain"]["w_avg_after"], OPERATOR)

    batch = microbatch(file, latents=file["z"])
    noise = iter(file["pl_noise"])
    monkeypatch.setattr(path_length.torch, "randn", lambda *args, **kwargs: next(noise))
    term = PathLength(config["pl_weight"], config["pl_decay"], config["gains"]["Greg"], config["pl_batch_shrink"])
    term.mean = config["pl_mean_before"]
    value = term(batch)
    monkeypatch.undo()
    value.backward()
    measure.close(value, 4 * file["Greg"]["reported"]["Loss/G/reg"].mean(), DISCRIMINATOR)
    measure.close(term.mean, file["Greg"]["pl_mean_after"], OPERATOR)
    same_gradients(batch.generator, layouts["generator"], file["Greg"]["grads"], measure, DISCRIMINATOR)

    batch = microbatch(file, images=file["real"])
    fake = batch.generator(file["z"]).detach()
    value = loss.discriminator(batch.discriminator(file["real"]), batch.discriminator(fake))
    value.backward()
    measure.close(value, file["Dmain"]["reported"]["Loss/D/loss"].mean(), DISCRIMINATOR)
    same_gradients(batch.discriminator, layouts["discriminator"], file["Dmain"]["grads"], measure, DISCRIMINATOR)

    batch = microbatch(file, images=file["real"])
    value = R1(config["r1_gamma"], config["gains"]["Dreg"])(batch)
    value.backward()
    measure.close(value, 16 * file["Dreg"]["reported"]["Loss/D/reg"].mean(), DISCRIMINATOR)
    same_gradients(batch.discriminator, layouts["discriminator"], file["Dreg"]["grads"], measure, DISCRIMINATOR)


def test_parity_of_style_mixing(data, measure):
    file = data("sg2_losses")
    network = microbatch(file).generator
    network.noise = "const"
    # The second number chooses one of 1 to num_styles - 1.
    chosen = (file["config"]["mixing_cutoff"] - 1 + 0.5) / (network.num_styles - 1)
    draws = {"mixing_latents": file["z2"], "mixing": torch.tensor([[0.5, chosen]]).expand(4, 2)}
    measure.close(network.styles(file["z"], **draws), file["mixed_ws"], OPERATOR)
    measure.close(network(file["z"], **draws), file["mixed_image"], GENERATOR)
    draws["mixing"] = torch.tensor([[0.95, chosen]]).expand(4, 2)
    assert torch.equal(network.styles(file["z"], **draws), network.styles(file["z"]))
