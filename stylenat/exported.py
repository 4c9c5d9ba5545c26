"""A model that ``tools/export.py --format torch`` wrote. Reading it needs PyTorch alone: no gin, pluggy or plugins."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylenat.model import EXPORTED, Model, as_classes, as_seeds, latents_at

FORMAT_VERSION = 1


class ExportedModel(Model):
    """Graphs of ``torch.export`` and the mean style, or those of all classes.

    Load exports that you made or trust: a program is code.

    Raises:
        ValueError: the folder's ``model.json`` is damaged, or of a later version.
    """

    def __init__(self, folder: Path) -> None:
        try:
            with open(folder / EXPORTED, encoding="utf-8") as file:
                facts: dict[str, Any] = json.load(file)
            version = facts["format_version"]
            if version > FORMAT_VERSION:
                raise ValueError(f"it has format {version}; this version reads up to {FORMAT_VERSION}")
            self.resolution, self.latent_dim = facts["resolution"], facts["latent_dim"]
            self.num_styles, self.style_dim = facts["num_styles"], facts["style_dim"]
            self.class_names = tuple(facts["class_names"])
            self._seed, self._batch = facts["seed"], facts["batch"]
            mean = facts["mean_style"]
            self._mean = None if mean is None else torch.tensor(mean)
            self._must_be_consistent()
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{folder / EXPORTED} cannot be read: {_reason(error)}") from error
        names = ("mapping", "synthesis") if self.num_styles is not None else ("generator",)
        self._programs = {name: _program(folder / f"{name}.pt2") for name in names}
        self._calls = {name: program.module() for name, program in self._programs.items()}
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> "ExportedModel":
        device = torch.device(device)
        if device != self.device:
            from torch.export.passes import move_to_device_pass

            for name, program in self._programs.items():
                self._programs[name] = move_to_device_pass(program, str(device))
                self._calls[name] = self._programs[name].module()
            self._mean = None if self._mean is None else self._mean.to(device)
            self.device = device
        return self

    def latents(self, seeds: Sequence[int] | int) -> Tensor:
        return latents_at(self._seed, as_seeds(seeds), self.latent_dim).to(self.device)

    def mapping(self, latents: Tensor, classes: Sequence[int] | int | None = None) -> Tensor:
        self._must_have_styles()
        return self._call("mapping", latents, *self._labels(classes, len(latents)))

    def synthesis(self, styles: Tensor) -> Tensor:
        self._must_have_styles()
        if styles.ndim == 2:
            styles = styles[:, None].expand(-1, self.num_styles or 0, -1)
        return self._call("synthesis", styles.contiguous())

    def sample(
        self, seeds: Sequence[int] | int, psi: float = 1.0, classes: Sequence[int] | int | None = None
    ) -> Tensor:
        latents = self.latents(seeds)
        if self.num_styles is None:
            if psi != 1:
                raise ValueError("the generator has no styles to truncate; psi must be 1")
            images = self._call("generator", latents, *self._labels(classes, len(latents)))
        else:
            labels = self._labels(classes, len(latents))
            styles = self._call("mapping", latents, *labels)
            if psi != 1:
                mean = self._mean if len(self._mean) == 1 else labels[0] @ self._mean
                styles = mean + psi * (styles - mean)
            images = self.synthesis(styles)
        return images.round().clamp(0, 255).to(torch.uint8)

    @torch.no_grad()
    def _call(self, name: str, *inputs: Tensor) -> Tensor:
        """In pieces where the graph has a fixed batch."""
        if self._batch is None:
            return self._calls[name](*inputs)
        count, found = len(inputs[0]), []
        for start in range(0, count, self._batch):
            some = [t[start : start + self._batch] for t in inputs]
            missing = self._batch - len(some[0])
            filled = [torch.cat([t, t[-1:].expand(missing, *t.shape[1:])]) if missing else t for t in some]
            found.append(self._calls[name](*filled)[: len(some[0])])
        return torch.cat(found)

    def _labels(self, classes: Sequence[int] | int | None, count: int) -> tuple[Tensor, ...]:
        if classes is None:
            if self.class_names:
                raise ValueError("the model is class-conditional; give classes")
            return ()
        numbers = torch.tensor(as_classes(classes, count, self.class_names), device=self.device)
        return (torch.nn.functional.one_hot(numbers, len(self.class_names)).float(),)

    def _must_be_consistent(self) -> None:
        """Raises ValueError where the facts of ``model.json`` have no meaning."""
        styled = self.num_styles is not None
        counts = [self.resolution, self.latent_dim, *[self.num_styles, self.style_dim] * styled]
        counts += [] if self._batch is None else [self._batch]
        if type(self._seed) is not int or not all(type(n) is int and n > 0 for n in counts):
            raise ValueError("its sizes, batch or seed are not numbers")
        if not all(isinstance(name, str) for name in self.class_names):
            raise ValueError("its classes have no names")
        rows = {1, max(1, len(self.class_names))}
        if styled and (
            self._mean is None
            or self._mean.ndim != 2
            or self._mean.shape[1] != self.style_dim
            or len(self._mean) not in rows
        ):
            raise ValueError("its mean style does not fit its sizes")

    def _must_have_styles(self) -> None:
        if self.num_styles is None:
            raise ValueError("the generator has no styles; use sample()")


def _program(path: Path) -> torch.export.ExportedProgram:
    """Raises ValueError where it is missing or damaged."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; stylenat.load reads what tools/export.py --format torch wrote")
    try:
        return torch.export.load(path)
    except Exception as error:  # PyTorch's reader raises almost anything on damaged bytes.
        raise ValueError(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
