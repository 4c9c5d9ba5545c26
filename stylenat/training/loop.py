"""The training loop: one straight function of time. What an iteration computes is in ``step``."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from stylenat import ranks
from stylenat.data.ahead import sent_ahead
from stylenat.data.loader import ImageStream
from stylenat.devices import sent
from stylenat.evaluation.cache import StatisticsCache, statistics_folder
from stylenat.evaluation.collect import generated_images
from stylenat.evaluation.evaluate import Evaluation, Evaluator
from stylenat.evaluation.progress import ProgressLine
from stylenat.grids import image_grid, save_png
from stylenat.pixels import SPACES, to_networks
from stylenat.sampling import Sampler, default_batch, in_evaluation, sampler_of
from stylenat.training.agreement import code_digest
from stylenat.training.compilation import check_hooks
from stylenat.training.guards import weight_norms
from stylenat.training.interrupt import Stopped, StopRequest
from stylenat.training.run import Run
from stylenat.training.saving import Checkpoints
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

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
        pixel_space=SPACES[settings.pixel_space],
    )
    cache = StatisticsCache(statistics_folder(), print)
    kept_as = {"config": run.config_text, "plugins": run.environment.get("plugin_files"), "code": code_digest()}
    evaluator = Evaluator(settings.dataset, settings.metrics, device, cache, kept_as=kept_as)
    evaluation: Evaluation | None = None
    scalars: dict[str, Any] = {}
    # Reading what was skipped waits for a GPU, so there it is read once in so many iterations.
    read_every = 1 if device.type == "cpu" else settings.max_skipped

    with StopRequest(deadline) as stop, Checkpoints(settings, state, run, hook) as checkpoints:
        hook.run_started(run=run)
        try:
            check_hooks(settings, {"generator": state.generator, "discriminator": state.discriminator})
            images = reals(stream, state, device)
            while not state.finished:
                if reason := checkpoints.trouble():
                    checkpoints.roll_back(reason, scalars)
                    images = reals(stream, state, device)

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
                scalars = iteration(state, images)
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


def reals(stream: ImageStream, state: TrainingState, device: torch.device) -> Iterator[tuple[Tensor, Tensor | None]]:
    """This process's batches on ``device`` from ``state.drawn`` on: images in the networks' space, and labels
    [batch, num_classes], None in an unconditional experiment."""
    start, classes, space = state.drawn, state.classes, SPACES[state.settings.pixel_space]
    for number, images in enumerate(sent_ahead(stream.batches(start), device)):
        labels = None
        if classes is not None:
            labels = sent(classes.one_hot(stream.labels(start + number * stream.batch_size)), device)
        yield to_networks(images, space) if images.dtype == torch.uint8 else images, labels


def due(settings: Training, step: int) -> list[str]:
    """What is to be done after iteration ``step``, counted from 1."""
    every = {"samples": settings.sample_every, "evaluation": settings.evaluate_every}
    return [name for name, interval in every.items() if step == settings.iterations or step % interval == 0]


def sampler(settings: Training, state: TrainingState) -> Sampler:
    """Images by their sample index, from the average's weights."""
    batch = default_batch(settings.batch_size)
    return sampler_of(
        state.sampled,
        settings.seed,
        settings.truncation_psi,
        batch,
        state.classes,
        settings.pixel_space,
    )


def save_samples(settings: Training, state: TrainingState, run: Run, hook: Any, stop: StopRequest) -> None:
    """Writes ``samples/step-...png``, always from the same latents, of one class a row where there are classes. All
    processes draw, process 0 writes."""
    path = run.directory / "samples" / f"step-{state.step:09d}.png"
    with stop.at_once(), in_evaluation(state.sampled):
        columns = math.ceil(math.sqrt(settings.sample_count))
        images = generated_images(sampler(settings, state).in_rows(columns), settings.sample_count)
        if ranks.rank() == 0:
            path.parent.mkdir(exist_ok=True)  # It may have been removed.
            save_png(path, image_grid(images))
    state.pending.remove("samples")
    hook.images_sampled(run=run, step=state.step, images=images, path=path)


def save_evaluation(
    settings: Training, state: TrainingState, run: Run, hook: Any, stop: StopRequest, evaluator: Evaluator
) -> Evaluation:
    """Computes all metrics and calls the hook ``metrics_evaluated``."""
    with stop.at_once(), in_evaluation(state.sampled):
        progress = ProgressLine("evaluating", 30, live=False)

        def report(done: int, count: int) -> None:
            stop.check()
            progress(done, count)

        evaluation = evaluator.evaluate(sampler(settings, state), settings.evaluation_samples, report, stop.check)
    state.pending.remove("evaluation")
    state.note_metrics(evaluation)
    hook.metrics_evaluated(run=run, step=state.step, metrics=evaluation.metrics, details=evaluation.details())
    return evaluation
