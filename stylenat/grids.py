"""Sample grids: what people look at first."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from registry.wording import printable
from stylenat.files import whole_file

CELL = 64
"""Pixels: smaller images are enlarged to at least this, so that a grid of them can be looked at."""
GAP = 2
"""Pixels of white around each image."""


def image_grid(images: Tensor, columns: int | None = None) -> Tensor:
    """uint8 [count, 3, side, side] to one uint8 picture [3, height, width]; small images are enlarged exactly."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    scale = max(1, math.ceil(CELL / images.shape[-1]))
    images = images.repeat_interleave(scale, dim=-1).repeat_interleave(scale, dim=-2)
    columns = min(columns, len(images))
    height, width = images.shape[-2] + GAP, images.shape[-1] + GAP
    # Not torchvision's make_grid: importing it takes a second and 160 MB.
    grid = images.new_full((3, math.ceil(len(images) / columns) * height + GAP, columns * width + GAP), 255)
    for i, image in enumerate(images):
        y, x = GAP + i // columns * height, GAP + i % columns * width
        grid[:, y : y + height - GAP, x : x + width - GAP] = image
    return grid


def save_png(path: Path, image: Tensor) -> None:
    """Writes uint8 [3, height, width] whole or not at all."""
    with whole_file(path) as file:
        Image.fromarray(image.permute(1, 2, 0).to(torch.uint8).numpy()).save(file, format="png")


def save_image(path: Path, image: Tensor) -> None:
    """``save_png``, or lossless WebP for a name that ends in ``.webp``."""
    if path.suffix != ".webp":
        save_png(path, image)
        return
    with whole_file(path) as file:
        Image.fromarray(image.permute(1, 2, 0).to(torch.uint8).numpy()).save(file, format="webp", lossless=True)


def labelled_rows(rows: Mapping[str, Tensor], columns: Sequence[str]) -> Tensor:
    """uint8 [columns, 3, side, side] by row name to one picture [3, height, width] with names at its left and top."""
    size, gap = 14, 4
    names = [printable(name, 60) for name in rows]
    font = ImageFont.load_default(size)
    left = gap + max(math.ceil(font.getlength(name)) for name in names) + gap
    grid = image_grid(torch.cat(list(rows.values())), columns=len(columns))
    _, height, width = grid.shape
    sheet = Image.new("RGB", (left + width, size + 2 * gap + height), "white")
    sheet.paste(Image.fromarray(grid.permute(1, 2, 0).numpy()), (left, size + 2 * gap))
    draw = ImageDraw.Draw(sheet)
    for i, name in enumerate(names):
        draw.text((gap, size + 2 * gap + (i + 0.5) * height / len(rows)), name, "black", font, anchor="lm")
    for i, name in enumerate(map(printable, columns)):
        draw.text((left + (i + 0.5) * width / len(columns), gap), name, "black", font, anchor="mt")
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)
