"""StyleGAN2 against tensors recorded from stylegan2-ada-pytorch."""

import json

import pytest
import torch

from plugins.systems.stylegan2.generator import StyleGAN2Generator
from plugins.systems.stylegan2.layers import modulated
from stylenat.networks.resampling import blur, convolve, downsample, filter_taps, upfirdn, upsample
from stylenat.reference import discriminator_from_reference, generator_from_reference, layout_of, to_ours, to_theirs

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
    assert ours.keys() == expected.keys()
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
