"""The three losses of an iteration and the step down each, as a paper would print them.

Plain functions of networks, optimisers and tensors; what is lazy, scheduled or logged is the loop's affair.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from stylenat import ranks
from stylenat.interfaces import Loss, Regularizer, StepContext
from stylenat.training.guards import guarded_step

Scalars = dict[str, Tensor]
"""What is tracked, by name: means over the batch."""


def discriminator_loss(loss: Loss, terms: Sequence[Regularizer], context: StepContext) -> tuple[Tensor, Scalars]:
    """The main loss on ``context.real`` and ``context.fake`` (detached), regularizer terms included.

    The discriminator sees fakes, then reals, in separate calls: a power iteration of the spectral norm and
    minibatch-stddev groups of its own for each.
    """
    context.fake_logits = context.discriminate(context.fake)
    context.real_logits = context.discriminate(context.real)
    adversarial = loss.discriminator(context.real_logits, context.fake_logits)
    scalars = {
        "loss/discriminator": adversarial,
        "logits/real": context.real_logits.mean(),
        "logits/fake": context.fake_logits.mean(),
    }
    return _with_terms(adversarial, scalars, terms, context)


def generator_loss(loss: Loss, terms: Sequence[Regularizer], context: StepContext) -> tuple[Tensor, Scalars]:
    """The loss on ``context.fake``, which has a graph to the generator's parameters, regularizer terms included."""
    context.fake_logits = context.discriminate(context.fake)
    adversarial = loss.generator(context.fake_logits)
    return _with_terms(adversarial, {"loss/generator": adversarial}, terms, context)


def regularizer_loss(regularizer: Regularizer, context: StepContext) -> tuple[Tensor, Scalars]:
    """A lazy regularizer's term alone, for a step of its own (StyleGAN2, section 3.1)."""
    if second_order(regularizer) and context.discriminate_exactly is not None:
        context = replace(context, discriminate=context.discriminate_exactly)
    value = regularizer(context)
    return value, {f"regularizer/{regularizer.name}": value}


def _with_terms(
    total: Tensor, scalars: Scalars, terms: Sequence[Regularizer], context: StepContext
) -> tuple[Tensor, Scalars]:
    for term in terms:
        value, more = regularizer_loss(term, context)
        total, scalars = total + value, scalars | more
    return total, scalars


def second_order(regularizer: Regularizer) -> bool:
    """Whether its term contains a gradient, so that the step differentiates twice."""
    return getattr(regularizer, "second_order", regularizer.own_step)


def descend(
    name: str,
    optimizer: torch.optim.Optimizer,
    losses: Iterable[tuple[Tensor, Scalars]],
    parts: int = 1,
    clip: float | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> Scalars:
    """One optimiser step down the mean of the losses of all microbatches of all processes.

    Gradients travel once, after the last microbatch, and scalars with them. DistributedDataParallel is not used: it
    expects one forward pass a backward pass and a gradient for every parameter, but the discriminator runs up to four
    times, and R1 has no gradient for its last bias.

    Args:
        name: of the step, in its scalars.
        losses: (loss, scalars) of this process's microbatches. Each is differentiated before the next is made, so
            that one graph is in memory at a time.
        parts: how many they are.
        clip: bound on the norm of the whole batch's gradient.
        scaler: of the loss, in fp16: a step whose scaled gradient overflows is skipped, in all processes alike.

    Returns the scalars' means over the whole batch.
    """
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    optimizer.zero_grad(set_to_none=True)
    means: Scalars = {}
    for loss, scalars in losses:
        scaler.scale(loss / parts).backward()
        for key, value in (scalars | {"loss": loss}).items():
            means[key] = means.get(key, 0) + value.detach() / parts
    reached = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    ranks.average([*(p.grad for p in reached), *means.values()])
    scaler.unscale_(optimizer)
    loss = means.pop("loss")
    means |= guarded_step(optimizer, name, loss, clip, scaler.scale(torch.ones_like(loss)))
    scaler.update()
    return means


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Its parameters get no gradients here: the generator's step has no use for the discriminator's."""
    trained = [p for p in network.parameters() if p.requires_grad]  # Some layers may be frozen for good.
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


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
