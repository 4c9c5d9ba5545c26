"""An iteration, as a paper prints it. Read it from top to bottom.

A recipe (``Alternating``, ``Joint``) says what is stepped, in which order, from which images and fakes; ``iteration``
walks through it; ``descend`` is the one body of all steps; ``objective`` is what they minimise. Time is in ``loop``,
what a run keeps in ``state``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from registry import UserError
from stylenat import ranks
from stylenat.interfaces import Microbatch, Phase, Recipe, Regularizer, Step
from stylenat.training.guards import guarded_step

if TYPE_CHECKING:
    from stylenat.training.state import TrainingState

Scalars = dict[str, Tensor]
"""What is tracked, by name: means over the batch."""


class Alternating:
    """Recipe ``alternating``: the discriminator, its lazy regularizers, the generator, its lazy regularizers.

    The order of StyleGAN2, StyleSwin and StyleNAT.

    Args:
        share_fakes: the generator's step reuses the discriminator's fakes instead of drawing new ones: one generator
            pass less an iteration, unless ``train.accumulate`` leaves no memory to keep them in.
        generator_images: the generator's step takes a batch of real images of its own, for paired losses (R3GAN,
            arXiv 2501.05441, algorithm 1).
    """

    def __init__(self, share_fakes: bool = False, generator_images: bool = False) -> None:
        self.share_fakes, self.generator_images = share_fakes, generator_images

    def steps(self, regularizers: Sequence[Regularizer]) -> list[Step]:
        d, g = main_phase("discriminator", regularizers), main_phase("generator", regularizers)
        return [
            Step((d,), new_images=True, new_latents=True, keep_fakes=self.share_fakes),
            *lazy_steps("discriminator", regularizers),
            Step((g,), new_images=self.generator_images, new_latents=not self.share_fakes),
            *lazy_steps("generator", regularizers),
        ]


class Joint:
    """Recipe ``joint``: one batch of fakes and both gradients at the same weights; then the generator's optimizer
    step, the discriminator's, and the lazy regularizers' (HiT, arXiv 2106.07631, section 4.1)."""

    def steps(self, regularizers: Sequence[Regularizer]) -> list[Step]:
        both = main_phase("generator", regularizers), main_phase("discriminator", regularizers)
        return [
            Step(both, new_images=True, new_latents=True),
            *lazy_steps("discriminator", regularizers),
            *lazy_steps("generator", regularizers),
        ]


def main_phase(network: Literal["discriminator", "generator"], regularizers: Sequence[Regularizer]) -> Phase:
    """The network's adversarial loss and the terms that are part of it."""
    return Phase(network, network, True, tuple(r for r in regularizers if r.network == network and not r.own_step))


def lazy_steps(network: Literal["discriminator", "generator"], regularizers: Sequence[Regularizer]) -> list[Step]:
    """The network's regularizers with steps of their own (StyleGAN2, section 3.1)."""
    own = [r for r in regularizers if r.network == network and r.own_step]
    return [Step((Phase(r.name, network, False, (r,)),), interval=r.interval) for r in own]


def steps_of(recipe: Recipe, regularizers: Sequence[Regularizer]) -> list[Step]:
    """The recipe's steps, checked.

    Raises:
        UserError: a regularizer or a network's adversarial loss is in none of them, or the first does not take images
            and latents.
    """
    steps = list(recipe.steps(regularizers))
    name = f"recipe {type(recipe).__qualname__}"
    applied = {id(term) for step in steps for phase in step.phases for term in phase.terms}
    for term in regularizers:
        if id(term) not in applied:
            raise UserError(f"{name} has no step with the regularizer {term.name!r}")
    if not steps or not (steps[0].new_images and steps[0].new_latents and steps[0].interval == 1):
        raise UserError(f"{name}: its first step must take new images and new latents, in every iteration")
    for network in ("discriminator", "generator"):
        if not any(phase.adversarial and phase.network == network for step in steps for phase in step.phases):
            raise UserError(f"{name} has no step with the {network}'s adversarial loss")
    return steps


def lazy_ratio(regularizers: Sequence[Regularizer], network: str) -> float:
    """interval / (interval + 1) for the network's first regularizer with steps of its own, else 1.

    Learning rate and running averages of the optimizer are corrected by it, since such steps come on top (StyleGAN2,
    appendix B).
    """
    for r in regularizers:
        if r.network == network and r.own_step and r.interval > 1:
            return r.interval / (r.interval + 1)
    return 1.0


def iteration(state: "TrainingState", images: Iterator[Any]) -> dict[str, Any]:
    """One iteration: the recipe's steps that are due, then the average of the generator's weights.

    Args:
        images: this process's real images and their labels, batch after batch (``stylenat.training.reals``).

    Returns the scalars to track.
    """
    settings, time = state.settings, state.time()
    state.set_numbers(time)
    batches = state.microbatches(time)
    scalars: dict[str, Any] = {}
    for step in settings.steps:
        if time.iteration % step.interval:
            continue
        if step.new_images:
            state.give_images(batches, next(images))
        if step.new_latents:
            state.give_latents(batches)
        scalars |= descend(state, step, batches)
        if any(phase.adversarial and phase.network == "discriminator" for phase in step.phases):
            settings.augmentation.observe(torch.cat([batch.real_logits for batch in batches]))
    settings.average.update(state.averages, state.generator, time)
    return scalars | dict(settings.augmentation.scalars())


