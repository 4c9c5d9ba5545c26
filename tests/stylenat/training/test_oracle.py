"""Iterations against ``plain_training``, written a second time from the papers: float64, 20 of them, to 1e-9."""

import math

import pytest
import torch
from plain_training import BATCH, PlainTraining, Plan
from torch import nn
from torch.nn.functional import softplus

from plugins.augmentations.ada import AdaptiveAugmentation
from plugins.augmentations.bcr import BalancedConsistencyTransforms
from plugins.augmentations.none import NoAugmentation
from plugins.averages.power import Power
from plugins.losses.adversarial import NonSaturating
from plugins.regularizers.bcr import BalancedConsistency
from plugins.regularizers.gradient_penalty import R1, R2
from plugins.schedules.schedules import Cosine, LinearDecay, Warmup
from stylenat.classes import Classes
from stylenat.draws import Draw
from stylenat.networks.layers import EqualLinear, leaky_relu
from stylenat.networks.spectral_norm import SpectralNorm
from stylenat.training.average import Exponential, NoAverage
from stylenat.training.optimizers import Adam, AdamW
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.step import Alternating, Joint, iteration

ITERATIONS = 20


class SmallGenerator(nn.Module):
    """Declares noise, and keeps a buffer that follows its weights."""

    resolution, latent_dim = 8, 6
    draws = {"noise": Draw((3, 8, 8))}

    def __init__(self, num_classes=0):
        super().__init__()
        self.layers = nn.ModuleList([EqualLinear(6 + num_classes, 8), EqualLinear(8, 3 * 64)])
        self.strength = nn.Parameter(torch.tensor(0.1))
        self.register_buffer("size", torch.zeros(()))

    def forward(self, latents, labels=None, *, noise):
        latents = latents if labels is None else torch.cat([latents, labels], dim=1)
        self.size = self.layers[0].weight.detach().norm()
        first, last = self.layers
        return last(leaky_relu(first(latents))).view(-1, 3, 8, 8) + self.strength * noise


class Size:
    """``3 * interval * E[G(z)²]``, in a step of the generator's own."""

    name, network, own_step, interval = "size", "generator", True, 4

    def __call__(self, batch):
        fake = batch.generator(batch.latents, batch.fake_labels, **batch.draws)
        return 3 * self.interval * fake.square().mean()


class SmallDiscriminator(nn.Module):
    """Under spectral norm, whose vectors move with every call."""

    resolution = 8

    def __init__(self, num_classes=0):
        super().__init__()
        inputs = 3 * 64 + num_classes
        self.weights = nn.ModuleList([SpectralNorm(torch.randn(12, inputs)), SpectralNorm(torch.randn(1, 12))])
        self.bias = nn.Parameter(torch.zeros(12))
        self.logit_bias = nn.Parameter(torch.zeros(1))

    def forward(self, images, labels=None):
        first, last = self.weights
        inputs = images.flatten(1) if labels is None else torch.cat([images.flatten(1), labels], dim=1)
        hidden = leaky_relu(inputs @ first().T + self.bias)
        return hidden @ last().T + self.logit_bias


class Relativistic:
    """R3GAN's loss (arXiv 2501.05441, equation 2 with f = -softplus(-t))."""

    paired = True

    def discriminator(self, real_logits, fake_logits):
        return softplus(fake_logits - real_logits).mean()

    def generator(self, fake_logits, real_logits):
        return softplus(real_logits - fake_logits).mean()


RELATIVISTIC = dict(
    d_loss=lambda real, fake: softplus(-(real - fake)).mean(),
    g_loss=lambda real, fake: softplus(-(fake - real)).mean(),
    paired=True,
)


def cosine(start, end, images):
    """R3GAN: from start to end over so many images, by iteration."""
    return lambda i: end + (start - end) * (1 + math.cos(math.pi * min(BATCH * i / images, 1))) / 2


def ada(**options):
    return AdaptiveAugmentation(preset="bgc", initial_p=0.6, interval=2, images_to_full=160, target=0.0, **options)


def halving(images, rampup=None):
    """Of an average: the half-life is at most ``rampup`` times the images seen before the iteration."""

    def decay(i):
        half_life = images if rampup is None else min(images, rampup * BATCH * i)
        return 0.5 ** (BATCH / half_life) if half_life else 0.0

    return {"ema": decay}


def profile(deviation):
    """EDM2, equation 2, the exponent found by bisection of its relative deviation (equation 126)."""
    low, high = 0.0, 1e4
    for _ in range(200):
        gamma = (low + high) / 2
        wide = math.sqrt((gamma + 1) / (gamma + 2) ** 2 / (gamma + 3)) > deviation
        low, high = (gamma, high) if wide else (low, gamma)
    return lambda i: (1 - 1 / (i + 1)) ** (gamma + 1)


