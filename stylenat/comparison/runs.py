"""What one run has to say: its config, its results as ``metrics.jsonl`` has them, its size, its last samples."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry import Experiment, Registry, UserError, load_experiment
from stylenat.evaluation.protocol import Result, read_results
from stylenat.networks.neighborhoods import Neighborhoods, neighborhoods
from stylenat.training.build import sized
from stylenat.training.settings import Training


@dataclass(frozen=True)
class RunResults:
    """One run, read.

    Attributes:
        settings: everything in use as gin text by parameter; hparams: the same as nested plain values.
        results: of every evaluation, in order; there is at least one.
        parameters, macs: the generator's, of one image.
        images_per_second: real images in training, evaluation and all; None if it is not known.
        grid: the last sample grid; None where there is none.
        neighborhoods: of each site with head groups. aim_repo: where the tracker ``aim`` wrote; None without it.
    """

    directory: Path
    experiment: str
    settings: dict[str, str]
    hparams: dict[str, Any]
    seed: int
    iterations: int
    results: tuple[Result, ...]
    parameters: int
    macs: int
    images_per_second: float | None
    resolution: int
    grid: Path | None
    neighborhoods: Neighborhoods
    aim_repo: str | None

    @property
    def step(self) -> int:
        """The furthest that was evaluated."""
        return max(result.step or 0 for result in self.results)

    @property
    def ended(self) -> str:
        """When it was last evaluated: UTC, ISO 8601; empty where that is not known."""
        return max(result.time or "" for result in self.results)

    @property
    def real_images(self) -> str:
        """A checksum of the real images that it was measured against; empty where that is not known."""
        known = (result.protocol.get("real", {}).get("pixels_sha256") for result in self.results if result.protocol)
        return str(next(filter(None, known), ""))

    @property
    def labels(self) -> dict[str, Any]:
        """What an ablation wrote on it: ``variant`` and ``seed``."""
        return self.hparams.get("tracker", {}).get("aim", {}).get("labels") or {}

    def of(self, metric: str) -> list[Result]:
        """All finite results of a metric by images seen; of equally many, as they were written."""
        found = [result for result in self.results if result.name == metric and result.value is not None]
        return sorted(found, key=lambda result: -1 if result.images is None else result.images)


def load_run(registry: Registry, directory: Path) -> Experiment:
    """The run's experiment. Raises UserError for what is no run folder."""
    if not (directory / "config.gin").is_file():
        raise UserError(f"{directory} is not a run folder: it has no config.gin")
    return load_experiment(registry, [directory / "config.gin"])


def read_run(registry: Registry, directory: Path) -> RunResults:
    """Reads a run folder.

    Raises:
        UserError: it is no run folder, has no results yet, or its config needs what is not installed.
    """
    experiment = load_run(registry, directory)
    results = read_results(directory / "metrics.jsonl") if (directory / "metrics.jsonl").exists() else []
    if not results:
        raise UserError(
            f"{directory} has no results in metrics.jsonl; it needs the tracker jsonl and its first evaluation"
        )
    training: Training = experiment.get("train")()
    generator = sized(training)["generator"]
    grids = sorted((directory / "samples").glob("step-*.png"))
    aim = experiment.hparams.get("tracker", {}).get("aim")
    return RunResults(
        directory,
        (aim or {}).get("experiment") or experiment.name,
        experiment.settings(),
        experiment.hparams,
        training.seed,
        training.iterations,
        tuple(results),
        generator.parameters,
        generator.macs,
        images_per_second(results),
        generator.network.resolution,
        grids[-1] if grids else None,
        neighborhoods(generator.network),
        aim["repo"] if aim else None,
    )


def images_per_second(results: Sequence[Result]) -> float | None:
    """The median rate between two evaluations, which a pause or a stop in between does not touch.

    An evaluation after training, of as many images or fewer, says nothing of it.
    """
    moments: dict[int, datetime] = {}
    for result in results:
        moment = _moment(result.time)
        if result.images and moment is not None and result.images > max(moments, default=0):
            moments[result.images] = moment
    rates = []
    for (images, time), (later_images, later) in zip(moments.items(), list(moments.items())[1:], strict=False):
        seconds = (later - time).total_seconds()
        if seconds > 0 and later_images > images:
            rates.append((later_images - images) / seconds)
    return statistics.median(rates) if rates else None


def _moment(text: str | None) -> datetime | None:
    """UTC where the text names no zone; None where it is no time."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
