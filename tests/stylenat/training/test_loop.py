"""What the loop does around iterations: the images it shows, roll-backs, what it saves, samples and measures.

Iterations are replaced by functions that note what they are given.
"""

import copy
import os
import signal
from unittest.mock import Mock

import pytest
import torch

from plugins.augmentations.none import NoAugmentation
from plugins.losses.adversarial import NonSaturating
from plugins.regularizers.gradient_penalty import R1
from stylenat import checkpoint
from stylenat.evaluation.evaluate import Evaluation
from stylenat.training import loop
from stylenat.training.average import Exponential, NoAverage
from stylenat.training.run import Run
from stylenat.training.state import TrainingState
from stylenat.training.step import Alternating

CPU = torch.device("cpu")


@pytest.fixture
def settings(experiment):
    """Called with what should be otherwise, it gives settings without anything slow."""
    quick = dict(regularizers=[], augmentation=NoAugmentation(), iterations=6, sample_count=2, seed=1)
    return lambda **changed: experiment(**(quick | changed))


@pytest.fixture
def train(tmp_path, monkeypatch):
    """``train(settings, iteration)``: how it ended, and its state, with checkpoints in ``tmp_path``."""

    def train(settings, iteration):
        monkeypatch.setattr(loop, "iteration", iteration)
        (tmp_path / "samples").mkdir(exist_ok=True)
        state = TrainingState(settings, CPU)
        run = Run("run", "test", tmp_path, settings.iterations, settings.batch_size, "", {}, {})
        status, _ = loop.train(settings, state, run, Mock())
        return status, state

    return train


def next_images(state, images):
    real, _ = next(images)
    state.drawn += state.settings.batch_size
    return real.clone()


class OneSided:
    """Images that are dark on the left and light on the right."""

    resolution = 8

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return (255 * (torch.arange(8) >= 4)).to(torch.uint8).expand(3, 8, 8)


@pytest.mark.parametrize("flips", [True, False])
def test_real_images_are_mirrored_with_one_half_or_not_at_all(settings, train, flips):
    mirrored = []

    def iteration(state, images):
        real = next_images(state, images)
        mirrored.extend((real[:, 0, 0, 0] > real[:, 0, 0, 7]).tolist())
        return {}

    train(settings(dataset=OneSided(), horizontal_flips=flips, iterations=10), iteration)
    assert len(mirrored) == 80
    assert 20 < sum(mirrored) < 60 if flips else not any(mirrored)


def test_a_roll_back_repeats_the_images_with_other_noise_and_is_remembered(settings, train, tmp_path):
    seen = []

    def iteration(state, images):
        noise = torch.randn(3, generator=state.streams["latents"])
        seen.append((state.step, state.guard.roll_backs, next_images(state, images), noise))
        bad = state.step >= 3 and state.guard.roll_backs == 0
        return {"skipped/discriminator": torch.tensor(float(bad))}

    changed = dict(checkpoint_every=2, max_skipped=2)
    _, state = train(settings(**changed), iteration)
    assert [(step, roll_backs) for step, roll_backs, *_ in seen] == [
        (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (2, 1), (3, 1), (4, 1), (5, 1)
    ]  # fmt: skip
    before, after = ({step: rest for step, n, *rest in seen if n == count} for count in (0, 1))
    for step in (2, 3, 4):
        assert torch.equal(before[step][0], after[step][0]) and not torch.equal(before[step][1], after[step][1])
    assert not torch.equal(after[2][0], after[3][0])

    resumed = TrainingState(settings(**changed), CPU)
    resumed.restore(checkpoint.found(tmp_path / "checkpoints")[-1])
    assert resumed.guard.roll_backs == 1 and resumed.guard.skipped == {"discriminator": 2}
    for name in ("latents", "not drawn from before"):  # Streams that begin later are the roll-back's, too.
        ours, theirs = (torch.randn(3, generator=one.streams[name]) for one in (resumed, state))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_weights_that_are_not_finite_are_not_saved_when_a_run_is_stopped(settings, train, tmp_path, capsys, network):
    def iteration(state, images):
        if state.step == 3:
            with torch.no_grad():
                next(getattr(state, network).parameters()).fill_(float("nan"))
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    status, state = train(settings(checkpoint_every=3), iteration)
    assert status == "stopped" and state.step == 4
    assert [path.name for path in checkpoint.found(tmp_path / "checkpoints")] == ["step-000000003"]
    assert f"the weights of {network} are no longer finite" in capsys.readouterr().err


def remembering(part):
    """The part's class with a state."""

    class Remembering(type(part)):
        def state_dict(self):
            return {"calls": self.calls}

        def load_state_dict(self, state):
            self.calls = state["calls"]

    Remembering.__qualname__ = type(part).__qualname__
    made = copy.copy(part)
    made.__class__, made.calls = Remembering, 0
    return made


def test_what_a_plugin_remembers_is_restored(settings):
    def with_memory():
        return settings(
            loss=remembering(NonSaturating()),
            regularizers=[remembering(R1())],
            recipe=remembering(Alternating()),
            average=remembering(Exponential()),
            augmentation=remembering(NoAugmentation()),
        )

    state, resumed = (TrainingState(with_memory(), CPU) for _ in range(2))

    def parts(state):
        own = state.settings
        return [own.loss, *own.regularizers, own.recipe, own.average, own.augmentation]

    for calls, part in enumerate(parts(state), 1):
        part.calls = calls
    resumed.load_state_dict(copy.deepcopy(state.state_dict()))
    assert [part.calls for part in parts(resumed)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("average", [Exponential(), NoAverage()])
def test_samples_and_metrics_are_the_averages_truncated_as_the_settings_say(settings, average):
    own = settings(average=average, truncation_psi=0.5)
    state = TrainingState(own, CPU)
    with torch.no_grad():
        for parameter in state.generator.mapping.parameters():
            parameter.mul_(2)
    sampled = state.averages["ema"] if state.averages else state.generator
    sampler = loop.sampler(own, state)
    latents = sampler.latents(0, 5)
    w = sampled.mapping(latents)
    centre = sampler.styles(latents) - 0.5 * w  # Of psi = 1/2: centre + (w - centre) / 2.
    torch.testing.assert_close(centre, centre[:1].expand_as(centre))
    random = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(2 * centre[0], sampled.mapping(random).mean(dim=0), rtol=0.1, atol=0.05)
    assert sampler.generator is sampled


@pytest.mark.parametrize("better, best", [("higher", 2), ("lower", 3)])
def test_the_best_of_a_metric_is_its_highest_or_lowest_value(settings, better, best):
    state = TrainingState(settings(), CPU)
    for state.step, value in enumerate([0.3, 0.7, 0.1, 0.5, float("nan")], 1):
        state.note_metrics(Evaluation({"m": value}, {}, {}, {"metrics": {"m": {"better": better}}}))
    assert state.best_steps == {"m": best} and state.best == {"m": {"higher": 0.7, "lower": 0.1}[better]}
