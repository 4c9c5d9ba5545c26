"""Losses of two real and two fake logits, by hand."""

import math

import pytest
import torch

from plugins.losses.adversarial import Hinge, NonSaturating, Wasserstein

REAL, FAKE = torch.tensor([[2.0], [0.5]]), torch.tensor([[-3.0], [1.0]])


def softplus(x):
    return math.log(1 + math.exp(x))


@pytest.mark.parametrize(
    "loss, discriminator, generator",
    [
        # -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))); -log sigmoid(D(G(z))).
        (
            NonSaturating(),
            (softplus(-2.0) + softplus(-0.5) + softplus(-3.0) + softplus(1.0)) / 2,
            (softplus(3.0) + softplus(-1.0)) / 2,
        ),
        # max(0, 1 - D(x)) is 0 and 0.5; max(0, 1 + D(G(z))) is 0 and 2.
        (Hinge(), 0.25 + 1.0, 1.0),
        # The critic is higher on reals: E D(G(z)) - E D(x) = -1 - 1.25.
        (Wasserstein(), -2.25, 1.0),
    ],
)
def test_a_loss_is_its_papers(loss, discriminator, generator):
    assert float(loss.discriminator(REAL, FAKE)) == pytest.approx(discriminator)
    assert float(loss.generator(FAKE)) == pytest.approx(generator)
