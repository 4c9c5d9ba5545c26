"""Metrics ``equivariance_translation`` and ``equivariance_rotation`` (StyleGAN3, arXiv 2106.12423, section 2.2)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugins.metrics.moved import limited, rotation, shifted, translated, turned
from registry import Share, UserError
from stylenat.evaluation.accumulators import Rows
from stylenat.interfaces import Sampler
from stylenat.random_streams import BLOCK, derived_seed
from stylenat.sampling import takes_transform

HIGHEST = 150.0
"""Decibels that are reported at most; float32 images carry no more."""
RANGE = 255.0


class Errors:
    """Of each sample and comparison, the sum of squared differences between the image of a moved input and the moved
    image, and the number of values that were compared. Samples of a block of 16 indices share a move."""

    name = "equivariance"

    def __init__(self, comparisons: Mapping[str, "Translation | Rotation"]) -> None:
        self.comparisons = comparisons

    def protocol(self) -> dict[str, Any]:
        of_each = {name: comparison.protocol() for name, comparison in self.comparisons.items()}
        return {"name": self.name, "version": 1, **of_each}

    def check_generator(self, generator: nn.Module) -> None:
        """Raises UserError for one whose input cannot be moved."""
        if not takes_transform(generator):
            raise UserError(
                "metrics of equivariance need a generator whose synthesis takes a transform of its input, such as "
                "generator.stylegan3"
            )

    @torch.no_grad()
    def along(self, sampler: Sampler, start: int, count: int) -> Tensor:
        """float32 [count, 2 comparisons] of the samples number ``start`` to ``start + count``."""
        if not hasattr(sampler, "styles"):
            raise UserError("metrics of equivariance measure a generator; these are only images")
        if hasattr(sampler, "generator"):
            self.check_generator(sampler.generator)
        styles = sampler.styles(sampler.latents(start, count), sampler.labels(start, count))
        images = sampler.pixels(styles)
        blocks = torch.arange(start, start + count) // BLOCK
        found = []
        for name, comparison in self.comparisons.items():
            moves = {block: comparison.move(_uniform(name, block), images.shape[-1]) for block in set(blocks.tolist())}
            transforms = {block: comparison.transform(move, images.shape[-1]) for block, move in moves.items()}
            others = sampler.pixels(styles, torch.stack([transforms[b] for b in blocks.tolist()]).to(images))
            sums = images.new_empty(count, 2)
            for block, move in moves.items():
                part = blocks == block
                expected, got, mask = comparison.compared(images[part], others[part], move)
                difference = (expected.double() - got.double()).square() * mask
                sums[part, 0] = difference.sum(dim=(1, 2, 3)).float()
                sums[part, 1] = mask.sum() * images.shape[1]
            found.append(sums)
        return torch.cat(found, dim=1)


class Translation:
    """By up to a share of the side, each way; by whole pixels or any number."""

    def __init__(self, largest: float, whole: bool) -> None:
        self.largest, self.whole = largest, whole

    def protocol(self) -> dict[str, Any]:
        return {"largest": self.largest, "whole": self.whole}

    def move(self, draw: list[float], side: int) -> tuple[float, float]:
        """In pixels."""
        x, y = ((2 * number - 1) * self.largest * side for number in draw)
        return (round(x), round(y)) if self.whole else (x, y)

    def transform(self, move: tuple[float, float], side: int) -> Tensor:
        found = torch.eye(3, dtype=torch.float64)
        found[:2, 2] = -torch.tensor(move, dtype=torch.float64) / side
        return found

    def compared(self, image: Tensor, other: Tensor, move: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
        """What is expected, what was found, and the mask."""
        moved, mask = shifted(image, int(move[0]), int(move[1])) if self.whole else translated(image, *move)
        return moved, other, mask


class Rotation:
    """By any angle up to a share of half a turn, each way."""

    def __init__(self, largest: float) -> None:
        self.largest = largest

    def protocol(self) -> dict[str, Any]:
        return {"largest": self.largest}

    def move(self, draw: list[float], side: int) -> tuple[float, float]:
        """The angle."""
        return (2 * draw[0] - 1) * self.largest * math.pi, 0.0

    def transform(self, move: tuple[float, float], side: int) -> Tensor:
        found = torch.eye(3, dtype=torch.float64)
        found[:2, :2] = rotation(-move[0])
        return found

    def compared(self, image: Tensor, other: Tensor, move: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
        """What is expected, what was found, and the mask."""
        (expected, one_mask), (found, other_mask) = turned(image, move[0]), limited(other, move[0])
        return expected, found, one_mask * other_mask


class _Equivariance:
    higher_is_better = True
    uses_real = False
    needs: Errors

    def check_generator(self, generator: nn.Module) -> None:
        """Raises UserError for one whose input cannot be moved."""
        self.needs.check_generator(generator)

    def protocol(self) -> dict[str, Any]:
        return {"version": 1, "highest": HIGHEST}

    def accumulator(self) -> Rows:
        return Rows()

    def compare(self, real: Rows, fake: Rows) -> dict[str, float]:
        sums = fake.all().double().sum(dim=0).view(-1, 2).tolist()
        return {name: decibels(*pair) for name, pair in zip(self.needs.comparisons, sums, strict=True)}


class EquivarianceTranslation(_Equivariance):
    """Peak signal-to-noise ratio, in decibels, of moved images against images of a moved input: ``eqt`` by whole
    pixels, ``eqt_frac`` by any number. Higher is better; it needs no real images.

    Args:
        largest: move each way, as a share of the side.
    """

    name = "equivariance_translation"
    names = ("eqt", "eqt_frac")

    def __init__(self, largest: Share = 0.125) -> None:
        self.needs = Errors({"eqt": Translation(largest, True), "eqt_frac": Translation(largest, False)})


class EquivarianceRotation(_Equivariance):
    """Peak signal-to-noise ratio ``eqr``, in decibels, of turned images against images of a turned input, in the
    frequencies that both pixel grids carry. Higher is better; it needs no real images.

    Args:
        largest: angle each way, as a share of half a turn.
    """

    name = "equivariance_rotation"
    names = ("eqr",)

    def __init__(self, largest: Share = 1.0) -> None:
        self.needs = Errors({"eqr": Rotation(largest)})


def decibels(squares: float, values: float) -> float:
    """Of a sum of squared differences of pixels from 0 to 255. Raises UserError where nothing was compared."""
    if not values:
        raise UserError("no pixel was compared: the images are too small for the filter; measure at 32x32 or more")
    mean = squares / values
    return min(HIGHEST, 10 * math.log10(RANGE**2 / mean)) if mean else HIGHEST


def _uniform(name: str, block: int) -> list[float]:
    """Two numbers in [0, 1) for the samples of a block of 16, which share a move."""
    return torch.rand(2, generator=torch.Generator().manual_seed(derived_seed(0, name, block))).tolist()
