"""StyleGAN-XL's generator, its stages and its losses against tensors recorded from its code."""

import json
import zlib

import numpy as np
import pytest
import torch

from plugins.augmentations.blur import FadingBlur
from plugins.augmentations.displayed import from_displayed, to_displayed
from plugins.regularizers import path_length
from plugins.regularizers.path_length import PathLength
from plugins.schedules.schedules import Step
from plugins.systems.stylegan_xl.guidance import ClassifierGuidance
from plugins.systems.stylegan_xl.layout import Generator
from plugins.systems.stylegan_xl.layout_discriminator import Discriminator
from plugins.systems.stylegan_xl.loss import ProjectedHinge
from stylenat.interfaces import Microbatch, Time
from stylenat.pixels import SYMMETRIC, in_imagenet
from stylenat.reference import to_ours, to_theirs
from stylenat.training.step import frozen

OPERATOR, GENERATOR, DISCRIMINATOR = 1e-5, 5e-5, 2e-4
STAGES = ["xl_stem16", "xl_stem16_cond", "xl_superres32_cond", "xl_superres64_two_stages"]
LAYOUT = Generator()


@pytest.fixture
def data(recorded):
    return lambda name: recorded(f"systems/{name}.pt")


def generator(file, state=None):
    network = LAYOUT.build(file["config"])
    translated = to_ours(file["state_dict"] if state is None else state, network, LAYOUT)
    network.load_state_dict(translated.check("the recording"))
    assert not translated.left_over
    return network


def given(file):
    return [file["c"]] if file["c"].shape[1] else []


def whole_state(data, name):
    """A stage's recording leaves out the kept weights that are those of the stage before."""
    file = data(name)
    state = dict(file["state_dict"])
    if name == "xl_superres32_cond":
        before = data("xl_stem16_cond")["state_dict"]
        state = {
            key: before[key] for key in before if not key.startswith(("synthesis.L4", "synthesis.L5", "synthesis.L6"))
        } | state
    return file, state


@pytest.mark.parametrize("name", STAGES)
def test_parity_of_every_stage_layer_by_layer_and_its_gradients(data, measure, name):
    file, state = whole_state(data, name)
    network = generator(file, state).requires_grad_(True)
    unused = getattr(network, "unused_embeddings", None)
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    names = [f"synthesis.{layer.plan.name}" for layer in network.layers]
    if "head_layer_names" in file and file["head_layer_names"]:
        assert [n.removeprefix("synthesis.") for n in names[network.plan.kept :]] == file["head_layer_names"]
    seen = {}
    network.input.register_forward_hook(lambda m, x, out: seen.update({"synthesis.input": out}))
    for layer_name, layer in zip(names, network.layers, strict=True):
        layer.register_forward_hook(lambda m, x, out, key=layer_name: seen.update({key: out}))
        if layer.up_filter is not None:
            measure.close(layer.up_filter, state[f"{layer_name}.up_filter"], OPERATOR)
            measure.close(layer.down_filter, state[f"{layer_name}.down_filter"], OPERATOR)
    latents, labels = file["z"].clone().requires_grad_(), given(file)
    styles = network.mapping(latents, *labels)
    measure.close(styles[:, None].expand(-1, network.num_styles, -1), file["ws"], OPERATOR)
    image = network(latents, *labels)
    measure.close(image, file["image"], GENERATOR)
    for key, expected in file["activations"].items():
        measure.close(seen[key][:1], expected, GENERATOR)
    image.backward(file["cotangent"])
    measure.close(latents.grad, file["grad_z"], GENERATOR)
    own = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in network.named_parameters()}
    ours = to_theirs(own, network, LAYOUT)
    for key, gradient in file["grads"].items():
        if gradient.any():
            measure.close(ours[key], gradient, GENERATOR)
        else:
            assert not ours[key].any()
    assert unused is None or unused.grad is None

    centre = labels[0] @ network.mean_style if labels else network.mean_style
    with torch.no_grad():
        styles = network.mapping(file["z"], *labels)
        truncated = centre + 0.6 * (styles - centre)
        measure.close(
            network.synthesis(truncated[:, None].expand(-1, network.num_styles, -1)), file["image_psi06"], GENERATOR
        )
        measure.close(truncated, file["ws_psi06_cut3"][:, 0], OPERATOR)
        network.observe(file["z"], *labels)
    measure.close(network.mean_style, file["w_avg_after"], OPERATOR)


