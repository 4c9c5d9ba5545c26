"""A figure of chosen samples: a row for each variant, a column for each sample index or class, drawn anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from registry import Experiment, Registry, UserError
from stylenat import checkpoint, weights
from stylenat.comparison.results import Comparison
from stylenat.comparison.runs import RunResults, load_run
from stylenat.comparison.sheets import Sheet
from stylenat.sampling import default_batch, sampler_of

MOST = 64
"""Columns."""


@dataclass(frozen=True)
class Choice:
    """What to draw.

    Attributes:
        samples: indices, as of ``tools/sample.py --seeds``; classes: of conditional generators, each with every index;
            empty for classes as in the data.
        truncation_psi: None for each run's own.
    """

    samples: Sequence[int]
    classes: Sequence[int] = ()
    truncation_psi: float | None = None


def draw(registry: Registry, comparison: Comparison, choice: Choice) -> Sheet:
    """Each variant is drawn from its run with the lowest seed that all have.

    Raises:
        UserError: no common seed, more than ``MOST`` columns, a run without a checkpoint, or without the classes.
    """
    columns = [(number, index) for number in (choice.classes or [None]) for index in choice.samples]
    if len(columns) > MOST:
        raise UserError(f"--draw: {len(columns)} columns are more than {MOST}; choose fewer samples or classes")
    by_seed = {group.name: {run.seed: run for run in group.ranked} for group in comparison.groups if group.ranked}
    common = set.intersection(*(set(runs) for runs in by_seed.values())) if by_seed else set()
    if not common:
        raise UserError("--draw: the variants have no seed in common, so there are no latents to draw all of them from")
    seed = min(common)
    rows, steps, scales = {}, set(), set()
    for name, runs in by_seed.items():
        folder = _checkpoint(runs[seed], comparison)
        experiment = load_run(registry, runs[seed].directory)
        psi = experiment.value("train.truncation_psi") if choice.truncation_psi is None else choice.truncation_psi
        rows[name] = _images(experiment, folder, seed, psi, columns)
        steps.add(weights.manifest_of(folder).get("step"))
        scales.add(psi)
    titles = [f"sample {i}" if number is None else f"class {number}, {i}" for number, i in columns]
    truncated = ", ".join("not truncated" if psi == 1 else f"truncated with psi {psi:g}" for psi in sorted(scales))
    what = f"sample{'s' if len(choice.samples) > 1 else ''} {', '.join(map(str, choice.samples))}"
    of = f" of class {', '.join(map(str, choice.classes))}" if choice.classes else ""
    after = " or ".join(f"{step:,}" for step in sorted(step for step in steps if step is not None))
    caption = (
        f"Chosen {what}{of} (columns) of {', '.join(rows)} (rows) from the same latents, seed {seed}, {truncated}, "
        f"after {after or 'an unknown number of'} iterations."
    )
    return Sheet(rows, titles, caption)


def _checkpoint(run: RunResults, comparison: Comparison) -> Path:
    """The newest, or that of the iteration that is compared."""
    if comparison.at is None or comparison.at.unit != "iterations":
        return weights.weights_folder(run.directory)
    path = checkpoint.checkpoint_path(run.directory / "checkpoints", comparison.at.number)
    if not path.is_dir():
        raise UserError(f"--draw: {run.directory} has no checkpoint of iteration {comparison.at.number}")
    return weights.weights_folder(path)


def _images(
    experiment: Experiment, folder: Path, seed: int, psi: float, columns: Sequence[tuple[int | None, int]]
) -> Tensor:
    """uint8 [columns, 3, side, side]."""
    generator, _ = weights.generator_of(folder, experiment.value("train.generator"))
    classes = weights.classes_of_weights(folder, generator)
    batch, space = default_batch(experiment.value("train.batch_size")), experiment.value("train.pixel_space")
    sampler = sampler_of(generator, seed, psi, batch, classes, space)
    return torch.cat([(sampler if k is None else sampler.of_class(k))(index, 1) for k, index in columns])
