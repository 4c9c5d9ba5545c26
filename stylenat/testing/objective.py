"""The contracts of kinds ``loss`` and ``regularizer``."""

import torch
from torch import Tensor, nn

from stylenat.interfaces import Loss, Regularizer, StepContext
from stylenat.testing.contract import noise, require, require_gradients, require_tensor, untouched


def check_loss(loss: Loss) -> None:
    """Checks both functions on ordinary and on extreme logits.

    Raises:
        ContractError: no scalar, a value or gradient that is not finite, a sum over the batch instead of a mean,
            a sign that trains a network the wrong way, inputs edited, randomness, or memory of earlier calls.
    """
    for scale in (1.0, 100.0):
        real, fake = (noise(8, 1, seed=i).mul(scale).requires_grad_() for i in (0, 1))
        with untouched(real_logits=real, fake_logits=fake):
            of_d, of_g = loss.discriminator(real, fake), loss.generator(fake)
            again = loss.discriminator(real, fake), loss.generator(fake)
        for name, value, inputs in (
            ("discriminator", of_d, {"real_logits": real, "fake_logits": fake}),
            ("generator", of_g, {"fake_logits": fake}),
        ):
            require_tensor(value, (), torch.float32, f"{name}(...) of logits of size {scale:g}")
            require_gradients(value, inputs)
        same = all(torch.equal(a, b) for a, b in zip((of_d, of_g), again, strict=True))
        require(same, "the same logits give another loss the second time; it must be a pure function")
        twice = (
            loss.discriminator(torch.cat([real, real]), torch.cat([fake, fake])),
            loss.generator(torch.cat([fake, fake])),
        )
        mean = all(torch.isclose(a, b, rtol=1e-4) for a, b in zip((of_d, of_g), twice, strict=True))
        require(mean, "the same logits twice over give another loss; it must be a mean over the batch")

    zero_real, zero_fake = torch.zeros(4, 1, requires_grad=True), torch.zeros(4, 1, requires_grad=True)
    d_real, d_fake = torch.autograd.grad(loss.discriminator(zero_real, zero_fake), (zero_real, zero_fake))
    (g_fake,) = torch.autograd.grad(loss.generator(zero_fake), zero_fake)
    require(bool(d_real.sum() < 0), "discriminator(...) must fall as real logits rise: logits are high for real")
    require(bool(d_fake.sum() > 0), "discriminator(...) must rise with fake logits: logits are low for fake")
    require(bool(g_fake.sum() < 0), "generator(...) must fall as fake logits rise")


class _Discriminator(nn.Module):
    """A small smooth network from images [batch, 3, 16, 16] to logits [batch, 1]."""

    resolution = 16

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.linear = nn.Linear(8 * 64, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(nn.functional.softplus(self.convolution(images)).flatten(1))


class _Generator(nn.Module):
    """A small smooth network in the two halves of kind ``generator``."""

    resolution, latent_dim, style_dim, num_styles = 16, 8, 8, 2

    def __init__(self) -> None:
        super().__init__()
        self.map, self.draw = nn.Linear(8, 8), nn.Linear(16, 3 * 256)

    def mapping(self, latents: Tensor) -> Tensor:
        return torch.tanh(self.map(latents))

    def synthesis(self, styles: Tensor) -> Tensor:
        return torch.tanh(self.draw(styles.flatten(1))).view(-1, 3, 16, 16)

    def forward(self, latents: Tensor) -> Tensor:
        return self.synthesis(self.mapping(latents)[:, None].expand(-1, 2, -1))


def check_regularizer(regularizer: Regularizer) -> None:
    """Gives it what its step gives it, no more, and differentiates its term.

    Raises:
        ContractError: missing attributes, a term that is no finite scalar or does not reach its network's
            parameters, inputs edited, randomness outside of ``context.random``, or memory of earlier calls (a
            regularizer has no state in a checkpoint).
    """
    require(isinstance(getattr(regularizer, "name", None), str), "it needs a name, a string")
    network = getattr(regularizer, "network", None)
    require(network in ("discriminator", "generator"), f"network must be discriminator or generator; got {network!r}")
    interval = getattr(regularizer, "interval", None)
    require(type(interval) is int and interval >= 1, f"interval must be a whole number from 1; got {interval!r}")
    require(type(getattr(regularizer, "own_step", None)) is bool, "own_step must be True or False")

    values = []
    for _ in range(2):
        context = _context(regularizer)
        tensors = {name: getattr(context, name) for name in ("real", "fake", "latents", "real_logits", "fake_logits")}
        with untouched(**tensors):
            value = regularizer(context)
        require_tensor(value, (), torch.float32, "its term")
        owner = getattr(context, regularizer.network)
        moved = torch.autograd.grad(value, list(owner.parameters()), allow_unused=True)
        finite = all(bool(torch.isfinite(g).all()) for g in moved if g is not None)
        require(finite, f"the gradient of its term to the {network} is not finite")
        reaches = any(g is not None and bool(g.any()) for g in moved)
        require(reaches, f"its term has no gradient to the parameters of the {network}, which it is to move")
        values.append(value.detach())
    require(
        torch.equal(*values),
        "the same context gives another term the second time; it must have no memory, for a checkpoint keeps none, and "
        "draw from context.random alone",
    )


def _context(regularizer: Regularizer) -> StepContext:
    """As ``stylenat.training.loop`` makes it: an own step sees less than a term of the main loss."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator, discriminator = _Generator(), _Discriminator()
    context = StepContext(generator, discriminator, discriminator, torch.Generator().manual_seed(3))
    if regularizer.network == "discriminator":
        context.real = noise(4, 3, 16, 16)
        if not regularizer.own_step:
            context.latents = noise(4, 8, seed=1)
            context.fake = generator(context.latents).detach()
            context.fake_logits, context.real_logits = discriminator(context.fake), discriminator(context.real)
    else:
        context.latents = noise(4, 8, seed=1)
        if not regularizer.own_step:
            context.fake = generator(context.latents)
            context.fake_logits = discriminator(context.fake)
    return context
