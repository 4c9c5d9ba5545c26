"""HiT's parts and networks against tensors recorded from its reference; layouts there are TensorFlow's."""

import json
import zlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from plugins.augmentations.simple import cut, jittered, moved
from plugins.systems.hit.blocks import (
    CrossAttention,
    CrossBlock,
    MultiAxisAttention,
    SelfBlock,
    blocked,
    doubled,
    norm_of,
    shuffled,
    unblocked,
)
from plugins.systems.hit.consistency import transformed
from plugins.systems.hit.generator import Stage
from plugins.systems.hit.layout import attention_pairs, block_pairs, stage_pairs
from stylenat.networks.resampling import Blur
from stylenat.reference import discriminator_from_reference, generator_from_reference, to_ours, to_theirs

GENERATORS, DISCRIMINATORS = ("hit_g64", "hit_g32_layer_multihead"), ("hit_d32", "hit_d32_equalised_stddev")


@pytest.fixture(scope="module")
def file(recorded):
    return lambda name: recorded(f"systems/{name}.pt")


def close(ours, theirs, tolerance):
    """Relative to the recorded tensor's largest value."""
    difference = float((ours.detach() - theirs).abs().max() / theirs.abs().max())
    assert ours.shape == theirs.shape and difference < tolerance, f"{difference:.2e}"


def all_close(ours, theirs, tolerance):
    """Each tensor by itself. Gradients that are zero but for rounding need only be as small: of keys' biases, and of
    shifts that a later batch norm removes."""
    assert ours.keys() >= theirs.keys()
    negligible = 1e-5 * max(float(expected.abs().max()) for expected in theirs.values()) if theirs else 0.0
    for name, expected in theirs.items():
        if float(expected.abs().max()) < negligible:
            assert float(ours[name].abs().max()) < negligible, name
        else:
            close(ours[name], expected, tolerance)


def loaded(module, pairs, state):
    assert {pair.theirs for pair in pairs} == set(state)
    module.load_state_dict({pair.ours: pair.to_ours(state[pair.theirs]) for pair in pairs})
    return module


def gradients(module, pairs):
    own = {name: p.grad for name, p in module.named_parameters()}
    return {pair.theirs: pair.to_theirs(own[pair.ours]) for pair in pairs if pair.ours in own}


def statistics(module, pairs):
    own = dict(module.named_buffers())
    return {pair.theirs: pair.to_theirs(own[pair.ours]) for pair in pairs if pair.ours in own}


def first(image):
    """Channels last to channels first."""
    return image.permute(0, 3, 1, 2)


def last(image):
    return image.permute(0, 2, 3, 1)


@pytest.mark.parametrize("name", ["mq_c64_h8_n4_p16", "mq_c32_h4_n6_p64", "mh_c48_h4_n9_p16"])
def test_parity_of_multi_axis_attention(file, name):
    data = file(f"hit_attention_{name}")
    config = data["config"]
    side = round(data["queries"].shape[2] ** 0.5)
    layer = MultiAxisAttention(config["input_dim"], config["num_heads"], config["attn_type"], side)
    pairs = attention_pairs(layer, "", "")
    loaded(layer, pairs, data["state_dict"])
    x = data["queries"].clone().requires_grad_()
    out = layer(x)
    out.backward(data["cotangent"])
    close(out, data["output"], 1e-5)
    close(x.grad, data["grad_queries"], 1e-5)
    all_close(gradients(layer, pairs), data["grads"], 1e-5)
    for half, (q, k, _) in zip("01", layer.axes(*layer.projected(x, x)), strict=True):
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k.expand_as(q)) / layer.width**0.5
        close(weights.softmax(dim=-1), data["attention"][half].flatten(0, 1), 1e-5)


