"""The training loop: one straight function of time. The maths is in ``steps``; who watches, in the hooks."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from stylenat import ranks
from stylenat.data.ahead import sent_ahead
from stylenat.data.loader import ImageStream
from stylenat.data.pixels import to_networks
from stylenat.devices import sent
from stylenat.draws import Share, augmented
from stylenat.evaluation.cache import StatisticsCache, statistics_folder
from stylenat.evaluation.collect import generated_images
from stylenat.evaluation.evaluate import Evaluation, Evaluator
from stylenat.evaluation.grids import image_grid, save_png
from stylenat.evaluation.progress import ProgressLine
from stylenat.interfaces import Regularizer, StepContext
from stylenat.networks.sampling import Sampler, default_batch, sampler_of
from stylenat.training.ema import ema_decay, update_average
from stylenat.training.guards import weight_norms
from stylenat.training.interrupt import Stopped, StopRequest
from stylenat.training.run import Run
from stylenat.training.saving import Checkpoints
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.steps import (
    Scalars,
    descend,
    discriminator_loss,
    frozen,
    generator_loss,
    linear_decay,
    regularizer_loss,
)

WEIGHT_NORMS_EVERY = 50
"""Iterations; trackers keep the newest value of what is not there in every one."""


def train(
    settings: Training, state: TrainingState, run: Run, hook: Any, deadline: float | None = None
) -> tuple[Literal["finished", "stopped"], Evaluation | None]:
    """Trains from ``state.step`` to ``settings.iterations`` or until asked to stop.

    Args:
        hook: pluggy's hook relay; trackers are registered there.
        deadline: of ``time.monotonic()``, when to stop as if asked to; None for none.

    Returns:
        How it ended, and the last evaluation.
    """
    device = next(state.generator.parameters()).device
    stream = ImageStream(
        settings.dataset,
        settings.batch_size,
        seed=settings.seed,
        horizontal_flips=settings.horizontal_flips,
        workers=settings.workers,
        rank=ranks.rank(),
        world_size=ranks.world_size(),
        normalised=device.type == "cpu",
    )
    evaluator = Evaluator(settings.dataset, settings.metrics, device, StatisticsCache(statistics_folder(), print))
    evaluation: Evaluation | None = None
    scalars: dict[str, Any] = {}
    # Reading what was skipped waits for a GPU, so there it is read once in so many iterations.
    read_every = 1 if device.type == "cpu" else settings.max_skipped

    with StopRequest(deadline) as stop, Checkpoints(settings, state, run, hook) as checkpoints:
        hook.run_started(run=run)
        try:
            batches = sent_ahead(stream.batches(state.images), device)
            while not state.finished:
                if reason := checkpoints.trouble():
                    checkpoints.roll_back(reason, scalars)
                    batches = sent_ahead(stream.batches(state.images), device)

                # Before what is due after the iterations so far, which may fail or be stopped; and once that is done.
                checkpoints.save_if_due()
                try:
                    if "samples" in state.pending:
                        save_samples(settings, state, run, hook, stop)
                    if "evaluation" in state.pending:
                        evaluation = save_evaluation(settings, state, run, hook, stop, evaluator)
                except Stopped:
                    break
                checkpoints.save_if_due()
                if state.finished or ranks.any_of_ranks(stop.requested):
                    break

                state.seed_iteration()
                images = next(batches)
                scalars = iteration(settings, state, to_networks(images) if images.dtype == torch.uint8 else images)
                state.step += 1
                state.images += settings.batch_size
                run.step, run.images = state.step, state.images
                state.pending = due(settings, state.step)
                scalars = state.guard.note(scalars, read_every)
                if state.step % WEIGHT_NORMS_EVERY == 0:
                    scalars |= weight_norms({"generator": state.generator, "discriminator": state.discriminator})
                hook.step_ended(run=run, step=state.step, scalars=scalars)
                checkpoints.tell()
            checkpoints.save_before_stopping()
        except BaseException:
            hook.run_ended(run=run, status="failed")
            raise
        status: Literal["finished", "stopped"] = "finished" if state.finished else "stopped"
        hook.run_ended(run=run, status=status)
    return status, evaluation


def due(settings: Training, step: int) -> list[str]:
    """What is to be done after iteration ``step``, counted from 1."""
    every = {"samples": settings.sample_every, "evaluation": settings.evaluate_every}
    return [name for name, interval in every.items() if step == settings.iterations or step % interval == 0]


def iteration(settings: Training, state: TrainingState, real: Tensor) -> dict[str, Any]:
    """One iteration: D, its lazy terms, G, its lazy terms, the average.

    Args:
        real: this process's images, [batch / processes, 3, resolution, resolution].

    Returns the scalars to track.
    """
    generator, discriminator, streams, shares = state.generator, state.discriminator, state.streams, state.shares
    augment, step, parts = settings.augmentation, state.step, len(state.shares)
    due = [r for r in settings.regularizers if step % r.interval == 0]
    reals = {share: real[i::parts] for i, share in enumerate(shares)}
    state.set_learning_rates(linear_decay(step, settings.iterations, settings.decay_start))

    def latents(share: Share) -> Tensor:
        drawn = torch.randn(settings.batch_size, generator.latent_dim, generator=streams["latents"])
        return sent(share(drawn).to(real.dtype), real.device)

    def context(share: Share, **tensors: Tensor) -> StepContext:
        def seen(images: Tensor) -> Tensor:
            return augmented(augment, images, streams.for_call("augmentation", share))

        return StepContext(
            generator,
            discriminator,
            discriminate=lambda images: state.discriminate(seen(images)),
            discriminate_exactly=lambda images: state.discriminate.exactly(seen(images)),
            random=streams.for_call("regularization", share),
            **tensors,
        )

    def terms(network: str, own_step: bool) -> list[Regularizer]:
        return [r for r in due if r.network == network and r.own_step == own_step]

    # The discriminator's step. Its fakes are detached: it has no use for the generator's gradient. They stay for the
    # generator's step if they are shared; one microbatch's alone fit in memory, so that several are made again.
    made: dict[Share, tuple[Tensor, Tensor | None]] = {}
    logits: list[Tensor] = []
    keep = settings.share_fakes and parts == 1

    def discriminator_losses() -> Iterator[tuple[Tensor, Scalars]]:
        for share in state.microbatches():
            z = latents(share)
            with torch.set_grad_enabled(keep):
                fake = state.generate(z)
            made[share] = z, fake if keep else None
            seen = context(share, real=reals[share], fake=fake.detach(), latents=z)
            yield discriminator_loss(settings.loss, terms("discriminator", False), seen)
            logits.append(seen.real_logits.detach())

    optimizer, scaler = state.discriminator_optimizer, state.scalers["discriminator"]
    scalars: dict[str, Any] = descend(
        "discriminator", optimizer, discriminator_losses(), parts, settings.discriminator_clip, scaler
    )
    augment.observe(torch.cat(logits))

    # Lazy regularizers of the discriminator, each a step of its own.
    for r in terms("discriminator", True):
        losses = (regularizer_loss(r, context(share, real=reals[share])) for share in state.microbatches())
        scalars |= descend(r.name, optimizer, losses, parts, scaler=scaler)

    # The generator's step, on new latents unless the fakes are shared.
    def generator_losses() -> Iterator[tuple[Tensor, Scalars]]:
        for share in state.microbatches():
            z, fake = made[share] if settings.share_fakes else (latents(share), None)
            made[share] = z, None
            seen = context(share, fake=state.generate(z) if fake is None else fake, latents=z)
            yield generator_loss(settings.loss, terms("generator", False), seen)

    optimizer, scaler = state.generator_optimizer, state.scalers["generator"]
    with frozen(discriminator):
        scalars |= descend("generator", optimizer, generator_losses(), parts, scaler=scaler)
    for r in terms("generator", True):
        losses = (regularizer_loss(r, context(share, latents=made[share][0])) for share in state.microbatches())
        scalars |= descend(r.name, optimizer, losses, parts, scaler=scaler)

    decay = ema_decay(settings.batch_size, state.images, settings.ema_half_life, settings.ema_rampup)
    update_average(state.ema, generator, decay)
    return scalars | dict(augment.scalars())


def sampler(settings: Training, state: TrainingState) -> Sampler:
    """Images by their sample index, from the average's weights."""
    return sampler_of(state.ema, settings.seed, settings.truncation_psi, default_batch(settings.batch_size))


def save_samples(settings: Training, state: TrainingState, run: Run, hook: Any, stop: StopRequest) -> None:
    """Writes ``samples/step-...png``, always from the same latents. All processes draw, process 0 writes."""
    path = run.directory / "samples" / f"step-{state.step:09d}.png"
    with stop.at_once():
        images = generated_images(sampler(settings, state), settings.sample_count)
        if ranks.rank() == 0:
            save_png(path, image_grid(images))
    state.pending.remove("samples")
    hook.images_sampled(run=run, step=state.step, images=images, path=path)


def save_evaluation(
    settings: Training, state: TrainingState, run: Run, hook: Any, stop: StopRequest, evaluator: Evaluator
) -> Evaluation:
    """Every metric's values, told to whoever listens."""
    with stop.at_once():
        progress = ProgressLine("evaluating", 30, live=False)

        def told(done: int, count: int) -> None:
            stop.check()
            progress(done, count)

        evaluation = evaluator.evaluate(sampler(settings, state), settings.evaluation_samples, told, stop.check)
    state.pending.remove("evaluation")
    state.note_metrics(evaluation)
    hook.metrics_evaluated(run=run, step=state.step, metrics=evaluation.metrics, details=evaluation.details())
    return evaluation
