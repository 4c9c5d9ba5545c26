"""The counted memory of an iteration is that of a real one."""

from functools import partial

import pytest
import torch

from plugins.regularizers.gradient_penalty import R1, R2
from plugins.systems.r3gan.discriminator import R3Discriminator
from plugins.systems.r3gan.generator import R3Generator
from stylenat.commands.run import main
from stylenat.training.footprint import COUNTED, Footprint, footprint
from stylenat.training.live_memory import LiveMemory
from stylenat.training.state import TrainingState


def test_the_count_without_data_is_that_of_real_tensors(experiment):
    settings = experiment(regularizers=[])  # The generator's step needs most.
    state = TrainingState(settings, torch.device("cpu"))
    with LiveMemory() as memory:
        state.discriminator.requires_grad_(False)
        loss = state.discriminator(state.generator(torch.zeros(COUNTED, 8))).sum()
        before = memory.live
        loss.backward()
    made = sum(p.grad.nbytes for p in state.generator.parameters())
    assert footprint(settings).image == pytest.approx(max(before, memory.peak - made) / COUNTED, rel=0.1)


def test_recomputation_needs_less_and_the_rest_does_not_depend_on_it(experiment):
    plain, recomputed = footprint(experiment()), footprint(experiment(), recompute=True)
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
    narrow, wide = partial(R3Generator, 8, [8], latent_dim=8), partial(R3Discriminator, 8, [32])
    lazy = footprint(experiment(generator=narrow, discriminator=wide, regularizers=[R1()]))
    terms = [R1(interval=1, own_step=False), R2(interval=1, own_step=False)]
    both = footprint(experiment(generator=narrow, discriminator=wide, regularizers=terms))
    assert 1.4 * lazy.image < both.image < 2 * lazy.image  # The gradients' size does not depend on the images.
