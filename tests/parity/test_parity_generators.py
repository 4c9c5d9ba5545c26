"""Whole generators against recorded ones: images, every layer, gradients, and the names of the published files."""

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stylenat.networks.generator import StyleGenerator
from stylenat.reference import generator_from_reference, layout_of, to_ours, to_theirs

SMALL = {
    "g32_nat.pt": "stylenat",
    "g32_nat_legacy.pt": "stylenat_older",
    "g32_nat_uneven_h4.pt": "stylenat",
    "g32_swin.pt": "styleswin",
}
FULL = {
    "g32_full_recipe.pt": "stylenat",
    "g256_full_recipe.pt": "stylenat",
    "g256_full_swin_recipe.pt": "styleswin",
}


@pytest.mark.parametrize("name", SMALL)
def test_parity_of_whole_generators_layer_by_layer(recorded, measure, name):
    data = recorded(name)
    network = generator_from_reference(data["config"], data["state_dict"])
    assert sum(p.numel() for p in network.parameters()) == data["num_parameters"]
    seen = {}
    for i, stage in enumerate(network.stages):
        last = stage.upsample if stage.upsample is not None else stage.blocks[-1]
        last.register_forward_hook(lambda m, x, out, i=i: seen.update({f"layers.{i}": out.flatten(1, 2)}))
        stage.to_rgb.register_forward_hook(lambda m, x, out, i=i: seen.update({f"to_rgbs.{i}": out}))
    image = network(data["z"])
    measure.close(network.mapping(data["z"]), data["latent"][:, 0], 2e-5)
    assert seen.keys() == data["activations"].keys()
    for key, expected in data["activations"].items():
        measure.close(seen[key], expected, 5e-4)
    measure.close(image, data["image"], 5e-4)


class Rounding(TorchDispatchMode):
    """Every operation that computes rounds to float32: relative noise of 2^-24 on its results, forward and backward.

    Operations, not modules: how the code is divided must not change what is allowed.
    """

    MOVES = {"clone", "copy_", "_to_copy", "_unsafe_view", "cat", "stack", "index", "index_select", "masked_fill"}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if not function.is_view and name not in self.MOVES and not name.startswith(("new_", "empty", "zeros", "ones")):
            for result in results if isinstance(results, tuple | list) else (results,):
                if isinstance(result, torch.Tensor) and result.is_floating_point():
                    result.mul_(1 + 2**-24 * torch.randn_like(result))
        return results