@pytest.mark.parametrize("name", ["blocked_c32_h4_e64", "image_c16_h4_e64"])
def test_parity_of_cross_attention(file, name):
    data = file(f"hit_cross_{name}")
    config = data["config"]
    layer = CrossAttention(config["input_dim"], config["value_dim"], config["num_heads"], config["attn_type"])
    pairs = attention_pairs(layer, "", "")
    loaded(layer, pairs, data["state_dict"])
    x, tokens = data["queries"].clone().requires_grad_(), data["values"].clone().requires_grad_()
    out = layer(x, tokens[:, 0])
    out.backward(data["cotangent"])
    close(out, data["output"], 1e-5)
    close(x.grad, data["grad_queries"], 1e-5)
    close(tokens.grad, data["grad_values"], 1e-5)
    all_close(gradients(layer, pairs), data["grads"], 1e-5)
    q, k, _ = layer.projected(x, tokens[:, 0])
    weights = torch.einsum("bijhd,bkd->bhijk", q, k[:, :, 0]) / layer.width**0.5
    close(weights.softmax(dim=-1)[:, :, :, :, None], data["attention"]["0"], 1e-5)


@pytest.mark.parametrize("name", ["cross_batch", "self_batch", "self_layer"])
def test_parity_of_blocks(file, name):
    data = file(f"hit_block_{name}")
    config, norm = data["config"], norm_of(data["config"]["norm_type"], None)
    common = config["num_heads"], config["attn_type"], norm
    if name == "cross_batch":
        block = CrossBlock(config["input_dim"], config["value_dim"], *common)
    else:
        block = SelfBlock(config["input_dim"], *common, side=4)
    pairs = block_pairs(block, "", "")
    loaded(block, pairs, data["state_dict"])
    x = data["inputs"].clone().requires_grad_()
    values = [data["values"].clone().requires_grad_()] if "values" in data else []
    tokens = [value[:, 0] for value in values]
    close(block.eval()(x, *tokens), data["output_eval"], 1e-5)
    out = block.train()(x, *tokens)
    out.backward(data["cotangent"])
    close(out, data["output_train"], 1e-5)
    close(x.grad, data["grad_inputs"], 1e-5)
    all_close(gradients(block, pairs), data["grads"], 1e-5)
    all_close(statistics(block, pairs), data["stats_after"], 1e-5)
    for value in values:
        close(value.grad, data["grad_values"], 1e-5)


@pytest.mark.parametrize("name", ["c16", "c32_noproj"])
def test_parity_of_high_resolution_stages(file, name):
    data = file(f"hit_stage_highres_{name}")
    config = data["config"]
    stage = Stage(
        data["inputs"].shape[1], config["input_dim"], config["output_dim"], config["embedding_dim"],
        config["num_heads"], config["num_mlp"], None, config["attn_type"], norm_of(config["norm_type"], None),
    )  # fmt: skip
    pairs = stage_pairs(stage, "", "position_embedding", "block", "to_rgb", "upsampling")
    loaded(stage, pairs, data["state_dict"])
    x, values, skip = (data[key].clone().requires_grad_() for key in ("inputs", "embeddings", "skip"))
    expected = data["activations_eval"]
    for ours, theirs in zip(stage.eval()(x, values[:, 0], skip), ("upsampled", "rgb"), strict=True):
        close(ours, expected[theirs], 1e-5)
    found = {"position_embedding": x + stage.position}
    stage.blocks[0].register_forward_hook(lambda _, __, out: found.update(cross_attention_block=out))
    for i, layer in enumerate(stage.mlps):
        layer.register_forward_hook(lambda _, __, out, i=i: found.update({f"mlp{i}": out}))
    found["upsampled"], found["rgb"] = stage.train()(x, values[:, 0], skip)
    all_close(found, data["activations_train"], 1e-5)
    outputs, cotangents = (found["rgb"], found["upsampled"]), (data["cotangent_rgb"], data["cotangent_upsampled"])
    torch.autograd.backward(outputs, cotangents)
    for ours, theirs in ((x, "grad_inputs"), (values, "grad_embeddings"), (skip, "grad_skip")):
        close(ours.grad, data[theirs], 1e-5)
    all_close(gradients(stage, pairs), data["grads"], 1e-5)
    all_close(statistics(stage, pairs), data["stats_after"], 1e-5)


