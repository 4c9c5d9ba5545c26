"""StyleGAN-XL's projected discriminator, DiffAugment and hinge loss against tensors recorded from its code."""

import json
import zlib

import numpy as np
import pytest
import torch

from plugins.systems.stylegan_xl.diffaug import augmented
from plugins.systems.stylegan_xl.layout_discriminator import Discriminator
from plugins.systems.stylegan_xl.loss import ProjectedHinge
from stylenat.reference import to_ours, to_theirs

OPERATOR, DISCRIMINATOR = 1e-5, 2e-4
VIT, LITE = "deit_tiny_distilled_patch16_224", "tf_efficientnet_lite0"


@pytest.fixture
def data(recorded):
    return lambda name: recorded(f"systems/{name}.pt")


def as_recorded(logits, sizes):
    """Ours, [batch, positions], as the recorded list: network after network, sample after sample."""
    return [row for part in logits.split(sizes, dim=1) for row in part]


def same_gradients(network, expected, close, tolerance):
    own = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    ours = to_theirs({name: torch.zeros(1) if g is None else g for name, g in own.items()}, network, Discriminator())
    for key, gradient in expected.items():
        if gradient.abs().max() > 1e-6:  # A bias before batch norm has none.
            close(ours[key], gradient, tolerance)
    return ours


@pytest.mark.parametrize("name", ["xl_projected_d", "xl_projected_d_cond"])
def test_parity_of_projected_discriminators_features_logits_and_gradients(data, measure, tiny, name):
    file = data(name)
    network = tiny(file["config"], 48, file["state_dict"])
    assert sum(p.numel() for p in network.parameters()) == file["num_parameters"]
    labels = [file["c"]] if file["config"]["cond"] else []
    network.eval()
    sizes = network.logit_sizes()
    assert sizes == [64, 64]
    for part, vit in zip(network.networks, (VIT, LITE), strict=True):
        maps = part.backbone((file["x"][:1] + 1) / 2)
        for scale, found in enumerate(maps):
            measure.close(found, file["features"][f"{vit}/backbone{scale}"], DISCRIMINATOR)
        mixed = part.projector(maps)
        for scale, expected in file["features"][vit].items():
            measure.close(mixed[int(scale)], expected, DISCRIMINATOR)

    images = file["x"].clone().requires_grad_()
    logits = network(images, *labels)
    for ours, expected in zip(as_recorded(logits, sizes), file["logits_eval"], strict=True):
        measure.close(ours, expected, DISCRIMINATOR)
    loss = ProjectedHinge(images=len(images))
    loss.check(network, network)
    loss.generator(logits).backward()
    measure.close(images.grad, file["grad_x_of_generator_loss"], DISCRIMINATOR)

    # In float64: a leaky ReLU's element near 0 may fall on the other side in float32, and moves a gradient by 1e-3.
    network.train().double().zero_grad()
    logits = network(file["x"].double(), *(c.double() for c in labels))
    for ours, expected in zip(as_recorded(logits, sizes), file["logits_train"], strict=True):
        measure.close(ours, expected, DISCRIMINATOR)
    real = loss.discriminator(logits, torch.full_like(logits, -1.0))  # Fakes of -1 cost nothing.
    measure.close(real, file["real_hinge_loss_train"], DISCRIMINATOR)
    real.backward()
    same_gradients(network, file["grads_train"], measure.close, DISCRIMINATOR)
    after = to_theirs(network.state_dict(), network, Discriminator())
    for key, expected in file["state_after_train_forward"].items():
        measure.close(after[key], expected, DISCRIMINATOR)


