"""GAN training written a second time, from the papers, for comparison with ``stylenat.training``.

It uses no loss, regularizer, optimizer, schedule, average or recipe of the product. Networks, augmentation transforms
and the naming of the random streams are the product's. A batch is never divided.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from stylenat.draws import Shard, ShardGenerator, derived_seed

BATCH = 8
Batch = tuple[Tensor, Tensor | None]
"""Real images and their labels."""
Inputs = tuple[Tensor, Tensor | None, dict[str, Tensor]]
"""A generator's: latents, labels, noise by name."""


@dataclass(kw_only=True)
class Plan:
    """An experiment. Numbers that move are functions of the iteration, counted from 0."""

    d_loss: Callable = lambda real, fake: (softplus(-real) + softplus(fake)).mean()
    g_loss: Callable = lambda real, fake: softplus(-fake).mean()
    paired: bool = False  # whether g_loss uses the real logits
    joint: bool = False  # both gradients at the same weights, then G's step, then D's
    share_fakes: bool = False
    generator_images: bool = False
    g_rate: Callable[[int], float] = lambda i: 1e-3
    d_rate: Callable[[int], float] = lambda i: 2e-3
    g_betas: Callable[[int], tuple[float, float]] = lambda i: (0.0, 0.99)
    d_betas: Callable[[int], tuple[float, float]] = lambda i: (0.0, 0.99)
    g_weight_decay: float = 0.0
    lazy: int | None = 3  # R1 in a step of its own, every so many iterations
    penalties: int | None = None  # R1 and R2 in the main loss, every so many iterations
    g_lazy: int | None = None  # 3 * E[G(z)²] in a step of the generator's own, every so many iterations
    gamma: Callable[[int], float] = lambda i: 10.0
    consistency: Callable | None = None  # the transform T
    clip: float = float("inf")
    averages: dict[str, Callable[[int], float]] = field(default_factory=dict)  # decays
    class_counts: tuple[int, ...] = ()  # of the data, in a conditional experiment
    augment: Callable = lambda p: lambda images, random: images
    p: float = 0.0
    target: float = 0.0
    adapt_every: int = 2
    images_to_full: float = float("inf")


class Adam:
    """arXiv 1412.6980, algorithm 1; ``weight_decay`` as in arXiv 1711.05101, algorithm 2."""

    def __init__(self, network: nn.Module, weight_decay: float = 0.0) -> None:
        self.parameters, self.weight_decay = list(network.parameters()), weight_decay
        self.moments = [[0, torch.zeros_like(p), torch.zeros_like(p)] for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: list[Tensor | None], rate: float, betas: tuple[float, float]) -> None:
        b1, b2 = betas
        for p, g, moments in zip(self.parameters, gradients, self.moments, strict=True):
            if g is None:  # The loss does not depend on it.
                continue
            t, m, v = moments[0] + 1, b1 * moments[1] + (1 - b1) * g, b2 * moments[2] + (1 - b2) * g * g
            moments[:] = t, m, v
            p *= 1 - rate * self.weight_decay
            p -= rate * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + 1e-8)


