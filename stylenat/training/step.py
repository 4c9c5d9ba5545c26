"""An iteration, as a paper prints it. Read it from top to bottom.

A recipe (``Alternating``, ``Joint``) says what is stepped, in which order, from which images and fakes; ``iteration``
walks through it; ``descend`` is the one body of all steps; ``objective`` is what they minimise. The default recipe:

=============================  =======  ==========  ===================================================
step                           moves    images      fakes
=============================  =======  ==========  ===================================================
discriminator                  D        new         of new latents, without a graph to the generator
each lazy regularizer of D     D        the same    the same
generator                      G        the same    of new latents, through the discriminator as it is now
each lazy regularizer of G     G        the same    the same, without a graph
=============================  =======  ==========  ===================================================

When to evaluate, save and stop is in ``loop``; what a run keeps between iterations is in ``state``.
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
        share_fakes: the generator's step reuses the discriminator's fakes instead of drawing new latents: one generator
            pass less an iteration. With ``train.accumulate`` fakes are not kept but made again from the same latents,
            and no pass is saved.
        generator_images: the generator's step takes a batch of real images of its own, for paired losses (R3GAN,
            arXiv 2501.05441, algorithm 1).

    Raises:
        UserError: both; fakes of the first batch's labels would be paired with the second batch.
    """

    def __init__(self, share_fakes: bool = False, generator_images: bool = False) -> None:
        if share_fakes and generator_images:
            raise UserError("recipe.alternating takes share_fakes or generator_images, not both; bind one to False")
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
        # The generator's phase makes the fakes, the discriminator's reuses them detached: one pass of the generator.
        both = main_phase("generator", regularizers), main_phase("discriminator", regularizers)
        return [
            Step(both, new_images=True, new_latents=True),
            *lazy_steps("discriminator", regularizers),
            *lazy_steps("generator", regularizers),
        ]


def main_phase(network: Literal["discriminator", "generator"], regularizers: Sequence[Regularizer]) -> Phase:
    """The network's adversarial loss and the terms that are part of it."""
    terms = tuple(r for r in regularizers if r.network == network and not r.own_step)
    return Phase(name=network, network=network, adversarial=True, terms=terms)


def lazy_steps(network: Literal["discriminator", "generator"], regularizers: Sequence[Regularizer]) -> list[Step]:
    """The network's regularizers with steps of their own (StyleGAN2, section 3.1)."""
    own = [r for r in regularizers if r.network == network and r.own_step]
    phases = [Phase(name=r.name, network=network, adversarial=False, terms=(r,)) for r in own]
    return [Step((phase,), interval=r.interval) for phase, r in zip(phases, own, strict=True)]


def steps_of(recipe: Recipe, regularizers: Sequence[Regularizer]) -> list[Step]:
    """The recipe's steps, checked.

    Raises:
        UserError: a regularizer or a network's adversarial loss is in none of them, the first does not take images and
            latents, a step moves one network twice, or a term cannot be computed where it is.
    """
    steps = list(recipe.steps(regularizers))
    name = f"recipe {type(recipe).__qualname__}"
    applied = {id(term) for step in steps for phase in step.phases for term in phase.terms}
    for term in regularizers:
        if id(term) not in applied:
            raise UserError(f"{name} has no step with the regularizer {term.name!r}")
        if term.own_step and getattr(term, "reuses_logits", False):
            raise UserError(f"regularizer {term.name!r} reuses the logits of the main loss and has a step of its own")
    for step in steps:
        if len({phase.network for phase in step.phases}) < len(step.phases):
            raise UserError(f"{name} has a step with two phases of one network; make two steps of them")
        for phase in step.phases:
            if not phase.adversarial and not any(step.interval % term.interval == 0 for term in phase.terms):
                raise UserError(f"{name}: in some iterations no term of the phase {phase.name!r} is due; divide it")
    if not steps or not (steps[0].new_images and steps[0].new_latents and steps[0].interval == 1):
        raise UserError(f"{name}: its first step must take new images and new latents, in every iteration")
    for network in ("discriminator", "generator"):
        if not any(phase.adversarial and phase.network == network for step in steps for phase in step.phases):
            raise UserError(f"{name} has no step with the {network}'s adversarial loss")
    return steps


def lazy_ratio(regularizers: Sequence[Regularizer], network: str) -> float:
    """interval / (interval + 1) for the network's first regularizer with steps of its own every interval > 1, else 1.

    The learning rate and Adam's betas are corrected by it, since such steps come on top (StyleGAN2, appendix B).
    """
    for r in regularizers:
        if r.network == network and r.own_step and r.interval > 1:
            return r.interval / (r.interval + 1)
    return 1.0


