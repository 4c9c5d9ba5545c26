"""Sample grids: what people look at first."""

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from stylenat.files import whole_file

CELL = 64
"""Pixels: smaller images are enlarged to at least this, so that a grid of them can be looked at."""


def image_grid(images: Tensor, columns: int | None = None) -> Tensor:
    """uint8 [count, 3, side, side] to one uint8 picture [3, height, width]; small images are enlarged exactly."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    scale = max(1, math.ceil(CELL / images.shape[-1]))
    images = images.repeat_interleave(scale, dim=-1).repeat_interleave(scale, dim=-2)
    return make_grid(images, nrow=columns, padding=2, pad_value=255)


def save_png(path: Path, image: Tensor) -> None:
    """Writes uint8 [3, height, width] whole or not at all."""
    with whole_file(path) as file:
        Image.fromarray(image.permute(1, 2, 0).to(torch.uint8).numpy()).save(file, format="png")
