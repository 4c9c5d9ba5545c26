"""The counted memory of an iteration is that of a real one."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from plugins.augmentations.none import NoAugmentation
from plugins.regularizers.bcr import BalancedConsistency
from plugins.regularizers.gradient_penalty import R1, R2
from plugins.regularizers.path_length import PathLength
from plugins.systems.r3gan.discriminator import R3Discriminator
from plugins.systems.r3gan.generator import R3Generator
from plugins.systems.stylegan2.discriminator import StyleGAN2Discriminator
from plugins.systems.stylegan2.generator import StyleGAN2Generator
from registry import UserError
from stylenat.commands.run import main
from stylenat.training.build import inputs_of_one
from stylenat.training.footprint import COUNTED, Footprint, footprint, peak_of
from stylenat.training.state import TrainingState


class Classes:
    resolution, num_classes = 8, 3
    __len__ = lambda self: 30  # noqa: E731

    def __getitem__(self, index):
        return torch.zeros(3, 8, 8, dtype=torch.uint8), index % 3


def of_real_tensors(settings):
    state = TrainingState(replace(settings, batch_size=COUNTED), torch.device("cpu"))
    return max(peak_of(state, step, *inputs_of_one(state.generator)) for step in settings.steps) / COUNTED


def test_the_count_without_data_is_that_of_real_tensors(experiment):
    for terms in ([], [R1(interval=1)], [BalancedConsistency()]):
        settings = experiment(regularizers=terms, augmentation=NoAugmentation())
        assert footprint(settings).image == pytest.approx(of_real_tensors(settings), rel=0.05)


def test_a_generator_that_draws_and_a_penalty_with_a_seed_for_each_image_are_counted(experiment):
    settings = experiment(
        generator=partial(StyleGAN2Generator, resolution=8, channel_base=128, latent_dim=8, style_dim=8),
        regularizers=[PathLength(batch_shrink=1), R1(interval=4)],
        augmentation=NoAugmentation(),
    )
    assert footprint(settings).image == pytest.approx(of_real_tensors(settings), rel=0.05)


def test_classes_are_counted(experiment):
    settings = experiment(
        dataset=Classes(),
        generator=partial(StyleGAN2Generator, resolution=8, channel_base=128, latent_dim=8, num_classes=3),
        discriminator=partial(StyleGAN2Discriminator, resolution=8, channel_base=128, num_classes=3),
        regularizers=[],
        augmentation=NoAugmentation(),
    )
    assert footprint(settings).image == pytest.approx(of_real_tensors(settings), rel=0.05)


def test_recomputation_needs_less_and_the_rest_does_not_depend_on_it(experiment):
    plain, recomputed = (footprint(experiment(regularizers=[]), recompute=r) for r in (False, True))
    assert recomputed.image < 0.8 * plain.image and recomputed.fixed == plain.fixed


def test_the_images_that_fit_a_card():
    assert Footprint(fixed=int(1.6e9), image=int(1e9)).at_once(24) == 20
    assert Footprint(fixed=int(30e9), image=int(1e9)).at_once(24) == 0


def test_a_dry_run_shows_memory_when_asked(tiny, capsys):
    assert main([*tiny, "--dry-run", "--memory"]) == 0
    out = capsys.readouterr().out
    assert "GB an image" in out and "bf16" in out and "does not fit" not in out
    assert main([*tiny, "--memory"]) == 2
    assert "--memory is for --dry-run" in capsys.readouterr().err


def test_penalties_of_the_main_loss_keep_real_and_generated_images_at_once(experiment):
    def image(*terms):
        narrow, wide = partial(R3Generator, 8, [8], latent_dim=8), partial(R3Discriminator, 8, [32])
        return footprint(experiment(generator=narrow, discriminator=wide, regularizers=terms)).image

    def own(term):
        return term(interval=1, own_step=False)

    assert 1.4 * image(R1()) < image(own(R1), own(R2)) < 2 * image(R1())
    assert image(BalancedConsistency()) > 1.5 * image()


def test_a_part_that_asks_for_values_is_one_line(experiment):
    class Asks(R1):
        def __call__(self, batch):
            return super().__call__(batch) * float(batch.images.mean())

    with pytest.raises(UserError, match="memory cannot be counted: .* asks for the value of a tensor"):
        footprint(experiment(regularizers=[Asks()]))