@pytest.mark.parametrize("name", STAGES[2:])
def test_parity_of_what_a_stage_trains_and_freezes(data, name):
    file, state = whole_state(data, name)
    network = generator(file, state)
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    assert set(to_theirs(trained, network, LAYOUT)) == set(file["trained_in_the_last_stage"])
    frozen_ones = {n: p for n, p in network.named_parameters() if not p.requires_grad}
    assert set(to_theirs(frozen_ones, network, LAYOUT)) == set(file["frozen_in_the_last_stage"])


def published(configuration, classes, resolution=None):
    """The configuration of a published or shipped generator, as the recordings write it."""
    family, side = configuration.split("_")[:2]
    side = int(side)
    small = family == "small"
    config = {"img_resolution": side, "c_dim": classes}
    config |= {"channel_base": 32768, "channel_max": 512} if small else {}
    stem, head = (7, 4) if small else (10, 7)
    sides = [2**i for i in range(5, side.bit_length())]
    if sides:
        stages = [{"img_resolution": s, "head_layers": head, "up_factor": 2} for s in sides]
        return config | {"stem": {"img_resolution": 16, "num_layers": stem}, "stages": stages}
    return config | {"num_layers": stem}


@pytest.mark.parametrize(
    "file, configuration, classes",
    [
        ("imagenet_16_1000", "imagenet_16", 1000),
        ("imagenet_256_1000", "imagenet_256", 1000),
        ("small_256_unconditional", "small_256", 0),
    ],
)
def test_parity_of_every_name_and_shape_of_the_published_generators(recorded_path, file, configuration, classes):
    keys = json.loads((recorded_path / f"systems/keys_stylegan_xl_{file}_generator.json").read_text())
    with torch.device("meta"):
        built = LAYOUT.build(published(configuration, classes))
        state = {key: torch.empty(shape) for key, shape in keys["state_dict"].items()}
        found = to_ours(state, built, LAYOUT)
    assert LAYOUT.recognises(state) and not (found.missing or found.left_over or found.misfits)
    constants = {key: list(tensor.shape) for key, tensor in LAYOUT.constants(built).items()}
    assert constants == {key: keys["state_dict"][key] for key in found.constants}
    assert sum(p.numel() for p in built.parameters()) == keys["num_parameters"]
    assert LAYOUT.dimensions(state) == {"resolution": built.resolution, "num_classes": classes}


def test_parity_of_every_published_schedule(recorded_path):
    schedules = json.loads((recorded_path / "systems/schedule_stylegan_xl.json").read_text())
    fields = {
        "name": lambda layer: layer.plan.name,
        "in_channels": lambda layer: layer.plan.source.channels,
        "out_channels": lambda layer: layer.plan.target.channels,
        "in_size": lambda layer: [layer.plan.source.size] * 2,
        "out_size": lambda layer: [layer.plan.target.size] * 2,
        "in_sampling_rate": lambda layer: layer.plan.source.rate,
        "out_sampling_rate": lambda layer: layer.plan.target.rate,
        "in_cutoff": lambda layer: layer.plan.source.cutoff,
        "out_cutoff": lambda layer: layer.plan.target.cutoff,
        "in_half_width": lambda layer: layer.plan.source.half_width,
        "out_half_width": lambda layer: layer.plan.target.half_width,
        "up_factor": lambda layer: layer.up,
        "down_factor": lambda layer: layer.down,
        "padding": lambda layer: list(layer.padding),
        "is_critically_sampled": lambda layer: layer.plan.critical,
        "is_torgb": lambda layer: layer.plan.to_rgb,
    }
    assert len(schedules) > 5
    for name, schedule in schedules.items():
        for classes in (0, 1000):
            count = schedule.get("num_parameters_1000_classes" if classes else "num_parameters_unconditional")
            if count is None:
                continue
            with torch.device("meta"):
                built = LAYOUT.build(configuration_of(name, classes))
            assert sum(p.numel() for p in built.parameters()) == count, name
        assert built.num_styles == schedule["num_ws"] and len(built.layers) == len(schedule["layers"])
        for layer, expected in zip(built.layers, schedule["layers"], strict=True):
            for field, of in fields.items():
                if field not in expected:
                    continue
                ours, theirs = of(layer), expected[field]
                assert ours == (pytest.approx(theirs) if isinstance(theirs, float) else theirs), (name, field)


