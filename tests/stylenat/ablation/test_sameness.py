import pytest
import torch
from torch import nn

from registry import load_experiment, load_plugins
from stylenat.ablation.sameness import model_of
from stylenat.commands._command import ASIDE, CORE, experiments_folder
from stylenat.training.build import sized


@pytest.fixture(scope="module")
def model():
    registry = load_plugins(core=CORE, aside=ASIDE)

    def model(*bindings):
        experiment = load_experiment(registry, ["quickstart.gin"], bindings, search_path=[experiments_folder()])
        networks = sized(experiment.get("train")())
        return model_of(experiment.settings(), networks["generator"].network, networks["discriminator"].network)

    return model


def partition(name, kernel_size):
    return f"block.hydra.partition = @partition.{name}()", f"partition.{name}.kernel_size = {kernel_size}"


def test_partitions_with_the_same_head_groups_are_one_model(model):
    assert model(*partition("split", 7)) == model(*partition("pyramid", 7))
    assert model(*partition("split", 3)) != model(*partition("pyramid", 3))
    assert model(*partition("split", 7)) != model(*partition("uniform", 7))


def test_partitions_with_the_same_head_groups_build_networks_of_equal_bits():
    registry, states = load_plugins(core=CORE, aside=ASIDE), []
    for name in ("split", "pyramid"):
        bindings = [*partition(name, 7), "train.seed = 3"]
        experiment = load_experiment(registry, ["quickstart.gin"], bindings, search_path=[experiments_folder()])
        torch.manual_seed(0)
        generator = experiment.value("train.generator")()
        states.append((generator.state_dict(), generator(torch.ones(1, generator.latent_dim))))
    assert all(torch.equal(states[0][0][name], states[1][0][name]) for name in states[0][0])
    assert torch.equal(states[0][1], states[1][1])


def test_widths_are_compared_as_they_are_built(model):
    assert model("generator.style.channels = [64, 64, 32]") == model()
    assert model("generator.style.channels = [64, 32, 32]") != model()


def test_seed_and_trackers_make_no_other_model_and_everything_else_does(model):
    assert model("train.seed = 5", "tracker.aim.every = 7") == model()
    assert model("regularizer.r1.gamma = 0.5") != model()
    assert model("generator.style.to_rgb_gain = 0.25") != model()


def test_a_partition_that_something_else_uses_counts_as_it_is_written():
    network = nn.Linear(1, 1)
    one, other = ({"block.mine.partition": f"@partition.{name}()"} for name in ("split", "pyramid"))
    assert model_of(one, network, network) != model_of(other, network, network)
