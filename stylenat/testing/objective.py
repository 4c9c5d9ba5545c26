"""The contracts of kinds ``loss`` and ``regularizer``."""

import copy

import torch
from torch import Tensor, nn

from stylenat.interfaces import Loss, Microbatch, Regularizer, Time
from stylenat.testing.contract import noise, require, require_gradients, require_tensor, untouched


def check_loss(loss: Loss) -> None:
    """Checks both functions on ordinary and on extreme logits, one and several an image.

    Raises:
        ContractError: no scalar, a value or gradient that is not finite, a sum over the batch instead of a mean,
            a sign that trains a network the wrong way, inputs edited, randomness, or memory of earlier calls.
    """
    paired = getattr(loss, "paired", False)
    require(type(paired) is bool, f"paired must be True or False; got {paired!r}")

    def generator(fake: Tensor, real: Tensor) -> Tensor:
        return loss.generator(fake, real) if paired else loss.generator(fake)

    for scale, logits in ((1.0, 1), (100.0, 1), (1.0, 5)):
        real, fake = (noise(8, logits, seed=i).mul(scale).requires_grad_() for i in (0, 1))
        with untouched(real_logits=real, fake_logits=fake):
            of_d, of_g = loss.discriminator(real, fake), generator(fake, real)
            again = loss.discriminator(real, fake), generator(fake, real)
        for name, value, inputs in (
            ("discriminator", of_d, {"real_logits": real, "fake_logits": fake}),
            ("generator", of_g, {"fake_logits": fake}),
        ):
            require_tensor(value, (), torch.float32, f"{name}(...) of logits of size {scale:g}")
            require_gradients(value, inputs)
        same = all(torch.equal(a, b) for a, b in zip((of_d, of_g), again, strict=True))
        require(same, "the same logits give another loss the second time; it must be a pure function")
        real_twice, fake_twice = torch.cat([real, real]), torch.cat([fake, fake])
        twice = loss.discriminator(real_twice, fake_twice), generator(fake_twice, real_twice)
        mean = all(torch.isclose(a, b, rtol=1e-4) for a, b in zip((of_d, of_g), twice, strict=True))
        require(mean, "the same logits twice over give another loss; it must be a mean over the batch")

    zero_real, zero_fake = torch.zeros(4, 1, requires_grad=True), torch.zeros(4, 1, requires_grad=True)
    d_real, d_fake = torch.autograd.grad(loss.discriminator(zero_real, zero_fake), (zero_real, zero_fake))
    (g_fake,) = torch.autograd.grad(generator(zero_fake, zero_real), zero_fake)
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

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
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
            parameters, inputs edited, randomness outside of ``batch.random``, or memory of earlier calls that its
            ``state_dict()`` does not hold.
    """
    require(isinstance(getattr(regularizer, "name", None), str), "it needs a name, a string")
    network = getattr(regularizer, "network", None)
    require(network in ("discriminator", "generator"), f"network must be discriminator or generator; got {network!r}")
    interval = getattr(regularizer, "interval", None)
    require(type(interval) is int and interval >= 1, f"interval must be an integer from 1; got {interval!r}")
    require(type(getattr(regularizer, "own_step", None)) is bool, "own_step must be True or False")

    reuses = getattr(regularizer, "reuses_logits", False)
    require(type(reuses) is bool, f"reuses_logits must be True or False; got {reuses!r}")
    require(not (reuses and regularizer.own_step), "reuses_logits needs own_step = False: own steps have no logits")

    saved = copy.deepcopy(regularizer.state_dict()) if hasattr(regularizer, "state_dict") else None
    values = []
    for _ in range(2):
        if saved is not None:
            regularizer.load_state_dict(copy.deepcopy(saved))
        batch = _microbatch(regularizer)
        tensors = {name: getattr(batch, name) for name in ("images", "fake", "latents", "real_logits", "fake_logits")}
        with untouched(**tensors):
            value = regularizer(batch)
        require_tensor(value, (), torch.float32, "its term")
        owner = getattr(batch, regularizer.network)
        moved = torch.autograd.grad(value, list(owner.parameters()), allow_unused=True)
        finite = all(bool(torch.isfinite(g).all()) for g in moved if g is not None)
        require(finite, f"the gradient of its term to the {network} is not finite")
        reaches = any(g is not None and bool(g.any()) for g in moved)
        require(reaches, f"its term has no gradient to the parameters of the {network}, which it is to move")
        values.append(value.detach())
    require(
        torch.equal(*values),
        "the same microbatch gives another term the second time; everything it remembers must be in its state_dict(), "
        "and it must draw only from batch.random",
    )


def _microbatch(regularizer: Regularizer) -> Microbatch:
    """As ``stylenat.training.step`` makes it for the phase that the regularizer is in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator, discriminator = _Generator(), _Discriminator()
    random = torch.Generator().manual_seed(3)
    batch = Microbatch(generator, discriminator, discriminator, Time(0, 0, 10, 4), random)
    batch.images, batch.latents = noise(4, 3, 16, 16), noise(4, 8, seed=1)
    batch.fake = generator(batch.latents)
    if regularizer.network == "discriminator" or regularizer.own_step:
        batch.fake = batch.fake.detach()
    if getattr(regularizer, "reuses_logits", False):
        batch.images.requires_grad_()
        batch.fake.requires_grad_()
    batch.fake_logits, batch.real_logits = discriminator(batch.fake), discriminator(batch.images)
    if regularizer.own_step:
        batch.fake_logits, batch.real_logits = batch.fake_logits.detach(), batch.real_logits.detach()
    return batch
