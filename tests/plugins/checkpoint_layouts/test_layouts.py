import pytest
import torch

from registry import UserError, load_plugins
from stylenat.reference import (
    discriminator_from_reference,
    generator_from_reference,
    hydra_from_reference,
    layout_for,
    layout_of,
    layouts,
    to_ours,
    to_theirs,
)


@pytest.fixture(scope="module")
def registry():
    return load_plugins()


def configuration(**options):
    base = {
        "block_type": "nat",
        "style_dim": 16,
        "n_mlp": 2,
        "min_heads": 4,
        "kernels": [[3], [3], [3]],
        "dilations": [[1], [1], [1, 2]],
        "in_channels_override": [16, 16, 8],
        "lr": 1e-4,
    }
    return {"size": 16, "generator": base | options}


def written(network, layout):
    return to_theirs(network.state_dict(), network, layout) | dict(layout.constants(network))


@pytest.mark.parametrize(
    "layout, options",
    [
        ("stylenat", {}),
        ("stylenat", {"qkv_bias": False, "qk_scale": 0.5, "min_heads": 2, "dilations": [[1], [1, 2], [1, 4]]}),
        ("stylenat_older", {}),
        ("styleswin", {"block_type": "swin"}),
        ("styleswin", {"block_type": "swin", "qkv_bias": False, "qk_scale": 0.5, "enable_full_resolution": 16}),
    ],
)
def test_a_generator_survives_the_round_trip_bit_for_bit(registry, layout, options):
    known = layouts(registry)[layout]
    network = known.build(configuration(**options))
    for p in network.parameters():
        torch.nn.init.normal_(p)
    state = written(network, known)
    assert layout_of(state, registry, "generator") == layout
    again = generator_from_reference(configuration(**options), state, registry)
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    z = torch.randn(2, 16)
    assert torch.equal(again(z), network(z))
    assert {k: v.shape for k, v in written(again, known).items()} == {k: v.shape for k, v in state.items()}
    assert all(torch.equal(written(again, known)[key], state[key]) for key in state)


def test_qk_scale_reaches_every_attention_layer(registry):
    for kind, layout in (("nat", "stylenat"), ("swin", "styleswin")):
        network = layouts(registry)[layout].build(configuration(block_type=kind, qk_scale=0.5))
        scales = {block.attention.scale for stage in network.stages for block in stage.blocks}
        assert scales == {0.5}


def test_the_older_layout_holds_one_group_as_two_halves(registry):
    known = layouts(registry)
    network = known["stylenat_older"].build(configuration())
    older = written(network, known["stylenat_older"])
    newer = written(network, known["stylenat"])
    halves = [older[f"layers.1.blocks.0.attn.rpb{i}"] for i in (0, 1)]
    assert torch.equal(torch.cat(halves), newer["layers.1.blocks.0.attn.rpb.0"])
    three = known["stylenat"].build(configuration(dilations=[[1], [1], [1, 2, 4]]))
    with pytest.raises(UserError, match="two head groups"):
        known["stylenat_older"].pairs(three)


@pytest.mark.parametrize("spectral_norm", [True, False])
@pytest.mark.parametrize("channels", [None, {"4": 12, "8": 8, "32": 4}])
def test_a_discriminator_survives_the_round_trip_bit_for_bit(registry, spectral_norm, channels):
    config = {"size": 32, "discriminator": {"sn": spectral_norm, "channels_override": channels, "ssd": False}}
    known = layouts(registry)["wavelet"]
    network = known.build(config)
    state = written(network, known)
    again = discriminator_from_reference(config, state, registry)
    assert again.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(again.state_dict()[key], value) for key, value in network.state_dict().items())


def test_an_attention_layer_survives_the_round_trip_in_float64(registry):
    config = {"cls": "Hydra", "dim": 12, "num_heads": 3, "kernel_sizes": [3, 5], "dilations": [1, 2], "hw": [12, 12]}
    known = layouts(registry)["stylenat"]
    layer = known.build(config).double()
    again = hydra_from_reference(config, written(layer, known), registry)
    x = torch.randn(1, 12, 12, 12, dtype=torch.double)
    assert torch.equal(again(x), layer(x))


def test_layouts_do_not_take_networks_that_they_cannot_name(registry):
    known = layouts(registry)
    swin = known["styleswin"].build(configuration(block_type="swin"))
    assert layout_for(swin, "generator", registry) == "styleswin"
    with pytest.raises(UserError, match="no names"):
        known["stylenat"].pairs(swin)
    with pytest.raises(UserError, match="no layout recognises"):
        layout_of(["encoder.weight"], registry, "generator")


def test_what_does_not_fit_is_named(registry):
    known = layouts(registry)["stylenat"]
    network = known.build(configuration())
    state = written(network, known)
    state["stranger"] = torch.zeros(1)
    state["input.input"] = torch.zeros(1, 16, 5, 5)
    del state["style.2.bias"]
    found = to_ours(state, network, known)
    assert found.left_over == ["stranger"] and found.missing == ["style.2.bias"]
    assert found.misfits == ["input.input is [1, 16, 5, 5], the network's [1, 16, 4, 4]"]
    with pytest.raises(UserError, match="input.input is .*style.2.bias is missing"):
        found.check("it")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"attn_drop": 0.1}, "attn_drop"),
        ({"block_type": "vit"}, "block_type"),
        ({"new_option": 1}, "new_option"),
        ({"kernels": [[3]]}, "row of kernels"),
        ({"kernels": [[3], [3], [3, 3, 3]]}, "differ in number"),
    ],
)
def test_options_that_cannot_be_built_are_refused_in_one_line(registry, options, message):
    with pytest.raises(UserError, match=message):
        layouts(registry)["stylenat"].build(configuration(**options))


def test_a_plugin_brings_its_own_systems_names(tmp_path):
    (tmp_path / "elsewhere.py").write_text("""
from registry import hookimpl
from stylenat.interfaces import Pair


class Elsewhere:
    networks = ("generator",)

    def recognises(self, names):
        return any(name.startswith("net/") for name in names)

    def build(self, config):
        from plugins.checkpoint_layouts.configurations import generator
        return generator(config)

    def pairs(self, network):
        return [Pair(name, "net/" + name.replace(".", "/")) for name in network.state_dict()]

    def constants(self, network):
        return {}


@hookimpl
def stylenat_register(register):
    register("checkpoint_layout", "elsewhere", Elsewhere)
""")
    registry = load_plugins([str(tmp_path / "elsewhere.py")])
    known = layouts(registry)["elsewhere"]
    network = known.build(configuration())
    state = written(network, known)
    assert layout_of(state, registry, "generator") == "elsewhere"
    again = generator_from_reference(configuration(), state, registry)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in network.state_dict().items())
