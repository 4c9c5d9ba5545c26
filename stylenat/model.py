"""A trained generator in one line of Python: ``stylenat.load(PATH)``.

Exported models are read by ``stylenat.exported``, which needs PyTorch and safetensors alone: nothing here may import
``registry`` or a plugin before ``load`` knows what the path is.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

EXPORTED = "model.json"


class Model(ABC):
    """A generator with its weights, in evaluation mode, without gradients of its weights.

    Attributes:
        resolution: side of its images in pixels; latent_dim: length of z.
        num_styles, style_dim: of w+; None for a generator without styles.
        class_names: of a class-conditional generator; empty for an unconditional one.
        device: where it computes.
    """

    resolution: int
    latent_dim: int
    num_styles: int | None
    style_dim: int | None
    class_names: tuple[str, ...]
    device: torch.device

    @abstractmethod
    def to(self, device: torch.device | str) -> "Model":
        """Moves it there. Returns itself."""

    @abstractmethod
    def latents(self, seeds: Sequence[int] | int) -> Tensor:
        """z of these sample indices, float32 [len(seeds), latent_dim], on the model's device."""

    @abstractmethod
    def mapping(self, latents: Tensor, classes: Sequence[int] | int | None = None) -> Tensor:
        """z [count, latent_dim] to styles w [count, style_dim].

        Args:
            classes: a number for each latent, or one for all; needed by a class-conditional generator.

        Raises:
            ValueError: the generator has no styles, or the classes do not fit.
        """

    @abstractmethod
    def synthesis(self, styles: Tensor) -> Tensor:
        """Styles w [count, style_dim] or w+ [count, num_styles, style_dim] to images.

        Returns:
            float32 [count, 3, resolution, resolution], pixels 0 to 255 in RGB, neither rounded nor clamped.
            Differentiable with respect to the styles unless the model was exported.
        """

    @abstractmethod
    def sample(
        self, seeds: Sequence[int] | int, psi: float = 1.0, classes: Sequence[int] | int | None = None
    ) -> Tensor:
        """Images of sample indices: the same as those of ``tools/sample.py --seeds``.

        Args:
            seeds: sample indices from 0, or one of them.
            psi: truncation; 1 for none, 0 for the mean image.
            classes: a number for each seed, or one for all; None for classes as often as in the training data
                (an exported class-conditional model needs them).

        Returns:
            uint8 [len(seeds), 3, resolution, resolution] in RGB, on the model's device.

        Raises:
            ValueError: seeds or classes do not fit. UserError (of a run): truncation of a generator without styles, a
            class that does not exist, or images that are not finite.
        """

    def __repr__(self) -> str:
        styles = f", {self.num_styles} styles of {self.style_dim}" if self.num_styles else ", no styles"
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        side = f"{self.resolution}x{self.resolution}"
        return f"{type(self).__name__}({side}, latents of {self.latent_dim}{styles}{classes}, on {self.device})"


def as_seeds(seeds: Sequence[int] | int) -> list[int]:
    """A list of sample indices. Raises ValueError for anything else."""
    found = [seeds] if isinstance(seeds, int) else list(seeds)
    if not found or not all(type(seed) is int and 0 <= seed < 2**62 for seed in found):
        raise ValueError(f"seeds must be sample indices from 0, at least one; got {seeds!r}")
    return found


def as_classes(classes: Sequence[int] | int, count: int, names: Sequence[str]) -> list[int]:
    """A class number for each of ``count`` images. Raises ValueError where they do not fit."""
    if not names:
        raise ValueError("the generator has no classes; it was trained without labels")
    found = [classes] * count if isinstance(classes, int) else list(classes)
    if len(found) != count or not all(isinstance(c, int) and 0 <= c < len(names) for c in found):
        raise ValueError(f"classes must be numbers from 0 to {len(names) - 1}, one for each image; got {classes!r}")
    return found


def latents_at(seed: int, indices: Sequence[int], latent_dim: int) -> Tensor:
    """The latents of sample indices in their order, [len(indices), latent_dim]."""
    from stylenat.random_streams import latents_by_index

    return torch.cat([latents_by_index(seed, index, 1, latent_dim) for index in indices])


def load(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    average: str | None = None,
    plugins: Sequence[str] = (),
) -> Model:
    """The model of a run folder, checkpoint, imported weights, or export of ``tools/export.py``.

    Args:
        average: which average of a run's weights; None for ``ema``, ``generator`` for none.
        plugins: modules or files that a run needs beside the installed plugins.

    Raises:
        UserError: a run's weights or config do not fit. ValueError: an export is damaged.
    """
    path = Path(path)
    model: Any
    if (path / EXPORTED).is_file():
        from stylenat.exported import ExportedModel

        model = ExportedModel(path)
    else:
        from stylenat.trained import TrainedModel, opened

        model = TrainedModel(opened(path, average, plugins))
    return model.to(device)