def test_parity_of_layouts_and_gelu(file):
    data = file("hit_layout")
    for case in data["cases"].values():
        image = case["image"]
        assert torch.equal(blocked(image, case["patch_size"]), case["blocked"])
        assert torch.equal(unblocked(case["blocked"], *image.shape[1:3]), case["unblocked"])
        assert torch.equal(shuffled(case["before_shuffle"]), case["after_shuffle"])
        assert torch.equal(doubled(image), case["nearest_x2"])
    close(F.gelu(data["gelu_x"]), data["gelu_y"], 1e-6)


@pytest.mark.parametrize("name", GENERATORS)
def test_parity_of_whole_generators(file, known, name):
    data = file(name)
    images, slopes = (1e-5, 5e-5) if name == "hit_g64" else (2e-4, 2e-4)
    generator = generator_from_reference(data["config"], data["state_dict"])
    assert sum(p.numel() for p in generator.parameters()) == data["num_parameters"]
    close(last(generator.eval()(data["z"])), data["image_eval"], images)

    found = {}
    generator.tokens.register_forward_hook(lambda _, __, out: found.update(embedding_layer=out[:, None]))
    for i, stage in enumerate(generator.stages):
        module = stage.blocks[-1] if stage.patch else stage.mlps[-1]
        side = 8 * 2**i
        unfold = (lambda out, side=side: unblocked(out, side, side)) if stage.patch else (lambda out: out)
        module.register_forward_hook(lambda _, __, out, i=i, f=unfold: found.update({f"stage{i}": f(out)}))
        if stage.to_rgb:
            stage.to_rgb.register_forward_hook(lambda _, __, out, i=i: found.update({f"rgb{i}": out}))
    z = data["z"].clone().requires_grad_()
    out = generator.train()(z)
    out.backward(first(data["cotangent"]))
    close(last(out), data["image_train"], images)
    all_close(found, data["activations_train"], images)
    close(z.grad, data["grad_z"], slopes)
    pairs = known["hit"].pairs(generator)
    all_close(gradients(generator, pairs), data["grads"], slopes)
    all_close(statistics(generator, pairs), data["stats_after"], 1e-5)


def test_parity_of_the_published_generator(file, known):
    data = file("hit_g256_full_recipe")
    layout = known["hit"]
    with torch.device("meta"):
        shapes = to_theirs(layout.build(data["config"]).state_dict(), layout.build(data["config"]), layout)
    assert shapes.keys() == data["param_checksums"].keys()
    state = {name: weights(name, tuple(tensor.shape)) for name, tensor in shapes.items()}
    for name, total in data["param_checksums"].items():
        assert float(state[name].double().sum()) == pytest.approx(total, rel=1e-9, abs=1e-9)
    generator = generator_from_reference(data["config"], state).eval()
    assert sum(p.numel() for p in generator.parameters()) == data["num_parameters"]
    with torch.no_grad():
        image = last(generator(data["z"]))
    assert float((image - data["image_eval"]).abs().max()) < 1e-4


def weights(name, shape):
    """The recipe that is written in the file."""
    a = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape, dtype=np.float32)
    *_, before, kind = name.split("/")
    if kind == "kernel":
        projection = before in ("query_dense", "key_dense", "value_dense")
        a = a / np.float32(np.sqrt(shape[0] if projection else np.prod(shape[:-1])))
    elif kind == "moving_variance":
        a = np.float32(6.0) * (np.float32(0.5) + np.abs(a))
    elif kind == "gamma":
        a = 1 + np.float32(0.2) * a
    else:
        a = np.float32({"bias": 0.1, "beta": 0.1, "moving_mean": 0.2, "embedding_weight": 0.5}[kind]) * a
    return torch.from_numpy(np.asarray(a, dtype=np.float32))