# The older layout's network is that of g32_nat: the short form compares its images, the long one its gradients too.
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "legacy" in n else ()) for n in SMALL])
def test_parity_of_whole_generators_gradients(recorded, measure, known, name):
    """In float64 against the float32 recording, to the tolerance and what rounding alone does to the gradient.

    These small networks are ill-conditioned: noise of 2^-24 on every operation's result moves some gradients by up to
    hundreds of tolerances (1e-4 of the tensor, 1e-6 of the file). So the allowance is one tolerance and four times
    the spread over four noisy runs of the same network; float32 against float32 cannot be held to one tolerance alone.
    Layers by themselves are, in test_parity_modules.py.
    """
    data, layout = recorded(name), known[SMALL[name]]
    network = generator_from_reference(data["config"], data["state_dict"]).double()
    z, cotangent = data["z"].double(), data["cotangent"].double()
    theirs = data["grads"] | {"input": data["grad_z"]}
    ours = measure.gradients(network, layout, z, cotangent)

    torch.manual_seed(0)
    with Rounding():
        noisy = [measure.gradients(network, layout, z, cotangent) for _ in range(4)]
    largest = max(float(g.abs().max()) for g in theirs.values())
    strict = 0
    for key, expected in theirs.items():
        tolerance = measure.gradient_tolerance(expected, largest)
        spread = max(float((run[key] - ours[key]).abs().max()) for run in noisy)
        difference = float((ours[key] - expected).abs().max())
        assert difference < tolerance + 4 * spread, f"{key}: {difference / tolerance:.1f} tolerances"
        strict += difference < tolerance
    assert strict >= len(theirs) / 3  # The rule itself holds for the rest: no blanket excuse.


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if "256" in name else ()) for name in FULL])
def test_parity_of_full_size_generators(recorded, measure, known, all_threads, name):
    """The recording is as near to exact arithmetic as this project's own float32.

    With the recipe's weights these networks amplify rounding: float32 differs from float64, in the same code, by
    1.6e-3 (swin) and 1.9e-3 (32x32) of the image's largest magnitude, and by 0.19 (256x256). Two float32 programs can
    agree no better than that, so 5e-4 between them is out of reach here; it is held by the small networks above.
    Here: float64 against the recording to 5e-4 and twice the distance of our float32 from our float64, in the largest
    difference and in the root mean square.
    """
    data, layout = recorded(name), known[FULL[name]]
    with torch.device("meta"):
        shapes = layout.build(data["config"])
    weights = measure.recipe_weights(shapes, layout)
    assert weights.keys() == data["param_checksums"].keys()
    for key, expected in data["param_checksums"].items():
        assert float(weights[key].double().sum()) == pytest.approx(expected, rel=1e-9, abs=1e-9), key
    network = generator_from_reference(data["config"], weights).eval()
    assert sum(p.numel() for p in network.parameters()) == data["num_parameters"]
    with torch.no_grad():
        measure.close(network.mapping(data["z"]), data["latent_first"].view(len(data["z"]), -1), 2e-5)
        single = network(data["z"]).double()
        exact = network.double()(data["z"].double())
    theirs = data["image"].double()
    largest = [float((a - b).abs().max() / theirs.abs().max()) for a, b in ((exact, theirs), (single, exact))]
    mean = [float((a - b).square().mean().sqrt() / theirs.std()) for a, b in ((exact, theirs), (single, exact))]
    assert largest[0] < 5e-4 + 2 * largest[1], largest
    assert mean[0] < 5e-4 + 2 * mean[1], mean
    assert mean[0] < 0.1  # Another network's image would be off by the whole of it.


@pytest.mark.parametrize("name", SMALL)
def test_parity_of_a_round_trip_is_bit_identical(recorded, known, name):
    data, layout = recorded(name), known[SMALL[name]]
    network = generator_from_reference(data["config"], data["state_dict"])
    back = to_theirs(network.state_dict(), network, layout) | dict(layout.constants(network))
    assert back.keys() == data["state_dict"].keys()
    for key, expected in data["state_dict"].items():
        assert back[key].dtype == expected.dtype and torch.equal(back[key], expected), key


@pytest.mark.parametrize(
    "file, network_name, layout_name, resolution, block",
    [
        ("keys_stylenat_ffhq256.json", "generator", "stylenat", 256, "nat"),
        ("keys_stylenat_ffhq256_older_layout.json", "generator", "stylenat_older", 256, "nat"),
        ("keys_stylenat_ffhq1024.json", "generator", "stylenat", 1024, "nat"),
        ("keys_styleswin_256.json", "generator", "styleswin", 256, "swin"),
        ("keys_discriminator_256_spectral_norm.json", "discriminator", "wavelet", 256, True),
        ("keys_discriminator_256_equalised.json", "discriminator", "wavelet", 256, False),
    ],
)
def test_parity_of_every_name_and_shape_of_the_published_files(
    recorded_path, known, file, network_name, layout_name, resolution, block
):
    published = json.loads((recorded_path / file).read_text())
    dilations = [[1], [1], *([1, 2**i] for i in range(1, 8))]
    options = {"block_type": block, "kernels": [[7]] * 9, "dilations": dilations}
    if network_name == "discriminator":
        options = {"sn": block}
    layout = known[layout_name]
    with torch.device("meta"):
        network = layout.build({"size": resolution, network_name: options})
        state = {key: torch.empty(shape) for key, shape in published["state_dict"].items()}
        assert layout_of(state, _registry(), network_name) == layout_name
        found = to_ours(state, network, layout)
        constants = layout.constants(network)
    assert not (found.missing or found.left_over or found.misfits)
    assert {key: list(tensor.shape) for key, tensor in constants.items()} == {
        key: published["state_dict"][key] for key in found.constants
    }
    assert sum(p.numel() for p in network.parameters()) == published["num_parameters"]
    assert not isinstance(network, StyleGenerator) or len(found.tensors) == len(network.state_dict())


def _registry():
    from registry import load_plugins

    return load_plugins()