def configuration_of(name, classes):
    return published(name, classes)


def recipe_weights(shapes):
    found = {}
    for name, tensor in shapes.items():
        source = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        shape = tuple(tensor.shape)
        if name.endswith("phases"):
            found[name] = torch.from_numpy(source.random(shape, dtype=np.float32) - np.float32(0.5))
            continue
        a = np.asarray(source.standard_normal(shape, dtype=np.float32))
        if name.startswith("mapping.fc"):
            a = a * np.float32(100 if name.endswith("weight") else 20)
        elif name.endswith("input.affine.weight"):
            a = np.float32(0.3) * a
        elif name.endswith("input.affine.bias"):
            a = np.float32([1, 0, 0, 0]) + np.float32(0.1) * a
        elif name.endswith("affine.bias"):
            a = 1 + np.float32(0.2) * a
        elif name.endswith(".bias"):
            a = np.float32(0.2) * a
        elif name.endswith("w_avg"):
            a = np.float32(0.4) * a
        elif name.endswith("magnitude_ema"):
            a = np.exp(np.float32(0.3) * a)
        elif name.endswith("freqs"):
            r = np.sqrt(np.sum(a * a, axis=1, keepdims=True))
            a = a * (2 / (r * np.exp(r * r) ** 0.25))
        found[name] = torch.from_numpy(np.asarray(a, dtype=np.float32))
    return found


@torch.no_grad()
@pytest.mark.parametrize(
    "name, configuration, classes",
    [
        pytest.param("xl_small_256_full_recipe", "small_256", 0, marks=pytest.mark.slow),  # 27 s.
        pytest.param("xl_imagenet_16_full_recipe", "imagenet_16", 1000, marks=pytest.mark.slow),  # 7 s.
    ],
)
def test_parity_of_full_size_generators(data, measure, all_threads, name, configuration, classes):
    file = data(name)
    config = published(configuration, classes)
    with torch.device("meta"):
        built = LAYOUT.build(config)
    weights = recipe_weights(to_theirs(built.state_dict(), built, LAYOUT))
    network = LAYOUT.build(config).eval()
    network.load_state_dict(to_ours(weights, network, LAYOUT).check("the recipe"))
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    sums = weights | dict(LAYOUT.constants(network))
    assert sums.keys() == file["checksums"].keys()
    for key, expected in file["checksums"].items():
        assert float(sums[key].double().sum()) == pytest.approx(expected, rel=1e-4, abs=2e-3), key
    labels = given(file)
    measure.close(network.mapping(file["z"], *labels), file["ws_first"], OPERATOR)
    measure.close(network(file["z"], *labels), file["image"], GENERATOR)


@pytest.mark.parametrize("name", ["xl_stem16", "xl_stem16_cond", "xl_superres64_two_stages"])
def test_parity_of_a_round_trip_is_bit_identical(data, name):
    file = data(name)
    network = generator(file)
    back = to_theirs(network.state_dict(), network, LAYOUT) | dict(LAYOUT.constants(network))
    assert back.keys() == file["state_dict"].keys()
    for key, expected in file["state_dict"].items():
        if not key.endswith("_filter"):  # Designed anew, to the last bit of scipy's.
            assert torch.equal(back[key], expected), key


