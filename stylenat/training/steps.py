"""The three steps of an iteration, as a paper would print them: discriminator, lazy regularizer, generator.

Plain functions of networks, optimisers and tensors; what is lazy, scheduled or logged is the loop's affair.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from stylenat.interfaces import Loss, Regularizer, StepContext
from stylenat.training.guards import guarded_step

Scalars = dict[str, Tensor]


def discriminator_step(
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    terms: Sequence[Regularizer],
    context: StepContext,
    clip: float | None,
) -> tuple[Scalars, Tensor]:
    """The main step on ``context.real`` and ``context.fake`` (detached), regularizer terms included.

    The discriminator sees fakes, then reals, in separate calls: a power iteration of the spectral norm and
    minibatch-stddev groups of its own for each. The gradient's norm is clipped at ``clip``.

    Returns the scalars to track and the real logits [batch, 1], detached.
    """
    optimizer.zero_grad(set_to_none=True)
    context.fake_logits = context.discriminate(context.fake)
    context.real_logits = context.discriminate(context.real)
    adversarial = loss.discriminator(context.real_logits, context.fake_logits)
    scalars = {"loss/discriminator": adversarial.detach()}
    scalars["logits/real"] = context.real_logits.detach().mean()
    scalars["logits/fake"] = context.fake_logits.detach().mean()
    total = adversarial
    for term in terms:
        value = term(context)
        scalars[f"regularizer/{term.name}"] = value.detach()
        total = total + value
    total.backward()
    scalars |= guarded_step(optimizer, "discriminator", total, clip)
    return scalars, context.real_logits.detach()


def regularizer_step(optimizer: torch.optim.Optimizer, regularizer: Regularizer, context: StepContext) -> Scalars:
    """One lazy regularizer's own, unclipped step (StyleGAN2, section 3.1)."""
    optimizer.zero_grad(set_to_none=True)
    value = regularizer(context)
    value.backward()
    return {f"regularizer/{regularizer.name}": value.detach()} | guarded_step(optimizer, regularizer.name, value)


def generator_step(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    terms: Sequence[Regularizer],
    context: StepContext,
    fake: Callable[[], Tensor],
) -> Scalars:
    """The generator's step on images that ``fake`` makes with a graph to the generator's parameters.

    The discriminator's own gradients are not computed.
    """
    trained = [p for p in discriminator.parameters() if p.requires_grad]  # Some layers may be frozen for good.
    discriminator.requires_grad_(False)
    optimizer.zero_grad(set_to_none=True)
    context.fake = fake()
    context.fake_logits = context.discriminate(context.fake)
    adversarial = loss.generator(context.fake_logits)
    scalars = {"loss/generator": adversarial.detach()}
    total = adversarial
    for term in terms:
        value = term(context)
        scalars[f"regularizer/{term.name}"] = value.detach()
        total = total + value
    total.backward()
    scalars |= guarded_step(optimizer, "generator", total)
    for parameter in trained:
        parameter.requires_grad_(True)
    return scalars


def lazy_ratio(regularizers: Sequence[Regularizer], network: str) -> float:
    """interval / (interval + 1) for the network's first regularizer with steps of its own, else 1.

    Learning rate and betas are corrected by it, since such steps come on top (StyleGAN2, appendix B).
    """
    for r in regularizers:
        if r.network == network and r.own_step and r.interval > 1:
            return r.interval / (r.interval + 1)
    return 1.0


def adam(network: nn.Module, learning_rate: float, betas: tuple[float, float], ratio: float) -> torch.optim.Adam:
    """Adam with the lazy correction ``ratio`` applied to rate and betas."""
    return torch.optim.Adam(
        network.parameters(),
        lr=learning_rate * ratio,
        betas=(betas[0] ** ratio, betas[1] ** ratio),
        fused=True,
    )


def linear_decay(step: int, iterations: int, decay_start: int | None) -> float:
    """The learning rates' factor in iteration ``step`` (from 0): 1, then linearly to 0 at ``iterations``."""
    if decay_start is None or step < decay_start:
        return 1.0
    return (iterations - step) / (iterations - decay_start)
