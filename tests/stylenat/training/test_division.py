"""A batch's result does not depend on how it is divided among processes and microbatches: float64, 20 iterations."""

import os

import pytest
import torch
from torch import distributed, multiprocessing

from plugins.augmentations.none import NoAugmentation
from plugins.backbones.convolution import Convolution
from plugins.regularizers.gradient_penalty import R1
from plugins.regularizers.path_length import PathLength
from plugins.systems.hit.consistency import Consistency
from plugins.systems.hit.discriminator import HiTDiscriminator
from plugins.systems.hit.generator import HiT
from plugins.systems.stylegan2.generator import StyleGAN2Generator
from plugins.systems.stylegan_xl.discriminator import ProjectedDiscriminator
from plugins.systems.stylegan_xl.generator import StyleGANXLGenerator
from plugins.systems.stylegan_xl.loss import ProjectedHinge
from registry import UserError
from stylenat import ranks
from stylenat.data.loader import ImageStream
from stylenat.pixels import to_networks
from stylenat.training.optimizers import SGD
from stylenat.training.state import TrainingState
from stylenat.training.step import Alternating, Joint, iteration

STEPS, CPU = 20, torch.device("cpu")


def trained(settings, steps=STEPS):
    """Everything that a checkpoint would hold after ``steps`` iterations, and the last scalars."""
    state = TrainingState(settings, CPU)
    for network in state.networks().values():
        network.double()
    stream = ImageStream(
        settings.dataset,
        settings.batch_size,
        seed=0,
        horizontal_flips=True,
        rank=ranks.rank(),
        world_size=ranks.world_size(),
    )
    for images in stream.batches(0):
        scalars = iteration(state, iter([(to_networks(images).double(), None)]))
        state.step += 1
        if state.step == steps:
            break
    tensors = {f"{n}.{k}": v for n, net in state.networks().items() for k, v in net.state_dict().items()}
    tensors |= {f"stream.{name}": value for name, value in state.streams.state_dict().items()}
    tensors |= {f"scalar.{name}": torch.as_tensor(value) for name, value in scalars.items()}
    return tensors


class Stranger:
    """Draws as one would without a thought of other processes; how often, depends on chance."""

    def __call__(self, images, random):
        gain = 1 + torch.rand(len(images), 1, 1, 1, generator=random, dtype=images.dtype)
        if torch.rand((), generator=random) < 0.5:
            gain = gain + 0.1 * torch.randn(images.shape, generator=random, dtype=images.dtype)
        return gain * images

    def observe(self, real_logits): ...

    def scalars(self):
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state): ...


def _one_of_many(rank, rendezvous, out, size, settings, steps):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)
    torch.save(trained(settings, steps), f"{out}/{rank}.pt")
    distributed.destroy_process_group()


def divided(tmp_path, processes, settings, steps=STEPS):
    """What each process ended with."""
    arguments = (str(tmp_path / "rendezvous"), str(tmp_path), processes, settings, steps)
    multiprocessing.start_processes(_one_of_many, arguments, nprocs=processes, start_method="fork")
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-8, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")


def assert_moved(tensors, settings):
    before = TrainingState(settings, CPU).networks()
    names = [f"{n}.{k}" for n, net in before.items() for k, _ in net.named_parameters()]
    start = {f"{n}.{k}": v for n, net in before.items() for k, v in net.state_dict().items()}
    assert all(not torch.allclose(tensors[name].float(), start[name], rtol=0, atol=1e-6) for name in names)


@pytest.fixture(scope="module")
def whole(experiment):
    return trained(experiment())


@pytest.mark.parametrize("processes, accumulate", [(2, 1), (1, 2), (4, 1)])
def test_a_divided_batch_trains_as_a_whole_one(experiment, whole, tmp_path, processes, accumulate):
    everyone = divided(tmp_path, processes, experiment(accumulate=accumulate))
    for tensors in everyone:  # With four processes, the minibatch-stddev groups lie across them.
        assert_same(tensors, whole)
        assert all(torch.equal(tensors[name], everyone[0][name]) for name in tensors)


def test_processes_microbatches_shared_fakes_and_a_plugin_unaware_of_them_train_as_a_whole_batch(experiment, tmp_path):
    options = dict(stddev_group=2, recipe=Alternating(share_fakes=True), augmentation=Stranger())
    reference = trained(experiment(**options))
    assert_moved(reference, experiment(**options))
    for tensors in divided(tmp_path, 2, experiment(accumulate=2, **options)):
        assert_same(tensors, reference)


def with_styles(experiment, decay, **options):
    """Noise, one decision on style mixing for the batch, a mean style, and a regularizer that keeps a mean."""
    return experiment(
        generator=lambda: StyleGAN2Generator(
            resolution=8, channel_base=64, channel_max=8, latent_dim=8, style_dim=8, mapping_layers=2, style_mixing=0.5
        ),
        regularizers=[R1(interval=4), PathLength(interval=2, decay=decay)],
        **options,
    )


