"""From a run folder, a checkpoint or imported weights to a generator: one way for all commands and for Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from registry import Experiment, Registry, UserError, load_experiment
from stylenat import weights
from stylenat.classes import Classes
from stylenat.draws import conditions
from stylenat.model import EXPORTED, Model, as_classes, as_seeds, latents_at
from stylenat.pixels import SPACES, Name, to_pixels_with_graph
from stylenat.sampling import Sampler, default_batch, for_all_layers, is_style_based, sampled_in, sampler_of


@dataclass
class Opened:
    """The weights of a training, and what sampling from them needs.

    Attributes:
        folder: of the weights; network: the name of those that were read, such as ``ema``.
        sha256: of their file; classes: None for an unconditional generator.
        seed, truncation_psi, batch, pixel_space: of the training.
    """

    folder: Path
    registry: Registry
    experiment: Experiment
    generator: nn.Module
    network: str
    sha256: str
    classes: Classes | None
    seed: int
    truncation_psi: float
    batch: int
    pixel_space: Name

    def sampler(
        self,
        truncation_psi: float | None = None,
        batch: int | None = None,
        number: int | None = None,
        truncation_cutoff: int | None = None,
    ) -> Sampler:
        """Its samples; None for what the training uses.

        Args:
            number: only this class.

        Raises:
            UserError: truncation without styles, or a class that does not exist.
        """
        psi = self.truncation_psi if truncation_psi is None else truncation_psi
        made = sampler_of(
            self.generator, self.seed, psi, batch or self.batch, self.classes, self.pixel_space, truncation_cutoff
        )
        return made if number is None else made.of_class(number)

    def origin(self, sampler: Sampler) -> dict[str, Any]:
        """What all images made with this sampler share, plain values by name, for the note beside them."""
        origin: dict[str, Any] = {
            "weights_sha256": self.sha256,
            "seed": self.seed,
            "truncation_psi": sampler.truncation_psi,
        }
        if (precision := sampled_in(sampler.generator)) != "float32":
            origin["precision"] = precision
        if sampler.truncation_cutoff is not None:
            origin["truncation_cutoff"] = sampler.truncation_cutoff
        if sampler.classes is not None:
            origin["labels"] = sampler.which_classes
        return origin


def opened(
    path: Path,
    average: str | None = None,
    plugins: Sequence[str] = (),
    prog: str = "",
    argv: Sequence[str] | None = None,
) -> Opened:
    """Reads weights and builds their generator, on the CPU.

    Args:
        average: as in ``weights.generator_of``; plugins: named by the user.
        prog, argv: the command, to print it with what it lacks.

    Raises:
        UserError: there are no weights, they do not fit their config, a plugin is missing, or it is an export.
    """
    from stylenat.commands._command import experiments_folder
    from stylenat.commands._plugins import loaded_plugins

    if (path / EXPORTED).is_file():
        raise UserError(f"{path} is an export for stylenat.load and other programs; give the run that it was made from")
    folder = weights.weights_folder(path, weights.generator_files(average))
    config = weights.config_of(folder)
    registry = loaded_plugins(plugins, [config.parent], prog, argv)
    experiment = load_experiment(registry, [str(config)], search_path=[experiments_folder()])
    generator, network = weights.generator_of(folder, experiment.value("train.generator"), average)
    return Opened(
        folder=folder,
        registry=registry,
        experiment=experiment,
        generator=generator,
        network=network,
        sha256=str(weights.manifest_of(folder)["sha256"][f"{network}.safetensors"]),
        classes=weights.classes_of_weights(folder, generator),
        seed=experiment.value("train.seed"),
        truncation_psi=experiment.value("train.truncation_psi"),
        batch=default_batch(experiment.value("train.batch_size")),
        pixel_space=experiment.value("train.pixel_space"),
    )


class TrainedModel(Model):
    """A model of a run folder, a checkpoint or imported weights.

    Attributes:
        generator: the network; opened: where it comes from, and its experiment.
    """

    def __init__(self, opened: Opened) -> None:
        self.opened, self.generator = opened, opened.generator
        self.resolution, self.latent_dim = self.generator.resolution, self.generator.latent_dim
        styled = is_style_based(self.generator)
        self.num_styles = self.generator.num_styles if styled else None
        self.style_dim = getattr(self.generator, "style_dim", self.latent_dim) if styled else None
        self.class_names = opened.classes.names if opened.classes is not None else ()

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    def to(self, device: torch.device | str) -> "TrainedModel":
        self.generator.to(device)
        return self

    def latents(self, seeds: Sequence[int] | int) -> Tensor:
        return latents_at(self.opened.seed, as_seeds(seeds), self.latent_dim).to(self.device)

    def mapping(self, latents: Tensor, classes: Sequence[int] | int | None = None) -> Tensor:
        self._must_have_styles()
        return self.generator.mapping(latents, *conditions(self._labels(classes, len(latents))))

    def synthesis(self, styles: Tensor) -> Tensor:
        self._must_have_styles()
        images = self.generator.synthesis(for_all_layers(styles, self.generator))
        return to_pixels_with_graph(images, SPACES[self.opened.pixel_space])

    def sample(
        self, seeds: Sequence[int] | int, psi: float = 1.0, classes: Sequence[int] | int | None = None
    ) -> Tensor:
        seeds = as_seeds(seeds)
        if classes is None:
            return self.opened.sampler(psi).at(seeds)
        numbers = as_classes(classes, len(seeds), self.class_names)
        images: list[Tensor] = [torch.empty(0)] * len(seeds)
        for number in set(numbers):
            of_it = [i for i, n in enumerate(numbers) if n == number]
            made = self.opened.sampler(psi, number=number).at([seeds[i] for i in of_it])
            for i, image in zip(of_it, made, strict=True):
                images[i] = image
        return torch.stack(images)

    def _must_have_styles(self) -> None:
        if self.num_styles is None:
            raise ValueError(f"{type(self.generator).__name__} has no styles; use sample()")

    def _labels(self, classes: Sequence[int] | int | None, count: int) -> Tensor | None:
        if classes is None:
            if self.class_names:
                raise ValueError("the generator is class-conditional; give classes")
            return None
        numbers = as_classes(classes, count, self.class_names)
        assert self.opened.classes is not None
        return self.opened.classes.one_hot(torch.tensor(numbers)).to(self.device)