def descend(state: "TrainingState", step: Step, batches: Sequence[Microbatch]) -> Scalars:
    """One optimizer step of each phase, down the mean of its losses on all microbatches of all processes.

    One graph is in memory at a time. Gradients travel once, after the last microbatch, and scalars with them.
    DistributedDataParallel is not used: it expects one forward pass a backward pass and a gradient for every parameter,
    but the discriminator runs up to four times, and R1 has no gradient for its last bias.

    Returns the scalars' means over the whole batch.
    """
    for phase in step.phases:
        state.optimizers[phase.network].zero_grad(set_to_none=True)
    means: list[Scalars] = [{} for _ in step.phases]
    for batch in state.replayed(batches):
        for phase, sums in zip(step.phases, means, strict=True):
            # The generator has no use for the discriminator's gradients.
            with frozen(state.discriminator) if phase.network == "generator" else nullcontext():
                loss, scalars = objective(state, step, phase, batch)
                state.scalers[phase.network].scale(loss / len(batches)).backward()
            for key, value in (scalars | {"loss": loss}).items():
                sums[key] = sums.get(key, 0) + value.detach() / len(batches)
    for phase, sums in zip(step.phases, means, strict=True):
        optimizer, scaler = state.optimizers[phase.network], state.scalers[phase.network]
        reached = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        ranks.average([*reached, *sums.values()])
        scaler.unscale_(optimizer)
        loss = sums.pop("loss")
        clip = state.settings.discriminator_clip if phase.adversarial and phase.network == "discriminator" else None
        # A scaled gradient that overflows is skipped in all processes alike.
        sums |= guarded_step(optimizer, phase.name, loss, clip, scaler.scale(torch.ones_like(loss)))
        scaler.update()
    return {key: value for sums in means for key, value in sums.items()}


def objective(state: "TrainingState", step: Step, phase: Phase, batch: Microbatch) -> tuple[Tensor, Scalars]:
    """A phase's loss on one microbatch, and what to track of it. The batch keeps fakes and logits, detached."""
    terms = [term for term in phase.terms if batch.time.iteration % term.interval == 0]
    give_fakes(state, step, phase, batch)
    seen = replace(batch, random=state.random_for_terms(batch))
    if any(getattr(term, "reuses_logits", False) for term in terms):
        seen.images, seen.fake = batch.images.requires_grad_(), batch.fake.requires_grad_()
        seen.discriminate = batch.discriminate.exactly

    scalars: Scalars = {}
    losses = []
    if phase.adversarial:
        loss_of = discriminator_loss if phase.network == "discriminator" else generator_loss
        adversarial, scalars = loss_of(state.settings.loss, seen)
        losses.append(adversarial)
    for term in terms:
        exact = second_order(term)
        value = term(replace(seen, discriminate=batch.discriminate.exactly) if exact else seen)
        losses.append(value)
        scalars = scalars | {f"regularizer/{term.name}": value}

    for name in ("images", "fake", "real_logits", "fake_logits"):
        value = getattr(seen, name)
        setattr(batch, name, None if value is None else value.detach())
    return sum(losses[1:], losses[0]), scalars


def discriminator_loss(loss: Any, batch: Microbatch) -> tuple[Tensor, Scalars]:
    """The adversarial loss on ``batch.images`` and ``batch.fake``, which is detached.

    The discriminator sees fakes, then reals, in separate calls: a power iteration of the spectral norm and
    minibatch-stddev groups of its own for each.
    """
    batch.fake_logits = batch.discriminate(batch.fake, batch.fake_labels)
    batch.real_logits = batch.discriminate(batch.images, batch.labels)
    adversarial = loss.discriminator(batch.real_logits, batch.fake_logits)
    return adversarial, {
        "loss/discriminator": adversarial,
        "logits/real": batch.real_logits.mean(),
        "logits/fake": batch.fake_logits.mean(),
    }


def generator_loss(loss: Any, batch: Microbatch) -> tuple[Tensor, Scalars]:
    """The adversarial loss on ``batch.fake``, which has a graph to the generator's parameters."""
    batch.fake_logits = batch.discriminate(batch.fake, batch.fake_labels)
    if getattr(loss, "paired", False):
        batch.real_logits = batch.discriminate(batch.images, batch.labels).detach()
        adversarial = loss.generator(batch.fake_logits, batch.real_logits)
    else:
        adversarial = loss.generator(batch.fake_logits)
    return adversarial, {"loss/generator": adversarial}


def give_fakes(state: "TrainingState", step: Step, phase: Phase, batch: Microbatch) -> None:
    """Makes the fakes that an adversarial phase needs: with a graph in the generator's, detached in the
    discriminator's, which has no use for the generator's gradient."""
    if not phase.adversarial:
        return
    if phase.network == "generator":
        batch.fake, batch.kept = batch.kept, None
        if batch.fake is None:
            batch.fake = state.generate(batch.latents, batch.fake_labels, **batch.draws)
    elif batch.fake is None:
        with torch.set_grad_enabled(step.keep_fakes and len(state.shards) == 1):
            made = state.generate(batch.latents, batch.fake_labels, **batch.draws)
        batch.fake, batch.kept = made.detach(), made if made.requires_grad else None


def second_order(regularizer: Regularizer) -> bool:
    """Whether its term contains a gradient, so that the step differentiates twice."""
    return getattr(regularizer, "second_order", regularizer.own_step or getattr(regularizer, "reuses_logits", False))


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """The network's parameters get no gradients within this context."""
    trained = [p for p in network.parameters() if p.requires_grad]  # Some layers may be frozen for good.
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
