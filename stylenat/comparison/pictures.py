"""The variants' samples side by side, and what their heads see."""

import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from registry import UserError
from stylenat.commands.receptive_field import save_neighborhoods
from stylenat.comparison.results import Comparison, Group
from stylenat.comparison.runs import RunResults
from stylenat.evaluation.grids import CELL, labelled_rows

COLUMNS = 8
PADDING = 2
"""White pixels around the images of a sample grid (``evaluation.grids.image_grid``)."""
DRAWN_FROM = ("train.seed", "train.truncation_psi", "generator.style.latent_dim", "train.sample_count")


def same_latents(comparison: Comparison) -> dict[str, RunResults]:
    """By variant a run with samples, all of one seed and truncation, so that their images come from the same latents.

    Empty where there is no such seed.
    """
    seeds = [{run.seed for run in group.runs if run.grid} for group in comparison.groups]
    for seed in sorted(set.intersection(*seeds)) if seeds else []:
        chosen = {g.name: next(run for run in g.runs if run.seed == seed) for g in comparison.groups}
        if len({tuple(run.settings.get(name) for name in DRAWN_FROM) for run in chosen.values()}) == 1:
            return chosen
    return {}


def side_by_side(chosen: dict[str, RunResults]) -> bytes:
    """A PNG: a row a variant, a column a latent, from the first row of each run's last sample grid."""
    rows = {}
    for name, run in chosen.items():
        count = min(COLUMNS, len(_first_row(run)))
        rows[name] = torch.from_numpy(np.stack(_first_row(run)[:count])).permute(0, 3, 1, 2)
    columns = min(len(row) for row in rows.values())
    sheet = labelled_rows({name: row[:columns] for name, row in rows.items()}, [f"latent {i}" for i in range(columns)])
    out = io.BytesIO()
    Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(out, format="png")
    return out.getvalue()


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


def what_heads_see(group: Group) -> bytes | None:
    """The PNG of the receptive fields at the sites of the variant's own generator; None where it has no head groups."""
    if not group.runs[0].neighborhoods:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "receptive_field.png"
        save_neighborhoods(path, group.name, group.runs[0].neighborhoods)
        return path.read_bytes()