@pytest.mark.parametrize("classes", [0, 1000])
def test_parity_of_every_name_and_shape_of_the_published_discriminators(recorded_path, classes):
    pytest.importorskip("timm")
    stem = f"keys_stylegan_xl_projected_discriminator_{classes or 'unconditional'}"
    published = json.loads((recorded_path / f"systems/{stem}.json").read_text())
    layout = Discriminator()
    with torch.device("meta"):
        built = layout.build(full(classes))
        state = {key: torch.empty(shape) for key, shape in published["state_dict"].items()}
    state |= {key: torch.tensor(0) for key in state if key.endswith("num_batches_tracked")}
    found = to_ours(state, built, layout)
    assert layout.recognises(state) and not (found.missing or found.left_over or found.misfits)
    counted = [sum(p.numel() for p in built.parameters() if p.requires_grad in kept) for kept in ({True}, {False})]
    assert counted == [published["num_parameters_trained"], published["num_parameters_frozen"]]
    assert sum(counted) == published["num_parameters"]


def full(classes):
    names = ["deit_base_distilled_patch16_224", "tf_efficientnet_lite0"]
    return {"img_resolution": 256, "c_dim": classes, "backbones": names, "backbone_kwargs": {"cond": bool(classes)}}


def recipe_weights(shapes):
    """By the recorded recipe, in the reference's names."""
    found = {}
    for name, tensor in shapes.items():
        source = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        shape = tuple(tensor.shape)
        a = source.standard_normal(shape, dtype=np.float32)
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(0)
            continue
        if name.endswith("running_mean") or name.rpartition(".")[2] in ("pos_embed", "cls_token", "dist_token"):
            a = 0.1 * a
        elif name.endswith("running_var"):
            a = np.exp(0.2 * a)
        elif name.endswith(("embed.weight", "embed_proj.weight", "weight_v", "weight_u")):
            pass
        elif len(shape) == 1:
            a = 0.1 * a + (1 if name.endswith(".weight") else 0)
        else:
            a = a / np.float32(np.sqrt(a.size / shape[0]))
        found[name] = torch.from_numpy(np.asarray(a, dtype=np.float32))
    for name in [name for name in found if name.endswith("weight_v")]:
        matrix = found[name.removesuffix("v") + "orig"].flatten(1)
        v = found[name] / found[name].norm()
        for _ in range(3):
            u = matrix @ v / (matrix @ v).norm()
            v = matrix.t() @ u / (matrix.t() @ u).norm()
        found[name], found[name.removesuffix("v") + "u"] = v, u
    return found


@torch.no_grad()
def test_parity_of_the_full_size_discriminator(data, measure, all_threads):
    pytest.importorskip("timm")
    file, layout = data("xl_projected_d_full_recipe"), Discriminator()
    with torch.device("meta"):
        built = layout.build(full(0))
    shapes = to_theirs(built.state_dict(), built, layout)
    network = layout.build(full(0)).eval()
    network.load_state_dict(to_ours(recipe_weights(shapes), network, layout).check("the recipe"))
    x = np.random.Generator(np.random.PCG64(zlib.crc32(b"x"))).standard_normal(file["x_shape"], dtype=np.float32)
    logits = network(torch.from_numpy(np.float32(0.5) * x))
    for ours, expected in zip(as_recorded(logits, network.logit_sizes()), file["logits"], strict=True):
        measure.close(ours, expected, DISCRIMINATOR)


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "color,translation,cutout"])
def test_parity_of_diffaugment_and_its_gradient(data, measure, policy):
    file = data("xl_diffaug")
    recorded, images = file[policy], file["x"].clone().requires_grad_()
    height, width = images.shape[2:]
    largest = [int(side / 8 + 0.5) for side in (height, width)]
    holes = [int(side * 0.2 + 0.5) for side in (height, width)]
    drawn = iter(recorded["draws"])
    draws = torch.zeros(7, len(images))
    for name in policy.split(","):
        rows = {"color": (0, 1, 2), "translation": (3, 4), "cutout": (5, 6)}[name]
        for axis, row in enumerate(rows):
            value = next(drawn)
            if name == "translation":
                value = (value + largest[axis] + 0.5) / (2 * largest[axis] + 1)
            elif name == "cutout":
                value = (value + 0.5) / ((height, width)[axis] + 1 - holes[axis] % 2)
            draws[row] = value
    out = augmented(images, draws.t(), policy.split(","))
    measure.close(out, recorded["y"], OPERATOR)
    out.backward(recorded["cotangent"])
    measure.close(images.grad, recorded["grad_x"], OPERATOR)
