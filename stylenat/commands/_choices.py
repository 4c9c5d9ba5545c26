"""What ``tools/new_experiment.py`` chooses for a number of images, a side and a machine, with the reasons as text."""

import textwrap
from dataclasses import dataclass
from typing import Any

SIDES = (64, 128, 256)
GAMMA = {64: 1.0, 128: 3.0, 256: 10.0}
"""R1's weight by side: 0.1 and 0.3 at 16 and 32 (the shipped experiments), 10 at 256 (published)."""
FEW = 1_000
"""Images below which ADA may adapt quickly and the run is short."""
MANY = 50_000
"""Images from which ADA is left out: its paper (arXiv 2006.06676, figure 1) finds little overfitting beyond them."""
WANTED = {True: 2_000_000, False: 25_000_000}
"""Images that are shown in training at most, by whether there are few: 25 million are StyleGAN2-ADA's."""
EVALUATIONS, GRIDS, GRID = 10, 20, 64
"""Of a run; the images of a sample grid."""
FOR_SAMPLES = 0.1
"""The share of the hours for metrics and sample grids."""
WIDTH = 120
"""Columns of the gin file."""


@dataclass(frozen=True)
class Machine:
    """What trains.

    Attributes:
        name: for the file's header; gpu: whether it is one; usable: GB of memory that a training may fill.
    """

    name: str
    gpu: bool
    usable: float


@dataclass(frozen=True)
class Pace:
    """Seconds of a mean iteration and of a generated image, measured.

    Attributes:
        others: the share of the cores' time that other processes used meanwhile.
    """

    iteration: float
    sample: float
    others: float = 0.0


def networks(count: int, side: int, machine: Machine) -> dict[str, Any]:
    """All values of the template that need no measurement: data, networks, objective, augmentation, batch and rates."""
    few = count < FEW
    return {
        "count": f"{count:,}",
        "side": side,
        "machine": machine.name,
        "gamma": GAMMA[side],
        **(_published(count) if machine.gpu else _small(side)),
        **_augmentation(count, few),
    }


def _published(count: int) -> dict[str, Any]:
    multiplier = 1 if count < 10 * FEW else 2
    return {
        "widths_reason": f"the published widths, times {multiplier} from 64x64 up (2 from {10 * FEW:,} images on).",
        "generator": f"generator.style.channel_multiplier = {multiplier}",
        "discriminator": f"discriminator.wavelet.channel_multiplier = {multiplier}",
        "interval": 16,
        "batch": 32,
        "rates_reason": "those of the published FFHQ-256 training, whose batch and half-life are used too.",
        "generator_rate": 5e-5,
        "discriminator_rate": 2e-4,
        "half_life": 10000,
        "device": "train.tf32 = True  # Products on tensor cores: faster, rounded to 10 bits.",
    }


def _small(side: int) -> dict[str, Any]:
    generator = [
        "generator.style.channels = [96, 96, 64, 32]",
        *(f"generator.style.{name} = {size}" for name, size in (("latent_dim", 64), ("style_dim", 64))),
        "generator.style.mapping_layers = 2",
        "generator.style.min_heads = 2",
        "generator.style.to_rgb_gain = 0.5",
        "block.hydra.mlp_ratio = 2",
        "block.hydra.gamma_bias = 1.0",
        "block.hydra.style_gain = 0.5",
    ]
    return {
        "widths_reason": "those of gin/faces32.gin, for 4x4, 8x8, ...; each further resolution has half the width, at "
        "least 8. The published networks would take minutes an iteration on a CPU.",
        "generator": "\n".join(generator),
        "discriminator": "discriminator.wavelet.channels = [96, 96, 64]\ndiscriminator.wavelet.spectral_norm = False",
        "interval": 8,
        "batch": 16 if side == 64 else 8,
        "rates_reason": "a little below those of gin/faces32.gin (7e-4 and 1.4e-3), since the networks are deeper.",
        "generator_rate": 5e-4,
        "discriminator_rate": 1e-3,
        "half_life": 5000,
        "device": "train.device = 'cpu'",
    }