@pytest.mark.parametrize("processes, accumulate, decay", [(2, 1, 0.3), (1, 2, 0.0)])
def test_means_over_a_batch_are_those_of_the_whole_batch(experiment, tmp_path, processes, accumulate, decay):
    """A path length's target moves with the batch: over processes exactly, over microbatches by each one's part."""
    reference = trained(with_styles(experiment, decay))
    assert reference["generator.mean_style"].any()
    for tensors in divided(tmp_path, processes, with_styles(experiment, decay, accumulate=accumulate)):
        assert_same(tensors, reference)


@pytest.mark.parametrize("processes, accumulate", [(2, 2), (1, 4)])
def test_a_discriminator_that_draws_sees_each_image_as_in_the_whole_batch(experiment, tmp_path, processes, accumulate):
    def settings(**divided):
        return experiment(
            generator=lambda: StyleGANXLGenerator(
                resolution=8, stem_resolution=8, stem_layers=3, channel_max=4, latent_dim=8, style_dim=8, margin=2,
                embedding_rows=0,
            ),
            discriminator=lambda: ProjectedDiscriminator(
                resolution=8, backbones=[lambda: Convolution(side=16, channels=(4, 4))] * 2, width=4, channels=(4, 4),
                norm_group=2,
            ),
            loss=ProjectedHinge(images=3),
            augmentation=NoAugmentation(),
            regularizers=[],
            **divided,
        )  # fmt: skip

    reference = trained(settings(), steps=4)
    assert "stream.discriminator" in reference
    for tensors in divided(tmp_path, processes, settings(accumulate=accumulate), steps=4):
        assert_same(tensors, reference)


def with_batch_norm(experiment, group, **changed):
    """HiT's networks and recipe. SGD: some biases have no gradient but rounding errors, which Adam would enlarge."""
    values = dict(
        generator=lambda: HiT(
            resolution=8, channels=[8], heads=[2], layers=[1], latent_dim=6, norm_group=group
        ),
        discriminator=lambda: HiTDiscriminator(resolution=8, channels=[8]),
        regularizers=[R1(gamma=0.1, interval=1, own_step=False), Consistency(0.1, 0.1)],
        recipe=Joint(),
        augmentation=NoAugmentation(),
        generator_optimizer=SGD(),
        discriminator_optimizer=SGD(),
        pixel_space="symmetric",
    )  # fmt: skip
    return experiment(**(values | changed))


@pytest.mark.parametrize("group, processes, accumulate", [(2, 2, 2), (4, 1, 2), (None, 2, 1)])
def test_batch_norm_of_a_divided_batch_is_that_of_the_whole_one(experiment, tmp_path, group, processes, accumulate):
    reference = trained(with_batch_norm(experiment, group))
    before = TrainingState(with_batch_norm(experiment, group), CPU).generator.state_dict()
    for name in ("first.weight", "stages.0.blocks.0.norm.running_var"):
        assert not torch.allclose(reference[f"generator.{name}"].float(), before[name], rtol=0, atol=1e-6)
    for tensors in divided(tmp_path, processes, with_batch_norm(experiment, group, accumulate=accumulate)):
        assert_same(tensors, reference)


class PlainBatchNorm(torch.nn.Module):
    resolution = 8

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 4, 4), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(16, 1)
        )

    def forward(self, images):
        return self.layers(images)


def test_running_statistics_of_any_batch_norm_are_the_same_bits_in_all_processes(experiment, tmp_path):
    settings = with_batch_norm(experiment, None, discriminator=PlainBatchNorm, accumulate=2, regularizers=[])
    first, second = divided(tmp_path, 2, settings)
    assert first.keys() == second.keys() and "discriminator.layers.1.running_mean" in first
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("changed, message", [
    (dict(accumulate=4), "do not divide into batch-norm groups of 4"),
    (dict(group=5), "do not divide into batch-norm groups of 5"),
])  # fmt: skip
def test_a_division_that_would_split_groups_of_batch_norm_is_refused(experiment, changed, message):
    with pytest.raises(UserError, match=message):
        TrainingState(with_batch_norm(experiment, **({"group": 4} | changed)), CPU)


@pytest.mark.parametrize("changed, message", [
    (dict(accumulate=3), "does not divide among 1 process"),
    (dict(accumulate=4), "bind a stddev_group of the discriminator to 2"),
])  # fmt: skip
def test_a_batch_that_cannot_be_divided_is_refused(experiment, changed, message):
    with pytest.raises(UserError, match=message):
        TrainingState(experiment(**changed), CPU)
