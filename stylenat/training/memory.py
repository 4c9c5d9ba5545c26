"""Memory that ran out: one line with the number of images at once that would fit, by what one image takes."""

import shlex
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import nn

from registry import UserError
from stylenat import ranks
from stylenat.draws import conditions
from stylenat.free_memory import free_memory, memory_ran_out
from stylenat.sampling import default_batch
from stylenat.training.build import indivisible, inputs_of_one
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState

USABLE = 0.9
"""Of the free memory: the rest is lost between blocks of other sizes."""


@contextmanager
def out_of_memory_is_one_line(
    images: Callable[[], int], one: Callable[[], object] | None, device: torch.device, remedy: Callable[[int], str]
) -> Iterator[None]:
    """A context in which memory that runs out is a user's error.

    Args:
        images: how many were processed at once; asked when memory has run out, as the others are.
        one: does the same with one image, so that it can be measured; None for what cannot be repeated.
        device: where.
        remedy: from the number of images that would fit, 0 if one does not, to what the user can do.

    Raises:
        UserError: memory ran out, a GPU's, or the main one where the system refuses it (``ulimit``) instead of killing
            the process.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not memory_ran_out(error):
            raise
        traceback.clear_frames(error.__traceback__)  # Their variables hold the tensors that filled the memory.
        many = images()
        fit = images_that_fit(one, device) if one is not None and device.type == "cuda" else many // 2
        # More than those that did not fit: something else took the memory.
        fit = fit if fit < many else many // 2
        raise UserError(
            f"out of memory on {device} with {many} image(s) at once; {remedy(fit)}; saved files are kept"
        ) from error


def too_little_for(*networks: nn.Module, device: torch.device) -> str | None:
    """A sentence where gradients and two moments of these networks, which stand in memory already, cannot fit into the
    main memory beside them. Activations come on top: what fits is counted by ``run --dry-run --memory``."""
    needed = sum(3 * p.nbytes for network in networks for p in network.parameters())
    free = free_memory() if device.type == "cpu" else None
    if free is None or needed <= free:
        return None
    return (
        f"gradients and optimizers need {needed / 2**20:.0f} MiB of main memory and {free / 2**20:.0f} MiB are free: "
        "the system may kill this run; use a smaller network, or a machine with more memory"
    )


def images_that_fit(one: Callable[[], object], device: torch.device) -> int:
    """Images that fit into a GPU's free memory at once, by the peak of ``one()``; 0 where that does not fit."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        one()
    except torch.OutOfMemoryError:
        return 0
    # What stays allocated, such as gradients, is not an image's.
    image = torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return int(USABLE * free) // max(image, 1)


def smaller_batch(fit: int) -> str:
    """The remedy of commands with the option ``--batch``."""
    return f"add --batch {fit}" if fit else "one does not fit either: use more memory, or another device"


@contextmanager
def training_memory(settings: Training, state: TrainingState, device: torch.device, directory: Path) -> Iterator[None]:
    """``out_of_memory_is_one_line`` around a training, and around its samples and metrics, which are pending then."""

    def images() -> int:
        if state.pending:
            return default_batch(settings.batch_size)
        return settings.batch_size // (settings.accumulate * ranks.world_size())

    def remedy(fit: int) -> str:
        if "samples" in state.pending:
            return f"lower train.batch_size to {max(fit, 1)}: sample grids are made that many at once"
        if state.pending:
            return f"bind train.metrics = [] and measure with tools/evaluate.py --batch {max(fit, 1)}"
        own = settings.batch_size // ranks.world_size()
        group = indivisible(state.generator, state.discriminator, settings.batch_size)
        parts = accumulate_for(own, settings.accumulate, fit, group)
        if parts is None:
            return "no train.accumulate would fit; bind train.activation_checkpointing = True, or a smaller network"
        return (
            f"bind train.accumulate = {parts} ({own // parts} at once, the same result), or lower train.batch_size, "
            f"and add --run-dir {shlex.quote(str(directory))} --resume-with-changes"
        )

    # The discriminator asks the other processes, which do not answer now.
    one = partial(pass_of_one, state, device)
    with out_of_memory_is_one_line(images, one if ranks.world_size() == 1 else None, device, remedy):
        yield


def pass_of_one(state: TrainingState, device: torch.device) -> None:
    """What was being done, with one image: both networks forward and backward, or a sample where one is pending."""
    with torch.device(device):
        latents, labels, draws = inputs_of_one(state.generator)
    if not state.pending:
        state.discriminate(state.generate(latents, labels, **draws), labels).sum().backward()
        return
    with torch.no_grad():
        state.sampled(latents, *conditions(labels), **draws)


def accumulate_for(images: int, accumulate: int, fit: int, group: int = 1) -> int | None:
    """The least number of microbatches, above ``accumulate``, that divides the images and leaves at most ``fit`` in
    each, in groups of ``group``; None where there is none."""
    divisors = (n for n in range(accumulate + 1, images + 1) if images % n == 0 and images // n % group == 0)
    return next((n for n in divisors if images // n <= fit), None)
