"""Recipes that cannot be carried out are refused with what is wrong."""

import pytest
import torch

from plugins.regularizers.gradient_penalty import R1
from registry import UserError
from stylenat.interfaces import Phase, Step
from stylenat.networks.notes import notes
from stylenat.training.state import TrainingState
from stylenat.training.step import Alternating, iteration, lazy_steps, main_phase, scalar, steps_of

R1_LAZY, D, G = R1(interval=4), main_phase("discriminator", []), main_phase("generator", [])


class Given:
    def __init__(self, *steps):
        self._steps = steps

    def steps(self, regularizers):
        return self._steps


FIRST = Step((D,), new_images=True, new_latents=True)
LATE = Phase("r1", "discriminator", False, (R1_LAZY,))
LAZY = lazy_steps("discriminator", [R1_LAZY])


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((FIRST, Step((G,))), "no step with the regularizer 'r1'"),
        ((FIRST, *LAZY), "no step with the generator's adversarial loss"),
        ((Step((D,)), *LAZY, Step((G,))), "its first step must take new images and new latents"),
        ((), "no step with the regularizer"),
        ((FIRST, *LAZY, Step((G, G))), "two phases of one network"),
        ((FIRST, Step((LATE,), interval=2), Step((G,))), "no term .* is due"),
    ],
)  # fmt: skip
def test_a_recipe_that_leaves_something_out_is_refused(steps, said):
    with pytest.raises(UserError, match=said):
        steps_of(Given(*steps), [R1_LAZY])


def test_a_term_that_reuses_logits_needs_the_step_that_has_them():
    wrong = R1(interval=1)
    wrong.reuses_logits = True
    with pytest.raises(UserError, match="reuses the logits"):
        steps_of(Alternating(), [wrong])
    assert steps_of(Alternating(), [R1(interval=1, own_step=False)])


def test_fakes_of_one_batchs_labels_are_not_paired_with_another_batch():
    with pytest.raises(UserError, match="not both"):
        Alternating(share_fakes=True, generator_images=True)


@pytest.mark.parametrize(("value", "found"), [(torch.zeros(4, 1), r"a tensor of shape \[4, 1\]"), (0.5, "float")])
def test_a_loss_that_is_no_scalar_is_named(value, found):
    with pytest.raises(UserError, match=rf"R1.generator\(\) of train.loss returned {found}; return a scalar"):
        scalar(R1_LAZY, "generator", value)
    assert scalar(R1_LAZY, "generator", torch.ones(())) == 1


class Later:
    """A term with a step of its own that is a constant for two iterations."""

    name, network, interval, own_step, second_order = "later", "generator", 1, True, False

    def __call__(self, batch):
        if batch.time.iteration < 2:
            return torch.zeros(())
        return sum(p.square().sum() for p in batch.generator.parameters())


def test_a_phase_whose_terms_are_constants_makes_no_step(experiment):
    state = TrainingState(experiment(regularizers=[Later()]), torch.device("cpu"))
    steps, named = [], []
    for number in range(3):
        scalars = iteration(state, iter([(torch.randn(8, 3, 8, 8), None)]))
        state.step += 1
        moments = state.optimizers["generator"].state_dict()["state"].values()
        steps.append(max(int(moment["step"]) for moment in moments))
        named.append("gradient_norm/later" in scalars)
        assert float(scalars["regularizer/later"]) >= 0, number
    assert steps == [1, 2, 4] and named == [False, False, True]


def test_notes_of_modules_are_listed_once():
    noted = [torch.nn.Identity() for _ in range(3)]
    noted[0].note = noted[1].note = "its weights are random"
    assert notes(torch.nn.Sequential(*noted), noted[1]) == ["its weights are random"]