ADA = dict(augment=lambda p: AdaptiveAugmentation("bgc", initial_p=p, policy="fixed"), p=0.6, images_to_full=160)
STYLENAT = dict(
    regularizers=[R1(gamma=10, interval=3), BalancedConsistency()],
    learning_rate_schedule=LinearDecay(start=8),
    average=Exponential(half_life=50),
    discriminator_clip=0.5,
)
PLAIN_STYLENAT = dict(
    consistency=BalancedConsistencyTransforms(),
    g_rate=lambda i: 1e-3 * min(1, (20 - i) / 12),
    d_rate=lambda i: 2e-3 * min(1, (20 - i) / 12),
    averages=halving(50),
    clip=0.5,
)
CONDITIONAL = dict(generator=lambda: SmallGenerator(3), discriminator=lambda: SmallDiscriminator(3))
IN_MAIN_LOSS = [R1(gamma=2, interval=2, own_step=False), R2(gamma=2, interval=2, own_step=False)]

CASES = {
    "StyleNAT": (dict(**STYLENAT, augmentation=NoAugmentation()), PLAIN_STYLENAT),
    "StyleNAT with ADA in two microbatches": (STYLENAT | dict(accumulate=2), PLAIN_STYLENAT | ADA),
    "three classes in two microbatches": (
        dict(CONDITIONAL, regularizers=[Size(), R1(interval=3), BalancedConsistency()], accumulate=2),
        dict(class_counts=(5, 2, 1), consistency=BalancedConsistencyTransforms(), g_lazy=4, averages=halving(10_000))
        | ADA,
    ),
    "three classes in pairs": (
        dict(CONDITIONAL, loss=Relativistic(), recipe=Joint(), regularizers=[R1(interval=3)]),
        dict(class_counts=(5, 2, 1), joint=True, averages=halving(10_000)) | RELATIVISTIC | ADA,
    ),
    "shared fakes": (
        dict(recipe=Alternating(share_fakes=True), average=Exponential(half_life=50, rampup=0.4)),
        dict(share_fakes=True, averages=halving(50, rampup=0.4), lazy=None) | ADA,
    ),
    "shared fakes in two microbatches": (
        dict(recipe=Alternating(share_fakes=True), accumulate=2, regularizers=[R1(interval=2)]),
        dict(share_fakes=True, lazy=2, averages=halving(10_000)) | ADA,
    ),
    "joint": (STYLENAT | dict(recipe=Joint()), PLAIN_STYLENAT | dict(joint=True) | ADA),
    "joint in two microbatches": (
        dict(recipe=Joint(), accumulate=2, regularizers=[Size(), R1(interval=3)], average=NoAverage()),
        dict(joint=True, g_lazy=4) | ADA,
    ),
    "R3GAN": (
        dict(
            loss=Relativistic(),
            recipe=Alternating(generator_images=True),
            regularizers=[
                R1(gamma=Cosine(2, 0.2, 100), interval=1, own_step=False),
                R2(gamma=Cosine(2, 0.2, 100), interval=1, own_step=False),
            ],
            generator_learning_rate=Cosine(2e-3, 5e-4, 120),
            discriminator_optimizer=Adam(betas=(0.0, Cosine(0.9, 0.99, 80))),
            average=Exponential(half_life=Cosine(1, 100, 100)),
        ),
        dict(
            generator_images=True,
            lazy=None,
            penalties=1,
            gamma=cosine(2, 0.2, 100),
            g_rate=cosine(2e-3, 5e-4, 120),
            d_betas=lambda i: (0.0, cosine(0.9, 0.99, 80)(i)),
            averages={"ema": lambda i: 0.5 ** (BATCH / cosine(1, 100, 100)(i))},
        )
        | RELATIVISTIC
        | ADA,
    ),
    "R3GAN's terms beside consistency in two microbatches, jointly": (
        dict(
            loss=Relativistic(),
            recipe=Joint(),
            accumulate=2,
            regularizers=[*IN_MAIN_LOSS, BalancedConsistency()],
            discriminator_clip=0.2,
        ),
        dict(joint=True, lazy=None, penalties=2, gamma=lambda i: 2.0, averages=halving(10_000), clip=0.2)
        | dict(consistency=BalancedConsistencyTransforms())
        | RELATIVISTIC
        | ADA,
    ),
    "AdamW with warm-up, power averages, moving betas under lazy R1": (
        dict(
            regularizers=[Size(), R1(gamma=Cosine(20, 1, 100), interval=3)],
            learning_rate_schedule=Warmup(6, then=LinearDecay(10)),
            generator_optimizer=AdamW(betas=(0.5, Cosine(0.8, 0.95, 100)), weight_decay=0.1),
            discriminator_optimizer=Adam(betas=(0.3, Cosine(0.9, 0.99, 100))),
            average=Power([0.05, 0.1]),
        ),
        dict(
            g_lazy=4,
            gamma=cosine(20, 1, 100),
            g_rate=lambda i: 1e-3 * min(1, (i + 1) / 6) * min(1, (20 - i) / 10),
            d_rate=lambda i: 2e-3 * min(1, (i + 1) / 6) * min(1, (20 - i) / 10),
            g_betas=lambda i: (0.5, cosine(0.8, 0.95, 100)(i)),
            d_betas=lambda i: (0.3, cosine(0.9, 0.99, 100)(i)),
            g_weight_decay=0.1,
            averages={"ema": profile(0.05), "ema-0.100": profile(0.1)},
        )
        | ADA,
    ),
}


