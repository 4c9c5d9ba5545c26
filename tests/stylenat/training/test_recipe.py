"""The three steps against the recipe, written down once more straight from the papers, in float64."""

import copy

import pytest
import torch
from torch.nn import functional as F

from plugins.blocks.hydra import HydraBlock
from plugins.losses.adversarial import NonSaturating
from plugins.partitions.split import Split
from plugins.regularizers.bcr import BalancedConsistency
from plugins.regularizers.r1 import R1
from stylenat.interfaces import StepContext
from stylenat.networks.discriminator import WaveletDiscriminator
from stylenat.networks.generator import StyleGenerator
from stylenat.training.steps import (
    adam,
    descend,
    discriminator_loss,
    frozen,
    generator_loss,
    lazy_ratio,
    regularizer_loss,
)

BATCH, LATENT = 4, 16


def networks():
    torch.manual_seed(3)
    generator = StyleGenerator(
        resolution=16,
        block=lambda **site: HydraBlock(partition=Split(3), **site),
        channels=[32, 16, 16],
        latent_dim=LATENT,
        style_dim=LATENT,
        mapping_layers=2,
        min_heads=2,
        to_rgb_gain=1.0,
    )
    return generator.double(), WaveletDiscriminator(resolution=16, channels=[16, 8]).double()


class Adam:
    """arXiv 1412.6980, algorithm 1, with its default epsilon."""

    def __init__(self, parameters, rate, betas):
        self.parameters, self.rate, self.betas, self.t = list(parameters), rate, betas, 0
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients):
        self.t += 1
        (b1, b2), t = self.betas, self.t
        for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
            if g is None:  # Not reached by the loss.
                continue
            m.mul_(b1).add_((1 - b1) * g)
            v.mul_(b2).add_((1 - b2) * g * g)
            p -= self.rate * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + 1e-8)


def recipe(generator, discriminator, real, z_d, z_g, transformed, weight):
    """Yields after each of the three steps. ``transformed``: (fakes, reals) under T, or None for no consistency."""
    # Lazy R1 every 16 iterations: rate and betas of the discriminator to the power of 16 / 17.
    c = 16 / 17
    d_adam = Adam(discriminator.parameters(), 2e-4 * c, (0.0**c, 0.99**c))
    g_adam = Adam(generator.parameters(), 5e-5, (0.0, 0.99))

    # Discriminator: softplus(-D(real)) + softplus(D(fake)); fakes, then reals, then their transforms, each apart.
    fake = generator(z_d).detach()
    on_fake, on_real = discriminator(fake), discriminator(real)
    loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
    if transformed is not None:
        t_fake, t_real = transformed(fake, real)
        loss = loss + weight * ((discriminator(t_fake) - on_fake) ** 2).mean()
        loss = loss + weight * ((discriminator(t_real) - on_real) ** 2).mean()
    gradients = torch.autograd.grad(loss, list(discriminator.parameters()), allow_unused=True)
    norm = torch.sqrt(sum((g**2).sum() for g in gradients if g is not None))
    scale = min(1.0, 5.0 / (float(norm) + 1e-6))
    d_adam.step([None if g is None else g * scale for g in gradients])
    yield

    # R1: r1 / 2 * E|grad D(x)|² * 16, a step of its own, unclipped.
    x = real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    penalty = 10 / 2 * (slope**2).sum(dim=(1, 2, 3)).mean() * 16
    d_adam.step(torch.autograd.grad(penalty, list(discriminator.parameters()), allow_unused=True))
    yield

    # Generator: softplus(-D(G(z))).
    loss = F.softplus(-discriminator(generator(z_g))).mean()
    g_adam.step(torch.autograd.grad(loss, list(generator.parameters()), allow_unused=True))
    yield


@pytest.mark.parametrize("consistency", [False, True])
def test_three_steps_move_every_parameter_as_the_recipe_does(consistency):
    generator, discriminator = networks()
    pair = copy.deepcopy(generator), copy.deepcopy(discriminator)
    random = torch.Generator().manual_seed(5)
    real = torch.randn(BATCH, 3, 16, 16, generator=random, dtype=torch.double)
    z_d, z_g = (torch.randn(BATCH, LATENT, generator=random, dtype=torch.double) for _ in range(2))
    bcr, r1, loss = BalancedConsistency(), R1(gamma=10.0, interval=16), NonSaturating()

    def transformed(fake, real):
        draws = torch.Generator().manual_seed(7)
        return bcr.transform(fake, draws), bcr.transform(real, draws)

    reference = recipe(*pair, real, z_d, z_g, transformed if consistency else None, 10.0)

    regularizers = [r1, bcr] if consistency else [r1]
    d_adam = adam(discriminator, 2e-4, (0.0, 0.99), lazy_ratio(regularizers, "discriminator"))
    g_adam = adam(generator, 5e-5, (0.0, 0.99), lazy_ratio(regularizers, "generator"))
    draws = torch.Generator().manual_seed(7)

    def context(**tensors):
        return StepContext(generator, discriminator, discriminator, draws, **tensors)

    before = copy.deepcopy(generator.state_dict()) | copy.deepcopy(discriminator.state_dict())

    def same():
        next(reference)
        for ours, theirs in zip((generator, discriminator), pair, strict=True):
            for key, value in ours.state_dict().items():
                torch.testing.assert_close(value, theirs.state_dict()[key], rtol=1e-9, atol=1e-9)

    with torch.no_grad():
        fake = generator(z_d)
    terms = [bcr] if consistency else []
    descend("discriminator", d_adam, [discriminator_loss(loss, terms, context(real=real, fake=fake))], clip=5.0)
    same()
    descend("r1", d_adam, [regularizer_loss(r1, context(real=real))])
    same()
    with frozen(discriminator):
        descend("generator", g_adam, [generator_loss(loss, [], context(fake=generator(z_g), latents=z_g))])
    same()
    after = generator.state_dict() | discriminator.state_dict()
    moved = [not torch.equal(after[key], before[key]) for key in before]
    assert sum(moved) > 0.9 * len(moved)  # The comparison is of steps, not of standing still.
