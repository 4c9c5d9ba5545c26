"""The variants' samples side by side, and what their heads see."""

import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from registry import UserError
from stylenat.comparison.results import Comparison
from stylenat.comparison.runs import RunResults
from stylenat.comparison.sheets import Sheet
from stylenat.grids import CELL
from stylenat.networks.neighborhoods import Neighborhoods
from stylenat.receptive_field import save_neighborhoods

COLUMNS = 8
PADDING = 2
"""White pixels around the images of a sample grid (``evaluation.grids.image_grid``)."""
DRAWN_FROM = re.compile(r"train\.(seed|truncation_psi|sample_count)|generator\.\w+\.latent_dim")
"""Settings that decide the latents of a run's sample grid."""


def same_latents(comparison: Comparison) -> tuple[dict[str, RunResults], list[str]]:
    """By variant a run with samples, all of one seed and truncation, so that their images come from the same latents.

    Empty where there is no such seed. Beside them, a line for variants that have no sample grid.
    """
    drawn = {group.name: {run.seed: run for run in group.runs if run.grid} for group in comparison.groups}
    absent = [name for name, runs in drawn.items() if not runs]
    seeds = [set(runs) for runs in drawn.values() if runs]
    for seed in sorted(set.intersection(*seeds)) if seeds else []:
        chosen = {name: runs[seed] for name, runs in drawn.items() if runs}
        if len({_drawn_from(run) for run in chosen.values()}) == 1:
            return chosen, [f"no samples of {', '.join(absent)}: there is no sample grid"] if absent else []
    return {}, []


def _drawn_from(run: RunResults) -> frozenset[tuple[str, str]]:
    """Without the generator's own name: systems of one latent_dim draw the same."""
    return frozenset(
        (name.rpartition(".")[2], value) for name, value in run.settings.items() if DRAWN_FROM.fullmatch(name)
    )


def side_by_side(chosen: dict[str, RunResults]) -> Sheet:
    """One row for each variant, one column for each latent, of the first row of each run's last grid."""
    rows = {}
    for name, run in chosen.items():
        count = min(COLUMNS, len(_first_row(run)))
        rows[name] = torch.from_numpy(np.stack(_first_row(run)[:count])).permute(0, 3, 1, 2)
    columns = min(len(row) for row in rows.values())
    cut = {name: row[:columns] for name, row in rows.items()}
    return Sheet(cut, [f"latent {i}" for i in range(columns)], _caption(chosen))


def _caption(chosen: dict[str, RunResults]) -> str:
    """A sentence on ``side_by_side``: seed, truncation, and that nothing was selected."""
    first = next(iter(chosen.values()))
    psi = first.settings.get("train.truncation_psi", "1.0")
    truncated = "not truncated" if float(psi) == 1 else f"truncated with psi {psi}"
    steps = sorted({run.step for run in chosen.values()})
    return (
        f"Samples of {', '.join(chosen)} (rows) from the same latents (columns), seed {first.seed}, {truncated}, after "
        f"{' or '.join(f'{step:,}' for step in steps)} iterations; the first ones, none selected."
    )


def _first_row(run: RunResults) -> list[np.ndarray]:
    """The images in the first row of the run's grid, uint8 [side, side, 3], at the size they are shown in."""
    assert run.grid is not None
    try:
        grid = np.asarray(Image.open(run.grid).convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"the sample grid {run.grid} cannot be read: {error}") from error
    shown = run.resolution * max(1, -(-CELL // run.resolution))
    starts = range(PADDING, grid.shape[1] - shown + 1, shown + PADDING)
    return [grid[PADDING : PADDING + shown, x : x + shown] for x in starts]


def what_heads_see(comparison: Comparison) -> dict[str, bytes]:
    """PNGs of the receptive fields at the sites of the variants' generators, by the variants that share them."""
    shared: dict[Neighborhoods, list[str]] = {}
    for group in comparison.groups:
        if group.runs[0].neighborhoods:
            shared.setdefault(group.runs[0].neighborhoods, []).append(group.name)
    pictures = {}
    for fields, names in shared.items():
        title = "all variants" if len(comparison.groups) == len(names) > 1 else ", ".join(names)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "receptive_field.png"
            save_neighborhoods(path, title, fields)
            pictures[title] = path.read_bytes()
    return pictures