@pytest.mark.parametrize("name", [*DISCRIMINATORS, "hit_d32_avgpool"])
def test_parity_of_discriminators(file, known, name):
    data = file(name)
    network = discriminator_from_reference(data["config"], data["state_dict"])
    assert sum(p.numel() for p in network.parameters()) == data["num_parameters"]
    for size in (1, 2, 4, 8):
        close(network(first(data["x"][:size])), data["outputs"][f"batch{size}"], 1e-5)
    close(last(Blur(padding=1, stride=2)(first(data["blurpool_x"]))), data["blurpool_y"], 1e-5)
    close(last(F.avg_pool2d(first(data["blurpool_x"]), 2)), data["avgpool_y"], 1e-5)
    if "activations_batch2" in data:
        x = first(data["x"][:2])
        x = network.from_rgb(x)
        found = {"conv_blocks_0": x, "conv_blocks_1": (x := F.leaky_relu(x, 0.2))}
        for i, block in enumerate(network.blocks, 2):
            found[f"conv_blocks_{i}"] = x = block(x)
        all_close({key: last(value) for key, value in found.items()}, data["activations_batch2"], 1e-5)
    if "cotangent_batch4" not in data:
        return
    pairs = known["hit_discriminator"].pairs(network)
    pairs = [pair for pair in pairs if pair.ours in network.state_dict()]
    x = first(data["x"][:4]).requires_grad_()
    network(x).backward(data["cotangent_batch4"])
    close(last(x.grad), data["grad_x_batch4"], 5e-5)
    all_close(gradients(network, pairs), data["grads_batch4"], 5e-5)
    network.zero_grad()
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    penalty = data["config"]["grad_penalty_cost"] * slope.square().sum(dim=(1, 2, 3)).mean()
    close(penalty, data["r1_penalty_batch4"], 1e-5)
    penalty.backward()
    last_bias = [pair for pair in pairs if pair.ours != "logit.bias"]  # The penalty does not depend on it.
    all_close(gradients(network, last_bias), data["r1_grads_batch4"], 5e-5)


@pytest.mark.parametrize("size", ["128", "256", "1024"])
@pytest.mark.parametrize("kind, name", [("generator", "hit"), ("discriminator", "hit_discriminator")])
def test_parity_of_every_name_and_shape(recorded_path, known, kind, name, size):
    published = json.loads((recorded_path / "systems" / f"keys_hit_{kind}_{size}.json").read_text())
    with torch.device("meta"):
        network = known[name].build(published["config"])
        state = {key: torch.empty(shape) for key, shape in published["state_dict"].items()}
        found = to_ours(state, network, known[name])
    assert not (found.missing or found.left_over or found.misfits)
    assert len(found.tensors) == len(network.state_dict())
    assert sum(p.numel() for p in network.parameters()) == published["num_parameters"]
    assert sum(b.numel() for b in network.buffers() if b.shape != (4, 4)) == published["num_non_trainable"]


@pytest.mark.parametrize("name", [*GENERATORS, *DISCRIMINATORS])
def test_parity_of_a_round_trip_is_bit_identical(file, known, name):
    data = file(name)
    kind = "generator" if name in GENERATORS else "discriminator"
    build = generator_from_reference if name in GENERATORS else discriminator_from_reference
    network, layout = build(data["config"], data["state_dict"]), known["hit" if kind == "generator" else f"hit_{kind}"]
    back = to_theirs(network.state_dict(), network, layout)
    assert back.keys() == data["state_dict"].keys()
    assert all(torch.equal(back[key], expected) for key, expected in data["state_dict"].items())


def test_parity_of_the_consistency_transforms(file, recorded_draws):
    data = file("hit_augment_32")
    draws, x = recorded_draws(data["draws"], 32), first(data["x"]).requires_grad_()
    close(last(jittered(x, draws[:3], 0.5, 1.0, 0.5)), data["color"], 2e-6)
    assert torch.equal(last(moved(x, draws[3:5], 0.125)), data["translation"])
    assert torch.equal(last(cut(x, draws[5:7], 0.5)), data["cutout"])
    out = transformed(x, draws)
    out.backward(first(data["cotangent"]))
    close(last(out), data["all"], 2e-6)
    close(last(x.grad), data["grad_x"], 2e-6)