def make_settings(**changed):
    values = dict(
        generator=SmallGenerator,
        discriminator=SmallDiscriminator,
        loss=NonSaturating(),
        augmentation=ada(),
        dataset=SmallGenerator,  # Only its resolution is asked for.
        iterations=ITERATIONS,
        batch_size=BATCH,
        generator_learning_rate=1e-3,
        discriminator_learning_rate=2e-3,
        discriminator_clip=None,
    )
    return Training(**(values | changed))


def batches(counts):
    """Real images, and labels where there are classes."""
    random = torch.Generator().manual_seed(5)
    while True:
        images = torch.randn(BATCH, 3, 8, 8, generator=random, dtype=torch.double)
        numbers = torch.randint(max(len(counts), 1), (BATCH,), generator=random)
        yield images, torch.eye(len(counts), dtype=torch.double)[numbers] if counts else None


def assert_same(ours, theirs, where):
    assert ours.keys() == theirs.keys(), where
    for name, value in theirs.items():
        message = f"{where}, {name}: "
        torch.testing.assert_close(
            torch.as_tensor(ours[name], dtype=torch.double),
            torch.as_tensor(value, dtype=torch.double),
            rtol=1e-9, atol=1e-9, msg=lambda m, message=message: message + m,
        )  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_iterations_are_those_of_the_papers(case):
    changed, plan = CASES[case]
    state = TrainingState(make_settings(**changed), torch.device("cpu"))
    for network in state.networks().values():
        network.double()
    before = {name: p.detach().clone() for name, p in state.discriminator.named_parameters()}
    del before["logit_bias"]  # A relativistic loss does not depend on it.
    reference = PlainTraining(Plan(**plan), state.generator, state.discriminator)
    counts = reference.plan.class_counts
    state.classes = Classes(counts, tuple("abc")) if counts else None
    ours, theirs = batches(counts), batches(counts)
    strengths = set()
    for i in range(ITERATIONS):
        scalars = iteration(state, ours)
        state.step, state.images = state.step + 1, state.images + BATCH
        expected = reference.iteration(i, theirs)
        skipped = [float(scalars.pop(name)) for name in list(scalars) if name.startswith("skipped/")]
        assert skipped and not any(skipped)
        if isinstance(state.settings.augmentation, NoAugmentation):
            expected = {name: value for name, value in expected.items() if not name.startswith("augmentation/")}
        assert_same(scalars, expected, f"iteration {i}")
        networks = {"generator": reference.generator, "discriminator": reference.discriminator, **reference.averages}
        assert state.networks().keys() == networks.keys()
        for name, network in state.networks().items():
            assert_same(network.state_dict(), networks[name].state_dict(), f"iteration {i}, {name}")
        strengths.add(reference.p)
    # The comparison is of something: weights moved, and so did p.
    after = dict(state.discriminator.named_parameters())
    assert all(float((after[name].detach() - p).abs().max()) > 1e-6 for name, p in before.items())
    assert plan.keys().isdisjoint(ADA) or len(strengths) > 2


@pytest.mark.parametrize("share, passes", [(True, 1), (False, 2)])
def test_shared_fakes_are_made_once(share, passes):
    state = TrainingState(make_settings(recipe=Alternating(share_fakes=share)), torch.device("cpu"))
    made = []
    state.generator.register_forward_hook(lambda *_: made.append(1))
    iteration(state, ((real.float(), labels) for real, labels in batches(())))
    assert len(made) == passes