class PlainTraining:
    """Networks, averages and p; ``iteration`` moves them."""

    def __init__(self, plan: Plan, generator: nn.Module, discriminator: nn.Module, seed: int = 0) -> None:
        self.plan, self.p, self.signs, self.r_t = plan, plan.p, [], 0.0
        self.generator, self.discriminator = copy.deepcopy(generator), copy.deepcopy(discriminator)
        self.averages = {name: copy.deepcopy(generator) for name in plan.averages}
        self.g_adam, self.d_adam = Adam(self.generator, plan.g_weight_decay), Adam(self.discriminator)
        names = ("latents", "network", "labels", "augmentation", "regularization")
        self.streams = {name: torch.Generator().manual_seed(derived_seed(seed, name)) for name in names}

    def iteration(self, i: int, images: Iterator[Batch]) -> dict[str, float]:
        """Returns what is tracked."""
        plan, real = self.plan, next(images)
        inputs = self.inputs(real)
        if plan.joint:
            of_g, of_d = self.generator_loss(real, inputs), self.discriminator_loss(i, real, inputs)
            of_g, of_d = gradients(of_g, self.generator), gradients(of_d, self.discriminator)
            tracked = self.generator_step(i, *of_g) | self.discriminator_step(i, *of_d)
            tracked |= self.lazy_r1_step(i, real) | self.lazy_generator_step(i, inputs)
        else:
            of_d = gradients(self.discriminator_loss(i, real, inputs), self.discriminator)
            tracked = self.discriminator_step(i, *of_d) | self.lazy_r1_step(i, real)
            real = next(images) if plan.generator_images else real
            inputs = inputs if plan.share_fakes else self.inputs(real)
            tracked |= self.generator_step(i, *gradients(self.generator_loss(real, inputs), self.generator))
            tracked |= self.lazy_generator_step(i, inputs)
        for name, decay in plan.averages.items():
            average = self.averages[name].state_dict()
            for key, value in self.generator.state_dict().items():  # Averages of weights, copies of buffers.
                kept = decay(i) if key in dict(self.generator.named_parameters()) else 0.0
                average[key].copy_(kept * average[key] + (1 - kept) * value)
        return tracked | {"augmentation/p": self.p, "augmentation/r_t": self.r_t}

    def discriminator_loss(self, i: int, real: Batch, inputs: Inputs) -> tuple[Tensor, dict]:
        plan, random, fake = self.plan, self.call("regularization"), self.fakes(inputs).detach()
        (real, labels), fake_labels = real, inputs[1]
        real, fake = real.clone().requires_grad_(), fake.requires_grad_()
        on_fake, on_real = self.logits(fake, fake_labels), self.logits(real, labels)
        loss = plan.d_loss(on_real, on_fake)
        tracked = {"loss/discriminator": loss, "logits/real": on_real.mean(), "logits/fake": on_fake.mean()}
        self.signs.append(float(on_real.detach().sign().mean()))
        terms = {}
        if plan.penalties is not None and i % plan.penalties == 0:  # R3GAN: gamma / 2 * E|grad D|² on both
            terms = {"r1": penalty(on_real, real), "r2": penalty(on_fake, fake)}
            terms = {name: plan.gamma(i) / 2 * plan.penalties * value for name, value in terms.items()}
        if plan.consistency is not None:  # arXiv 2002.04724, both weights 10
            on_changed = self.logits(plan.consistency(fake.detach(), random), fake_labels)
            of_fake = (on_changed - on_fake).square().mean()
            on_changed = self.logits(plan.consistency(real.detach(), random), labels)
            of_real = (on_changed - on_real).square().mean()
            terms["bcr"] = 10 * of_fake + 10 * of_real
        return sum(terms.values(), loss), tracked | {f"regularizer/{name}": value for name, value in terms.items()}

    def generator_loss(self, real: Batch, inputs: Inputs) -> tuple[Tensor, dict]:
        self.call("regularization")
        on_fake = self.logits(self.fakes(inputs), inputs[1])
        loss = self.plan.g_loss(self.logits(*real) if self.plan.paired else None, on_fake)
        return loss, {"loss/generator": loss}

    def discriminator_step(self, i: int, found: list[Tensor | None], tracked: dict) -> dict:
        norm = total_norm(found)
        clipped = [g if g is None else g * min(1.0, self.plan.clip / (norm + 1e-6)) for g in found]
        self.lazily_corrected_step(i, clipped)
        self.adapt()
        return tracked | {"gradient_norm/discriminator": norm}

    def lazy_r1_step(self, i: int, real: Batch) -> dict:
        """StyleGAN2, section 3.1: every k iterations, k times as strong; not clipped."""
        every = self.plan.lazy
        if every is None or i % every != 0:
            return {}
        self.call("regularization")
        images = real[0].clone().requires_grad_()
        term = self.plan.gamma(i) / 2 * every * penalty(self.logits(images, real[1]), images)
        found, _ = gradients((term, {}), self.discriminator)
        self.lazily_corrected_step(i, found)
        return {"regularizer/r1": float(term.detach()), "gradient_norm/r1": total_norm(found)}

    def lazily_corrected_step(self, i: int, found: list[Tensor | None]) -> None:
        self.d_adam.step(found, *lazily_corrected(self.plan.lazy, self.plan.d_rate(i), self.plan.d_betas(i)))

    def generator_step(self, i: int, found: list[Tensor | None], tracked: dict, name: str = "generator") -> dict:
        self.g_adam.step(found, *lazily_corrected(self.plan.g_lazy, self.plan.g_rate(i), self.plan.g_betas(i)))
        return tracked | {f"gradient_norm/{name}": total_norm(found)}

    def lazy_generator_step(self, i: int, inputs: Inputs) -> dict:
        """A stand-in for StyleGAN2's path lengths."""
        every = self.plan.g_lazy
        if every is None or i % every != 0:
            return {}
        self.call("regularization")
        term = 3 * every * self.fakes(inputs).square().mean()
        found = gradients((term, {"regularizer/size": term}), self.generator)
        return self.generator_step(i, *found, name="size")

    def adapt(self) -> None:
        """StyleGAN2-ADA, section 3.2: r_t is the mean sign of the real logits."""
        if len(self.signs) == self.plan.adapt_every:
            self.r_t = sum(self.signs) / len(self.signs)
            direction = float(torch.tensor(self.r_t - self.plan.target).sign())
            step = direction * len(self.signs) * BATCH / self.plan.images_to_full
            self.p = min(max(self.p + step, 0.0), 1.0)
            self.signs = []

    def inputs(self, real: Batch) -> Inputs:
        """Latents; classes as often as in the data, of a pair one; the noise that the generator declares."""
        latents = torch.randn(BATCH, self.generator.latent_dim, generator=self.streams["latents"])
        shapes = {name: draw.shape for name, draw in self.generator.draws.items()}
        noise = {name: torch.randn(BATCH, *shape, generator=self.streams["network"]) for name, shape in shapes.items()}
        labels, counts = None, self.plan.class_counts
        if counts:
            drawn = sum(counts) * torch.rand(BATCH, generator=self.streams["labels"], dtype=torch.float64)
            first = [sum(counts[:k]) for k in range(len(counts))]  # Class k has the numbers from there on.
            numbers = [max(k for k, start in enumerate(first) if start <= place) for place in drawn.tolist()]
            labels = real[1] if self.plan.paired else torch.eye(len(counts), dtype=torch.double)[numbers]
        return latents.double(), labels, {name: tensor.double() for name, tensor in noise.items()}

    def fakes(self, inputs: Inputs) -> Tensor:
        latents, labels, noise = inputs
        return self.generator(latents, labels, **noise)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return self.discriminator(self.plan.augment(self.p)(images, self.call("augmentation")), labels)

    def call(self, stream: str) -> torch.Generator:
        """Every call of a term or of the augmentation moves its stream by one number."""
        return ShardGenerator(int(torch.randint(2**63 - 1, (), generator=self.streams[stream])), Shard())


def lazily_corrected(every: int | None, rate: float, betas: tuple[float, float]) -> tuple[float, tuple[float, float]]:
    """StyleGAN2, appendix B: with steps of its own every k iterations, c = k / (k + 1) times the rate, betas to the
    power of c."""
    c = 1.0 if every is None else every / (every + 1)
    return c * rate, (betas[0] ** c, betas[1] ** c)


def penalty(logits: Tensor, images: Tensor) -> Tensor:
    """E|grad D|², over images."""
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return slope.square().sum(dim=(1, 2, 3)).mean()


def gradients(found: tuple[Tensor, dict], network: nn.Module) -> tuple[list[Tensor | None], dict]:
    loss, tracked = found
    values = {name: float(value.detach()) for name, value in tracked.items()}
    return list(torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)), values


def total_norm(found: list[Tensor | None]) -> float:
    return float(sum(g.square().sum() for g in found if g is not None)) ** 0.5
