"""The training loop: one straight function of time. The maths is in ``steps``; who watches, in the hooks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from stylenat.data.loader import ImageStream
from stylenat.data.pixels import to_networks
from stylenat.evaluation.cache import StatisticsCache, cache_folder
from stylenat.evaluation.evaluate import Evaluation, Evaluator
from stylenat.evaluation.grids import image_grid, save_png
from stylenat.evaluation.progress import ProgressLine
from stylenat.interfaces import StepContext
from stylenat.networks.sampling import Sampler, sampler_of
from stylenat.training.ema import ema_decay, update_average
from stylenat.training.guards import weight_norms
from stylenat.training.interrupt import Stopped, StopRequest
from stylenat.training.ranks import any_of_ranks, world_size
from stylenat.training.run import Run
from stylenat.training.saving import Checkpoints
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.steps import discriminator_step, generator_step, linear_decay, regularizer_step

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
    )
    evaluator = Evaluator(settings.dataset, settings.metrics, device, StatisticsCache(cache_folder(), print))
    evaluation: Evaluation | None = None
    scalars: dict[str, Any] = {}
    # Reading what was skipped waits for a GPU, so there it is read once in so many iterations.
    read_every = 1 if device.type == "cpu" else settings.max_skipped

    with StopRequest(deadline, alone=world_size() == 1) as stop, Checkpoints(settings, state, run, hook) as checkpoints:
        hook.run_started(run=run)
        try:
            batches = stream.batches(state.step)
            while not state.finished:
                if reason := checkpoints.trouble():
                    checkpoints.roll_back(reason, scalars)
                    batches = stream.batches(state.step)

                # What is due after the iterations so far: an earlier process may have been stopped amid it.
                try:
                    if "samples" in state.pending:
                        save_samples(settings, state, run, hook, stop)
                    if "evaluation" in state.pending:
                        evaluation = save_evaluation(settings, state, run, hook, stop, evaluator)
                except Stopped:
                    break
                checkpoints.save_if_due()
                if state.finished or any_of_ranks(stop.requested):
                    break

                state.seed_iteration()
                scalars = iteration(settings, state, to_networks(next(batches).to(device)).contiguous())
                state.step += 1
                run.step = state.step
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
    """One iteration on real images [batch, 3, resolution, resolution]: D, its lazy terms, G, the average.

    Returns the scalars to track.
    """
    generator, discriminator, streams = state.generator, state.discriminator, state.streams
    augment, step = settings.augmentation, state.step
    due = [r for r in settings.regularizers if step % r.interval == 0]
    state.set_learning_rates(linear_decay(step, settings.iterations, settings.decay_start))

    def latents() -> Tensor:
        drawn = torch.randn(settings.batch_size, generator.latent_dim, generator=streams["latents"])
        return drawn.to(real.device)

    def discriminate(images: Tensor) -> Tensor:
        return discriminator(augment(images, streams["augmentation"]))

    def context(**tensors: Tensor) -> StepContext:
        return StepContext(generator, discriminator, discriminate, streams["regularization"], **tensors)

    def terms(network: str) -> list[Any]:
        return [r for r in due if r.network == network and not r.own_step]

    # The discriminator's step. Its fakes are detached: it has no use for the generator's gradient.
    z = latents()
    with torch.set_grad_enabled(settings.share_fakes):
        fake = generator(z)
    scalars: dict[str, Any]
    scalars, real_logits = discriminator_step(
        discriminator,
        state.discriminator_optimizer,
        settings.loss,
        terms("discriminator"),
        context(real=real, fake=fake.detach(), latents=z),
        settings.discriminator_clip,
    )
    augment.observe(real_logits)

    # Lazy regularizers of the discriminator, each a step of its own.
    for regularizer in (r for r in due if r.own_step and r.network == "discriminator"):
        scalars |= regularizer_step(state.discriminator_optimizer, regularizer, context(real=real))

    # The generator's step, on new latents unless the fakes are shared.
    if not settings.share_fakes:
        z = latents()
    make: Callable[[], Tensor] = (lambda: fake) if settings.share_fakes else (lambda: generator(z))
    scalars |= generator_step(
        generator,
        discriminator,
        state.generator_optimizer,
        settings.loss,
        terms("generator"),
        context(latents=z),
        make,
    )
    for regularizer in (r for r in due if r.own_step and r.network == "generator"):
        scalars |= regularizer_step(state.generator_optimizer, regularizer, context(latents=z))

    images_seen = step * settings.batch_size
    decay = ema_decay(settings.batch_size, images_seen, settings.ema_half_life, settings.ema_rampup)
    update_average(state.ema, generator, decay)
    return scalars | dict(augment.scalars())


def sampler(settings: Training, state: TrainingState) -> Sampler:
    """Images by their sample index, from the average's weights."""
    return sampler_of(state.ema, settings.seed, settings.truncation_psi, settings.batch_size)


def save_samples(settings: Training, state: TrainingState, run: Run, hook: Any, stop: StopRequest) -> Path:
    """Writes ``samples/step-...png``, always from the same latents."""
    path = run.directory / "samples" / f"step-{state.step:09d}.png"
    with stop.at_once():
        images = sampler(settings, state)(0, settings.sample_count)
        save_png(path, image_grid(images))
    state.pending.remove("samples")
    hook.images_sampled(run=run, step=state.step, images=images, path=path)
    return path


def save_evaluation(
    settings: Training, state: TrainingState, run: Run, hook: Any, stop: StopRequest, evaluator: Evaluator
) -> Evaluation:
    """Every metric's values, told to whoever listens."""
    with stop.at_once():
        progress = ProgressLine("evaluating", 30, live=False)
        evaluation = evaluator.evaluate(sampler(settings, state), settings.evaluation_samples, progress)
    state.pending.remove("evaluation")
    state.note_metrics(evaluation)
    hook.metrics_evaluated(run=run, step=state.step, metrics=evaluation.metrics, details=evaluation.details())
    return evaluation