def test_parity_of_the_blur_that_fades(data, measure):
    file = data("xl_blur")
    blur = FadingBlur(sigma=file["blur_init_sigma"], images=file["blur_fade_kimg"] * 1000)
    for images, expected in zip(file["cur_nimg"], file["results"], strict=False):
        blur.begin(Time(0, images, 1, 1))
        seen = to_displayed(blur(from_displayed(file["x"]), torch.Generator()))
        measure.close(seen, expected["y"], OPERATOR)


def blurred(network, file, images):
    """The discriminator behind the blur, as training calls it."""
    config = file["config"]
    blur = FadingBlur(sigma=config["blur_init_sigma"], images=config["blur_fade_kimg"] * 1000)
    blur.begin(Time(0, images, 1, 4))
    augment = in_imagenet(blur, SYMMETRIC)
    return lambda x, labels=None: network(augment(x, torch.Generator()), labels)


def same_gradients(network, layout, expected, measure, tolerance):
    own = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in network.named_parameters()}
    ours = to_theirs(own, network, layout)
    for key, gradient in expected.items():
        if gradient.abs().max() > 1e-6:  # A bias before batch norm has none.
            measure.close(ours[key], gradient, tolerance)


def test_parity_of_the_losses_of_all_phases(data, measure, tiny, tiny_classifier, monkeypatch):
    file = data("xl_losses")
    config, now = file["config"], file["config"]["cur_nimg"]
    loss = ProjectedHinge(images=4)

    def networks(images):
        made = generator({"config": config["generator"]}, file["g0"]).train()
        judge = tiny(config["discriminator"], 16, file["d0"]).train()
        loss.check(made, judge)
        batch = Microbatch(made, judge, blurred(judge, file, images), Time(0, images, 1, 4), torch.Generator())
        batch.latents, batch.fake_labels = file["z"], file["c"]
        return made, judge, batch

    made, judge, batch = networks(now["Gmain"])
    guidance = ClassifierGuidance(lambda: tiny_classifier(file["classifier"]), weight=config["cls_weight"])
    guidance.check(made, judge)
    with frozen(judge):
        batch.fake = made(file["z"], file["c"])
        term = guidance(batch)
        value = loss.generator(batch.discriminate(batch.fake, file["c"]))
        (value + term).backward()
    reported = file["Gmain"]["reported"]
    measure.close(term / config["cls_weight"], reported["Loss/G/guidance_loss"], DISCRIMINATOR)
    measure.close(value + term, reported["Loss/G/loss"], DISCRIMINATOR)
    same_gradients(made, LAYOUT, file["Gmain"]["grads"], measure, DISCRIMINATOR)

    made, judge, batch = networks(now["Dmain"])
    made.observe(file["z"], file["c"])
    fake = made(file["z"], file["c"]).detach()
    fake_logits = batch.discriminate(fake, file["c"])
    value = loss.discriminator(batch.discriminate(file["real"], file["real_c"]), fake_logits)
    value.backward()
    measure.close(value, file["Dmain"]["reported"]["Loss/D/loss"].mean(), DISCRIMINATOR)
    same_gradients(judge, Discriminator(), file["Dmain"]["grads"], measure, DISCRIMINATOR)
    measure.close(made.mean_style, file["Dmain"]["w_avg_after"], OPERATOR)

    made, judge, batch = networks(now["Greg"])
    noise = iter(file["pl_noise"])
    monkeypatch.setattr(path_length.torch, "randn", lambda *args, **kwargs: next(noise))
    # The code does not multiply by the interval, here 4.
    weight = Step(before=0.0, after=config["pl_weight"] / 4, images=1_000_000)
    term = PathLength(weight, interval=4)
    term.mean = config["pl_mean_before"]
    value = term(batch)
    monkeypatch.undo()
    value.backward()
    measure.close(value, file["Greg"]["reported"]["Loss/G/reg"].mean(), DISCRIMINATOR)
    measure.close(term.mean, file["Greg"]["pl_mean_after"], OPERATOR)
    same_gradients(made, LAYOUT, file["Greg"]["grads"], measure, DISCRIMINATOR)
