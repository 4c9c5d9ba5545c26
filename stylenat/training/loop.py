"""The training loop: one straight function of time. The maths is in ``steps``; who watches, in the hooks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from registry import UserError
from stylenat.data.loader import ImageStream
from stylenat.data.pixels import to_networks
from stylenat.evaluation.cache import StatisticsCache, cache_folder
from stylenat.evaluation.evaluate import Evaluation, Evaluator
from stylenat.evaluation.grids import image_grid, save_png
from stylenat.interfaces import StepContext
from stylenat.networks.sampling import Sampler, sampler_of
from stylenat.training import checkpoint
from stylenat.training.ema import ema_decay, update_average
from stylenat.training.interrupt import StopRequest
from stylenat.training.run import Run
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.steps import discriminator_step, generator_step, linear_decay, regularizer_step


def train(
    settings: Training, state: TrainingState, run: Run, hook: Any
) -> tuple[Literal["finished", "stopped"], Evaluation | None]:
    """Trains from ``state.step`` to ``settings.iterations`` or until asked to stop.

    Args:
        hook: pluggy's hook relay; trackers are registered there.

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
    saved = state.step

    with StopRequest() as stop:
        hook.run_started(run=run)
        try:
            for images in stream.batches(state.step):
                if state.step >= settings.iterations or stop.requested:
                    break
                scalars = iteration(settings, state, to_networks(images.to(device)).contiguous())
                state.step += 1
                run.step = state.step
                hook.step_ended(run=run, step=state.step, scalars=scalars)

                last = state.step == settings.iterations
                if last or state.step % settings.sample_every == 0:
                    save_samples(settings, state, run, hook)
                if last or state.step % settings.evaluate_every == 0:
                    evaluation = evaluator.evaluate(sampler(settings, state), settings.evaluation_samples)
                    metrics = evaluation.metrics
                    for name, value in metrics.items():
                        state.best[name] = evaluation.better(name, value, state.best.get(name, value))
                    hook.metrics_evaluated(run=run, step=state.step, metrics=metrics, details=evaluation.details())
                if last or state.step % settings.checkpoint_every == 0:
                    save_checkpoint(settings, state, run, hook)
                    saved = state.step
            if state.step != saved:  # Asked to stop between two checkpoints.
                save_checkpoint(settings, state, run, hook)
        except BaseException:
            hook.run_ended(run=run, status="failed")
            raise
        status: Literal["finished", "stopped"] = "finished" if state.step >= settings.iterations else "stopped"
        hook.run_ended(run=run, status=status)
    return status, evaluation


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


def save_samples(settings: Training, state: TrainingState, run: Run, hook: Any) -> Path:
    """Writes ``samples/step-...png``, always from the same latents."""
    images = sampler(settings, state)(0, settings.sample_count)
    path = run.directory / "samples" / f"step-{state.step:09d}.png"
    save_png(path, image_grid(images))
    hook.images_sampled(run=run, step=state.step, images=images, path=path)
    return path


def save_checkpoint(settings: Training, state: TrainingState, run: Run, hook: Any) -> Path:
    """Writes ``checkpoints/step-...``."""
    folder = run.directory / "checkpoints"
    diverged = [
        name
        for name, network in state.networks().items()
        if not all(parameter.isfinite().all() for parameter in network.parameters())
    ]
    if diverged:
        raise UserError(
            f"the weights of {', '.join(diverged)} are no longer finite at iteration {state.step}: training diverged. "
            f"Earlier checkpoints are kept in {folder}; lower the learning rates and start a new run"
        )
    path = checkpoint.save(folder, state.step, state.networks(), state.state_dict(), settings.keep_checkpoints)
    hook.checkpoint_saved(run=run, step=state.step, path=path)
    return path