def _augmentation(count: int, few: bool) -> dict[str, Any]:
    if count >= MANY:
        return {
            "augmentation": "train.augmentation = @augmentation.none()",
            "augmentation_reason": f"none; from about {MANY:,} images on the discriminator overfits little.",
        }
    lines = ["train.augmentation = @augmentation.ada()"]
    reason = f"ADA (arXiv 2006.06676), since a discriminator learns {count:,} images by heart. "
    if not few:
        lines += ["augmentation.ada.target = 0.6", "augmentation.ada.images_to_full = 500000"]
        reason += "Target and speed are the paper's."
    else:
        unlike = "{'rotate_90': 0.0, 'luma_flip': 0.0, 'hue': 0.0, 'saturation': 0.0}"
        lines += [
            f"augmentation.ada.multipliers = {unlike}",
            "augmentation.ada.target = 0.5",
            "augmentation.ada.images_to_full = 100000",
            "augmentation.ada.max_p = 0.6",
        ]
        reason += (
            "With so few it has to adapt quickly. Its strength is bounded, and transforms that no photo shows are off: "
            "samples would show them. All are drawn by `python tools/show_augmentations.py --gin FILE`."
        )
    return {"augmentation": "\n".join(lines), "augmentation_reason": reason}


def memory(batch: int, accumulate: int, recompute: bool, image: float, machine: Machine) -> dict[str, Any]:
    """The template's values for a batch that was divided so that it fits. ``image``: GB of a training image."""
    parts = "" if accumulate == 1 else f", in {accumulate} parts that are computed one after the other"
    again = " Activations are computed again, which saves memory and takes a third more time." if recompute else ""
    return {
        "batch": batch,
        "accumulate": accumulate,
        "recompute": recompute,
        "batch_reason": f"{batch} images{parts}: a training image takes {image:.2g} GB, counted, and "
        f"{machine.usable:.3g} GB may be used.{again}",
    }


def budget(count: int, batch: int, hours: float, pace: Pace) -> dict[str, Any]:
    """The template's values for the length of the run."""
    few = count < FEW
    wanted = WANTED[few] // batch
    affordable_samples = FOR_SAMPLES * 3600 * hours / pace.sample - GRIDS * GRID
    evaluation_samples = min(1000 if few else 10_000, max(100, _two_digits(int(affordable_samples / EVALUATIONS))))
    sampling = (EVALUATIONS * evaluation_samples + GRIDS * GRID) * pace.sample
    affordable = int((3600 * hours - sampling) / pace.iteration)
    iterations = max(1, _two_digits(min(wanted, affordable)))
    taken = iterations * pace.iteration + sampling
    shown = iterations * batch
    bound = (
        f"what {hours:g} hours allow (--hours)"
        if affordable < wanted
        else "enough for so many images; watch the metrics, and stop when they rise"
    )
    return {
        "hours": f"{taken / 3600:.2g}",
        "budget_reason": f"{shown:,} images, {bound}. Here an iteration took {pace.iteration:.2g} s and a sample "
        f"{pace.sample:.2g} s.",
        "iterations": iterations,
        "decay_start": iterations * 3 // 4,
        "checkpoint_every": max(1, iterations // GRIDS),
        "sample_every": max(1, iterations // GRIDS),
        "evaluate_every": max(1, iterations // EVALUATIONS),
        "evaluation_samples": evaluation_samples,
        "evaluation_reason": f"{EVALUATIONS} evaluations take about a tenth of the time at most.",
    }


def wrapped(text: str) -> str:
    """The gin text with long comment lines divided."""
    lines = []
    for line in text.splitlines():
        long = line.startswith("# ") and len(line) > WIDTH
        lines += [f"# {part}" for part in textwrap.wrap(line[2:], WIDTH - 2)] if long else [line]
    return "\n".join([*lines, ""])


def _two_digits(number: int) -> int:
    """The number with its first two digits, and zeros behind them."""
    step = 10 ** max(len(str(number)) - 2, 0)
    return number // step * step
