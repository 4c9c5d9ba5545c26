"""HiT from its paper and the facts of its code, without recordings."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from plugins.augmentations.none import NoAugmentation
from plugins.losses.adversarial import NonSaturating
from plugins.regularizers.gradient_penalty import R1
from plugins.systems.hit.blocks import MultiAxisAttention, blocked, initialised, shuffled, unblocked
from plugins.systems.hit.consistency import Consistency
from plugins.systems.hit.discriminator import HiTDiscriminator
from plugins.systems.hit.generator import HiT
from plugins.systems.hit.layout import DiscriminatorLayout, GeneratorLayout
from registry import UserError, load_experiment, load_plugins
from stylenat import weights
from stylenat.attention.shown import observed, spread_queries
from stylenat.commands._command import CORE, experiments_folder
from stylenat.commands.export_weights import main as export_weights
from stylenat.commands.import_weights import main as import_weights
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample
from stylenat.interfaces import Microbatch, Time
from stylenat.networks.counting import macs, parameters
from stylenat.npz import write_variables
from stylenat.reference import discriminator_from_reference, generator_from_reference, to_theirs
from stylenat.training.average import Exponential, NoAverage
from stylenat.training.interrupt import StopRequest
from stylenat.training.loop import sampler, save_samples
from stylenat.training.optimizers import SGD, Adam
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.step import Joint, iteration


def small(**options):
    return HiT(**({"resolution": 16, "channels": [16, 8], "heads": [4, 2], "latent_dim": 8} | options))


@pytest.mark.parametrize("size, resolution, latent_dim, count, statistics, gmacs", [
    ("B", 128, 256, 32_866_627, 19_200, 14.15),
    ("B", 128, 512, 43_352_387, 19_200, 14.16),
    ("B", 256, 512, 46_217_670, 18_944, 13.36),
    ("B", 1024, 512, 88_216_300, 19_456, 39.39),
    ("S", 256, 512, 38_013_382, None, 9.23),
    ("L", 256, 512, 97_462_214, None, 44.21),
])  # fmt: skip
def test_generators_have_the_published_sizes(size, resolution, latent_dim, count, statistics, gmacs):
    with torch.device("meta"):
        network = HiT(resolution=resolution, size=size, latent_dim=latent_dim)
        assert parameters(network) == count
        assert statistics in (None, sum(buffer.numel() for buffer in network.buffers()))
        assert macs(network, torch.empty(1, latent_dim)) / 1e9 == pytest.approx(gmacs, abs=0.005)


@pytest.mark.parametrize("resolution, multiplier, count", [
    (128, 1, 23_880_833), (256, 2, 28_862_593), (256, 1, 23_998_017), (1024, 2, 29_008_673), (1024, 1, 24_033_937),
])  # fmt: skip
def test_discriminators_have_the_published_sizes(resolution, multiplier, count):
    with torch.device("meta"):
        assert parameters(HiTDiscriminator(resolution=resolution, channel_multiplier=multiplier)) == count


@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 512])
def test_other_resolutions_are_cut_from_the_published_ones_and_end_in_a_stage_with_rgb(resolution):
    with torch.device("meta"):
        network = HiT(resolution=resolution)
        assert network(torch.empty(2, 512)).shape == (2, 3, resolution, resolution)
    assert network.stages[-1].to_rgb is not None


def test_shuffled_is_the_pixel_shuffle_with_the_offset_before_the_channel():
    x = torch.randn(2, 3, 5, 24)
    reordered = x.view(2, 3, 5, 4, 6).transpose(3, 4).reshape(2, 3, 5, 24)
    assert torch.equal(shuffled(x).permute(0, 3, 1, 2), F.pixel_shuffle(reordered.permute(0, 3, 1, 2), 2))


def test_the_first_half_of_the_heads_sees_its_block_and_the_second_its_place_in_all_blocks():
    torch.manual_seed(0)
    layer, side = MultiAxisAttention(8, 4, "multi_head", 2).double(), 2
    torch.nn.init.eye_(layer.output.weight)  # Heads stay apart.
    for linear in (layer.query, layer.key, layer.value):
        torch.nn.init.normal_(linear.weight, std=0.3)  # No weight vanishes in softmax.
    x = torch.randn(1, 6, 6, 8, dtype=torch.double)

    def out(image):
        return unblocked(layer(blocked(image, side)), 6, 6)

    moved = x.clone()
    moved[0, 2, 3] += 1  # In the block of rows 2, 3 and columns 2, 3.
    changed = (out(moved) - out(x)).abs() > 1e-9
    regional, dilated = changed[0, ..., :4].any(-1), changed[0, ..., 4:].any(-1)
    assert {tuple(place) for place in regional.nonzero().tolist()} == {(y, x) for y in (2, 3) for x in (2, 3)}
    assert {tuple(place) for place in dilated.nonzero().tolist()} == {(y, x) for y in (0, 2, 4) for x in (1, 3, 5)}


@pytest.mark.parametrize("kind", ["multi_query", "multi_head"])
@torch.no_grad()
def test_the_maps_that_are_shown_times_the_values_are_the_layers_result(kind):
    layer, height = MultiAxisAttention(16, 4, kind, 4), 12
    for parameter in layer.parameters():
        parameter.normal_(std=0.5)
    x = torch.randn(2, height, height, 16)
    queries = spread_queries(height, height**2)
    with observed(layer, lambda side: queries) as found:
        out = layer(blocked(x, 4))
    (((within, across),),) = found.values()
    assert [within.label, across.label] == ["4x4 blocks", "stride 4"]
    assert within.weights.shape == (2, 2, height**2, height, height)
    assert [int((s.weights[0, 0, 0] > 0).sum()) for s in (within, across)] == [16, 9]
    weights = torch.cat([within.weights, across.weights], dim=1)
    values = layer.value(x).unflatten(-1, (-1, 4)).expand(-1, -1, -1, 4, -1)
    heads = torch.einsum("bhqyx,byxhd->bqhd", weights, values).reshape(2, height, height, 16)
    torch.testing.assert_close(layer.output(heads), unblocked(out, height, height), atol=1e-5, rtol=1e-4)


def test_weights_are_drawn_from_a_normal_cut_at_two_deviations():
    drawn = initialised(400, 400).detach()
    assert float(drawn.abs().max()) <= 0.04
    assert float(drawn.std()) == pytest.approx(0.0176, abs=1e-4)  # 0.02 * 0.8796, that of the cut law.


@pytest.mark.parametrize("options, message", [
    ({"resolution": 24}, "power of two"),
    ({"heads": [3]}, "even number of heads; got 3"),
    ({"heads": [4, 16]}, "16x16: 16 heads need at least as many channels; got 8"),
    ({"channels": [18, 8]}, "8x8: channels must be a multiple of 4 for the pixel shuffle; got 18"),
    ({"patches": [3]}, "blocks of 3x3 do not divide the features"),
])  # fmt: skip
def test_options_that_do_not_fit_together_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        small(**options)


@pytest.mark.parametrize("layout, config, message", [
    (GeneratorLayout(), {"output_size": 16, "style_dim": 4}, "options unknown here: style_dim"),
    (GeneratorLayout(), {"latent_dim": 16}, "has no 'output_size'"),
    (GeneratorLayout(), {"output_size": 16, "norm_type": "group"}, "norm 'group' is not built here"),
    (GeneratorLayout(), {"output_size": 32, "patch_size_per_block": [4, None, 4]}, "after a stage without"),
    (DiscriminatorLayout(), {"input_size": 16, "spectral": True}, "options unknown here: spectral"),
])  # fmt: skip
def test_configurations_that_are_not_built_here_are_refused(layout, config, message):
    with pytest.raises(UserError, match=message):
        layout.build(config)


def test_weights_come_back_from_an_npz_to_the_bit(tmp_path):
    networks = {"ema": small(), "d": HiTDiscriminator(resolution=16, channels=[8])}
    layouts = {"ema": GeneratorLayout(), "d": DiscriminatorLayout()}
    theirs = {name: to_theirs(net.state_dict(), net, layouts[name]) for name, net in networks.items()}
    with open(tmp_path / "hit.npz", "wb") as file:
        write_variables(file, theirs)
    stored = weights.read(tmp_path / "hit.npz").states
    config = {"output_size": 16, "latent_dim": 8, "channel_dim_per_block": [16, 8], "num_heads_per_block": [4, 2]}
    found = {
        "ema": generator_from_reference(config, stored["ema"]),
        "d": discriminator_from_reference({"input_size": 16, "channels": {4: 8, 8: 8, 16: 8}}, stored["discriminator"]),
    }
    for name, network in found.items():
        expected = networks[name].state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    assert (
        GeneratorLayout().dimensions(theirs["ema"])
        == DiscriminatorLayout().dimensions(theirs["d"])
        == {"resolution": 16}
    )


def test_keras_form_of_adam_adds_epsilon_before_the_correction():
    p, adam = torch.nn.Parameter(torch.zeros(3, dtype=torch.double)), Adam((0.0, 0.9), 0.1, epsilon_hat=True)
    optimizer, expected, v = adam([p], 0.01), torch.zeros(3, dtype=torch.double), 0.0
    for t in range(1, 5):
        adam.adjust(optimizer, Time(t - 1, 0, 10, 1))
        p.grad = torch.tensor([0.01, 1.0, -3.0], dtype=torch.double) * t
        optimizer.step()
        v = 0.9 * v + 0.1 * p.grad**2
        expected -= 0.01 * (1 - 0.9**t) ** 0.5 * p.grad / (v.sqrt() + 0.1)
        torch.testing.assert_close(p.data, expected)


def test_the_average_is_a_copy_for_so_many_iterations():
    average = Exponential(half_life=256.0, copied=10)
    assert [average.decay(Time(i, 256 * i, 100, 256)) for i in (0, 9, 10, 50)] == [0.0, 0.0, 0.5, 0.5]


def test_consistency_moves_both_logits_of_both_batches_and_no_image():
    term, calls = Consistency(2.0, 3.0), []
    term.transform = lambda images, random: images + 1

    def discriminate(images, labels):
        calls.append(images)
        return gain * images.mean(dim=(1, 2, 3))[:, None]

    gain = torch.tensor(0.5, requires_grad=True)
    real, fake = (torch.full((2, 3, 4, 4), value, requires_grad=True) for value in (1.0, 2.0))
    batch = Microbatch(None, None, discriminate, Time(0, 0, 1, 2), torch.Generator(), images=real, fake=fake)
    # (gain * (x + 1) - logit)², with logits of their own.
    batch.real_logits, batch.fake_logits = (torch.full((2, 1), value, requires_grad=True) for value in (0.0, 0.5))
    loss = term(batch)
    assert float(loss) == pytest.approx(2 * 1.0**2 + 3 * 1.0**2)
    loss.backward()
    assert float(gain.grad) == pytest.approx(2 * 2 * 1.0 * 2 + 3 * 2 * 1.0 * 3)
    assert torch.allclose(batch.real_logits.grad, torch.full((2, 1), -2.0)) and real.grad is None and fake.grad is None


BINDINGS = [
    "generator.hit.channels = [16, 8]", "generator.hit.heads = [2]", "discriminator.hit.channels = [8]",
    "train.iterations = 2", "train.batch_size = 4", "train.checkpoint_every = 2", "train.sample_every = 2",
    "train.evaluate_every = 2", "train.evaluation_samples = 8", "train.sample_count = 4", "train.metrics = []",
    "train.trackers = []",
]  # fmt: skip


def arguments(*more):
    return [part for binding in (*BINDINGS, *more) for part in ("--bind", binding)]


def test_a_run_trains_says_how_batch_norm_sees_its_batch_and_is_sampled(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start = ["--gin", "hit_quickstart.gin", *arguments()]
    assert run([*start, "--dry-run"]) == 0
    assert "batch norm of the generator sees the images of one microbatch over all processes" in capsys.readouterr().out
    assert run([*start, "--run-dir", "run"]) == 0
    assert sample(["run", "--seeds", "0-2", "--out", "samples"]) == 0
    assert sample(["run", "--seeds", "1", "--out", "other", "--truncation-psi", "0.5"]) == 2
    assert "has no styles to truncate" in capsys.readouterr().err


def test_commands_import_and_export_an_npz_bit_for_bit_and_refuse_another_size(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["generator.hit.channels = [16, 8]", "generator.hit.heads = [4, 2]", "generator.hit.latent_dim = 8"]
    chosen = ["--gin", "hit_quickstart.gin", *(part for option in options for part in ("--bind", option))]
    network = small(layers=[1])
    state = to_theirs(network.state_dict(), network, GeneratorLayout())
    np.savez("hit.npz", **{f"g_ema/{name}/.ATTRIBUTES/VARIABLE_VALUE": value.numpy() for name, value in state.items()})
    assert import_weights(["hit.npz", *chosen, "--out", "imported"]) == 0
    assert "ema: layout hit," in capsys.readouterr().out
    assert export_weights(["imported", "back.npz"]) == 0
    with np.load("back.npz") as back:
        assert set(back) == {f"g_ema/{name}" for name in state}
        assert all(np.array_equal(back[f"g_ema/{name}"], value.numpy()) for name, value in state.items())
    capsys.readouterr()
    assert import_weights(["hit.npz", *chosen, "--bind", "SIDE = 32", "--out", "other"]) == 2
    error = capsys.readouterr().err
    assert "resolution 16" in error and "resolution 32" in error and error.count("\n") == 1


def test_samples_of_a_run_without_an_average_do_not_change_its_generator(tmp_path):
    settings = experiment(average=NoAverage(), sample_count=4)
    state, seen = TrainingState(settings, torch.device("cpu")), []
    before = {name: value.clone() for name, value in state.generator.state_dict().items()}
    (tmp_path / "samples").mkdir()
    state.pending = ["samples"]
    hook = SimpleNamespace(images_sampled=lambda images, **_: seen.append(images))
    save_samples(settings, state, SimpleNamespace(directory=tmp_path), hook, StopRequest(None))
    assert all(torch.equal(value, before[name]) for name, value in state.generator.state_dict().items())
    assert state.generator.training
    state.generator.eval()
    assert torch.equal(seen[0], sampler(settings, state)(0, 4))


@pytest.mark.parametrize("options", [
    {"activation_checkpointing": True}, {"accumulate": 2}, {"channels_last": True},
], ids=str)  # fmt: skip
def test_ways_to_compute_train_the_same_networks(options):
    plain, other = trained(), trained(**options)
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def experiment(**options):
    return Training(
        generator=lambda: small(norm_group=2), discriminator=lambda: HiTDiscriminator(resolution=16, channels=[8]),
        loss=NonSaturating(), regularizers=[R1(1.0, interval=1, own_step=False), Consistency()],
        augmentation=NoAugmentation(), dataset=SimpleNamespace(resolution=16), recipe=Joint(), iterations=2,
        batch_size=4, generator_optimizer=SGD(), discriminator_optimizer=SGD(), pixel_space="symmetric", **options,
    )  # fmt: skip


def trained(**options):
    state = TrainingState(experiment(**options), torch.device("cpu"))
    for number in range(2):
        images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(number))
        iteration(state, iter([(images, None)]))
        state.step += 1
    return {f"{n}.{k}": v for n, network in state.networks().items() for k, v in network.state_dict().items()}


def test_every_published_experiment_has_the_networks_of_its_name():
    registry = load_plugins(core=CORE)
    counts = {
        "hit_imagenet128": (32_866_627, 23_880_833), "hit_ffhq256": (46_217_670, 28_862_593),
        "hit_s_ffhq256": (38_013_382, 28_862_593), "hit_l_ffhq256": (97_462_214, 28_862_593),
        "hit_ffhq1024": (88_216_300, 29_008_673),
    }  # fmt: skip
    for name, expected in counts.items():
        loaded = load_experiment(registry, [f"{name}.gin"], search_path=[experiments_folder()])
        with torch.device("meta"):
            found = tuple(parameters(loaded.value(f"train.{kind}")()) for kind in ("generator", "discriminator"))
        assert found == expected, name
