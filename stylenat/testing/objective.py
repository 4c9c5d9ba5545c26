"""The contracts of kinds ``loss`` and ``regularizer``."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from stylenat.interfaces import Loss, Microbatch, Regularizer, Time
from stylenat.testing.contract import Memory, noise, require, require_gradients, require_tensor, untouched
from stylenat.training.step import second_order


def check_loss(loss: Loss) -> None:
    """Checks both functions on ordinary and on extreme logits, one and several an image.

    Raises:
        ContractError: no scalar, a value or gradient that is not finite, a sum over the batch instead of a mean,
            a sign that trains a network the wrong way, inputs edited, randomness, or memory of earlier calls that its
            ``state_dict()`` does not hold.
    """
    paired = getattr(loss, "paired", False)
    require(type(paired) is bool, f"paired must be True or False; got {paired!r}")
    unused = copy.deepcopy(loss)
    functions = _functions(loss)
    for scale, logits in ((1.0, 1), (100.0, 1), (1.0, 5)):
        real, fake = (noise(8, logits, seed=i).mul(scale).requires_grad_() for i in (0, 1))
        with untouched("a loss draws nothing", real_logits=real, fake_logits=fake):
            values = {name: function(real, fake) for name, function in functions.items()}
        for name, value in values.items():
            require_tensor(value, (), torch.float32, f"{name}(...) of logits of size {scale:g}")
            inputs = {"fake_logits": fake} | ({"real_logits": real} if name == "discriminator" else {})
            require_gradients(value, inputs)
        _check_memory(functions, _functions(copy.deepcopy(unused)), real, fake, values)
        for name, function in functions.items():
            twice = function(torch.cat([real, real]), torch.cat([fake, fake]))
            mean = torch.isclose(values[name], twice, rtol=1e-4)
            require(bool(mean), "the same logits twice over give another loss; it must be a mean over the batch")

    real, fake = torch.zeros(4, 1, requires_grad=True), torch.zeros(4, 1, requires_grad=True)
    d_real, d_fake = torch.autograd.grad(functions["discriminator"](real, fake), (real, fake))
    (g_fake,) = torch.autograd.grad(functions["generator"](real, fake), fake)
    require(bool(d_real.sum() < 0), "discriminator(...) must fall as real logits rise: logits are high for real")
    require(bool(d_fake.sum() > 0), "discriminator(...) must rise with fake logits: logits are low for fake")
    require(bool(g_fake.sum() < 0), "generator(...) must fall as fake logits rise")


_Functions = Mapping[str, Callable[[Tensor, Tensor], Tensor]]
"""By name, (real logits, fake logits) to the loss, from the state that the loss had when it was first seen."""


def _functions(loss: Loss) -> _Functions:
    memory = Memory(loss)

    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        memory.restore()
        return loss.discriminator(real, fake)

    def generator(real: Tensor, fake: Tensor) -> Tensor:
        memory.restore()
        return loss.generator(fake, real) if getattr(loss, "paired", False) else loss.generator(fake)

    return {"discriminator": discriminator, "generator": generator}


def _check_memory(
    used: _Functions, unused: _Functions, real: Tensor, fake: Tensor, values: Mapping[str, Tensor]
) -> None:
    """Raises ContractError where a value depends on earlier calls with other logits.

    Args:
        used: called before; unused: a copy that was not; values: ``used`` of these logits.
    """
    other = [noise(*real.shape, seed=seed).requires_grad_() for seed in (2, 3)]
    rule = (
        "(...) of the same logits is another loss after calls with other logits; it may keep nothing between calls but "
        "what its state_dict() holds (a generator's loss that needs the real logits sets paired = True)"
    )
    for name in used:
        require(torch.equal(used[name](*other), unused[name](*other)), name + rule)
    for name in reversed(used):
        require(torch.equal(used[name](real, fake), values[name]), name + rule)


class _Discriminator(nn.Module):
    """A small smooth network from images [batch, 3, 16, 16] to logits [batch, 1].

    Attributes:
        differentiated_twice: whether a gradient of its logits was computed that can be differentiated again.
    """

    resolution = 16

    def __init__(self) -> None:
        super().__init__()
        self.differentiated_twice = False
        self.convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.linear = nn.Linear(8 * 64, 1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = self.linear(nn.functional.softplus(self.convolution(images)).flatten(1))
        if logits.requires_grad:
            logits.register_hook(self._notice)
        return logits

    def _notice(self, gradient: Tensor) -> None:
        # Gradient mode is on in a backward pass with create_graph=True only.
        self.differentiated_twice |= torch.is_grad_enabled()


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
            parameters, one that contains a gradient of the logits without ``second_order``, inputs edited, randomness
            outside of ``batch.random``, or memory of earlier calls that its ``state_dict()`` does not hold.
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

    unused, memory = copy.deepcopy(regularizer), Memory(regularizer)
    terms = []
    for seed in (0, 10, 0):  # Another microbatch between two equal ones.
        memory.restore()
        terms.append(_term(regularizer, seed))
    require(
        torch.equal(terms[0], terms[2]) and torch.equal(terms[1], _term(unused, 10)),
        "the same microbatch gives another term after another microbatch; everything it remembers must be in its "
        "state_dict(), and it must draw only from batch.random",
    )


def _term(regularizer: Regularizer, seed: int) -> Tensor:
    """The checked term of one microbatch, without its graph."""
    batch = _microbatch(regularizer, seed)
    tensors = {name: getattr(batch, name) for name in ("images", "fake", "latents", "real_logits", "fake_logits")}
    with untouched("draw from batch.random", **tensors):
        value = regularizer(batch)
    require_tensor(value, (), torch.float32, "its term")
    require(value.requires_grad, f"its term has no gradient: {_detached(regularizer)}")
    require(
        second_order(regularizer) or not batch.discriminator.differentiated_twice,
        "its term contains a gradient of the logits, so training differentiates twice: set second_order = True, or "
        "reduced precision and torch.compile break it",
    )
    network = regularizer.network
    moved = torch.autograd.grad(value, list(getattr(batch, network).parameters()), allow_unused=True)
    finite = all(bool(torch.isfinite(g).all()) for g in moved if g is not None)
    require(finite, f"the gradient of its term to the {network} is not finite")
    reaches = any(g is not None and bool(g.any()) for g in moved)
    require(reaches, f"its term has no gradient to the parameters of the {network}, which it is to move")
    return value.detach()


def _detached(regularizer: Regularizer) -> str:
    """Why a term may have no gradient."""
    if regularizer.own_step:
        return "in a step of its own the batch's logits are detached; call batch.discriminate, and detach no result"
    return "it is detached on the way; a gradient in it needs create_graph=True"


def _microbatch(regularizer: Regularizer, seed: int) -> Microbatch:
    """As ``stylenat.training.step`` makes it for the phase that the regularizer is in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator, discriminator = _Generator(), _Discriminator()
    random = torch.Generator().manual_seed(3)
    batch = Microbatch(generator, discriminator, discriminator, Time(0, 0, 10, 4), random)
    batch.images, batch.latents = noise(4, 3, 16, 16, seed=seed), noise(4, 8, seed=seed + 1)
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