def iteration(state: "TrainingState", images: Iterator[Any]) -> dict[str, Any]:
    """One iteration: the recipe's steps that are due, then the average of the generator's weights.

    Args:
        images: this process's real images and their labels, batch after batch (``loop.reals``).

    Returns the scalars to track.
    """
    settings, time = state.settings, state.time()
    state.set_numbers(time)
    batches = state.microbatches(time)
    scalars: dict[str, Any] = {}
    for step in settings.steps:
        if time.iteration % step.interval:
            continue  # Not due.
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
    """One optimizer step of each phase, on the gradient of its loss averaged over all microbatches and processes.

    One microbatch's graph is in memory at a time. Gradients and scalars are averaged over processes once a phase, after
    the last microbatch. DistributedDataParallel is not used: it expects one forward pass a backward pass and a gradient
    for every parameter, but the discriminator runs on fakes, reals and again for regularizers, and R1 gives the
    discriminator's last bias no gradient.

    Returns the scalars' means over the run's batch.
    """
    for phase in step.phases:
        state.optimizers[phase.network].zero_grad(set_to_none=True)
    tracked: list[Scalars] = [{} for _ in step.phases]
    for batch in state.replayed(batches):
        for phase, means in zip(step.phases, tracked, strict=True):
            # A generator's gradients pass through the discriminator; its parameters need none.
            with frozen(state.discriminator) if phase.network == "generator" else nullcontext():
                loss, scalars = objective(state, step, phase, batch)
                if loss.requires_grad or phase.adversarial:  # Terms may be constants for now.
                    state.scalers[phase.network].scale(loss / len(batches)).backward()
            for key, value in (scalars | {"loss": loss}).items():
                means[key] = means.get(key, 0) + value.detach() / len(batches)
    for phase, means in zip(step.phases, tracked, strict=True):
        optimizer, scaler = state.optimizers[phase.network], state.scalers[phase.network]
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        ranks.average([*gradients, *means.values()])
        loss = means.pop("loss")
        if not gradients:
            continue  # All terms are constants for now, such as one whose weight is 0.
        scaler.unscale_(optimizer)
        clip = state.settings.discriminator_clip if phase.adversarial and phase.network == "discriminator" else None
        # Gradients were averaged before: every process sees an overflow, and skips the same step.
        means |= guarded_step(optimizer, phase.name, loss, clip, scaler.scale(torch.ones_like(loss)))
        scaler.update()
    return {key: value for means in tracked for key, value in means.items()}


def objective(state: "TrainingState", step: Step, phase: Phase, batch: Microbatch) -> tuple[Tensor, Scalars]:
    """A phase's loss on one microbatch, and what to track of it.

    Afterwards the microbatch holds its images, fakes and logits without graphs.
    """
    terms = [term for term in phase.terms if batch.time.iteration % term.interval == 0]
    give_fakes(state, step, phase, batch)
    seen = replace(batch, random=state.random_for_terms(batch))  # A copy, so that no graph stays with the batch.
    if any(getattr(term, "reuses_logits", False) for term in terms):
        # Such a term differentiates the main logits with respect to what they are of, and is differentiated again.
        seen.images, seen.fake = batch.images.requires_grad_(), batch.fake.requires_grad_()
        seen.discriminate = batch.discriminate.exactly

    scalars: Scalars = {}
    losses = []
    if phase.adversarial:
        loss_of = discriminator_loss if phase.network == "discriminator" else generator_loss
        adversarial, scalars = loss_of(state.settings.loss, seen)
        losses.append(adversarial)
    for term in terms:
        value = term(replace(seen, discriminate=batch.discriminate.exactly) if second_order(term) else seen)
        losses.append(value)
        scalars = scalars | {f"regularizer/{term.name}": value}

    for name in ("images", "fake", "real_logits", "fake_logits"):
        value = getattr(seen, name)
        setattr(batch, name, None if value is None else value.detach())
    return sum(losses[1:], losses[0]), scalars


def discriminator_loss(loss: Any, batch: Microbatch) -> tuple[Tensor, Scalars]:
    """The adversarial loss on ``batch.images`` and ``batch.fake``, which has no graph to the generator.

    The discriminator sees fakes, then reals, in separate calls: each has its own power iteration of the spectral norm
    and its own minibatch-stddev groups.
    """
    batch.fake_logits = batch.discriminate(batch.fake, batch.fake_labels)
    batch.real_logits = batch.discriminate(batch.images, batch.labels)
    adversarial = scalar(loss, "discriminator", loss.discriminator(batch.real_logits, batch.fake_logits))
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
        adversarial = scalar(loss, "generator", loss.generator(batch.fake_logits, batch.real_logits))
    else:
        adversarial = scalar(loss, "generator", loss.generator(batch.fake_logits))
    return adversarial, {"loss/generator": adversarial}


def scalar(loss: Any, method: str, value: Any) -> Tensor:
    """What a loss returned. Raises UserError where it is no scalar, such as one value for each image."""
    if isinstance(value, Tensor) and not value.shape:
        return value
    found = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise UserError(
        f"{type(loss).__name__}.{method}() of train.loss returned {found}; return a scalar tensor, "
        "the mean over the batch"
    )


def give_fakes(state: "TrainingState", step: Step, phase: Phase, batch: Microbatch) -> None:
    """Gives an adversarial phase its fakes.

    The generator's: those kept with their graph, else new ones. The discriminator's: those that are there, else new
    ones, detached; their graph is kept for the generator where the step says so.
    """
    if not phase.adversarial:
        return
    if phase.network == "generator":
        batch.fake, batch.fake_with_graph = batch.fake_with_graph, None
        if batch.fake is None:
            batch.fake = state.generate(batch.latents, batch.fake_labels, **batch.draws)
    elif batch.fake is None:
        one_microbatch = len(state.shards) == 1
        with torch.set_grad_enabled(step.keep_fakes and one_microbatch):
            made = state.generate(batch.latents, batch.fake_labels, **batch.draws)
        batch.fake, batch.fake_with_graph = made.detach(), made if made.requires_grad else None


def second_order(regularizer: Regularizer) -> bool:
    """Whether its term contains a gradient, so that the step differentiates twice: where it does not say, those with
    steps of their own or that reuse logits."""
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
