"""One run as a comparison sees it: its config, status, results as ``metrics.jsonl`` has them, size, last samples."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry import Experiment, Registry, UserError, load_experiment
from stylenat.ablation.outcomes import Ended
from stylenat.ablation.sameness import model_of
from stylenat.comparison.status import FINISHED, Status, status_of
from stylenat.evaluation.protocol import Result, read_results
from stylenat.networks.neighborhoods import Neighborhoods, neighborhoods
from stylenat.training.build import sized
from stylenat.training.run import recorded_environment
from stylenat.training.settings import Training


@dataclass(frozen=True)
class RunResults:
    """One run, read.

    Attributes:
        settings: everything in use as gin text by parameter; hparams: the same as nested plain values.
        results: of every evaluation, in order.
        parameters, macs: the generator's, of one image.
        grid: the last sample grid; None where there is none.
        neighborhoods: of each site with head groups. aim_repo: where the tracker ``aim`` wrote; None without it.
        status: how far it came. ranked: whether its last results count; ``compared_runs`` sets it.
        model: of ``ablation.sameness.model_of``; empty where it is not known.
        environment: what ``environment.json`` says, of any version of this project.
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
    resolution: int
    grid: Path | None
    neighborhoods: Neighborhoods
    aim_repo: str | None
    status: Status = Status(FINISHED)
    model: str = ""
    ranked: bool = True
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The furthest that was evaluated; 0 where nothing was."""
        return max((result.step or 0 for result in self.results), default=0)

    @property
    def training_seconds(self) -> float | None:
        """Of all iterations, at the mean rate of those that were timed; None where an older version trained it.

        Evaluations and sample grids are not counted.
        """
        timed = {result.step: result.training for result in self.results if result.training and result.training[1]}
        seconds, iterations = (sum(part) for part in zip(*timed.values(), strict=True)) if timed else (0, 0)
        return self.status.step * seconds / iterations if iterations and self.status.step else None

    @property
    def skipped(self) -> dict[str, int]:
        """Steps that were skipped in training, by whose they were; empty also where that is not recorded."""
        counts: dict[str, int] = {}
        for result in self.results:
            for name, count in result.skipped.items():
                counts[name] = max(count, counts.get(name, 0))
        return counts

    @property
    def processes(self) -> set[tuple[int, str]]:
        """Numbers of processes and devices of its training, as the protocols of its evaluations say."""
        machines = [
            result.protocol["machine"]
            for result in self.results
            if result.protocol and not result.after_training and isinstance(result.protocol.get("machine"), dict)
        ]
        return {(m["processes"], str(m.get("device"))) for m in machines if isinstance(m.get("processes"), int)}

    @property
    def ended(self) -> str:
        """When it was last evaluated: UTC, ISO 8601; empty where that is not known."""
        return max((result.time or "" for result in self.results), default="")

    @property
    def real_images(self) -> str:
        """A checksum of the real images that it was measured against; empty where that is not known."""
        whole = (result.protocol for result in self.results if result.protocol and result.part is None)
        known = (protocol.get("real", {}).get("pixels_sha256") for protocol in whole)
        return str(next(filter(None, known), ""))

    @property
    def labels(self) -> dict[str, Any]:
        """What an ablation wrote on it: ``variant`` and ``seed``."""
        return self.hparams.get("tracker", {}).get("aim", {}).get("labels") or {}

    def of(self, metric: str) -> list[Result]:
        """All finite results of a metric by images seen; of equally many, as they were written."""
        found = [result for result in self.results if result.name == metric and result.value is not None]
        return sorted(found, key=lambda result: -1 if result.images is None else result.images)


def load_run(registry: Registry, directory: Path, config: Path | None = None) -> Experiment:
    """The run's experiment. Raises UserError for what is no run folder.

    Args:
        config: read where the folder has none: the text that a run will start from.
    """
    own = directory / "config.gin"
    if not own.is_file() and config is not None and config.is_file():
        own = config
    if not own.is_file():
        raise UserError(f"{directory} is no run folder: it has no config.gin")
    return load_experiment(registry, [own])


def read_run(
    registry: Registry, directory: Path, config: Path | None = None, ended: Ended | None = None, begun: bool = True
) -> RunResults:
    """Reads a run folder.

    Args:
        config: as for ``load_run``; ended: the last outcome that an ablation recorded.
        begun: whether a run without any result is refused.

    Raises:
        UserError: it is no run folder, has no results yet, or its config needs what is not installed.
    """
    experiment = load_run(registry, directory, config)
    results = read_results(directory / "metrics.jsonl") if (directory / "metrics.jsonl").exists() else []
    if not results and begun:
        status = status_of(directory, experiment.value("train.iterations"), 0, ended)
        reason = f" ({status.reason})" if status.reason else ""
        raise UserError(
            f"{directory} has no results in metrics.jsonl, and its status is: {status}{reason}; it needs the tracker "
            "jsonl and its first evaluation"
        )
    training: Training = experiment.get("train")()
    networks = sized(training)
    generator = networks["generator"]
    grids = sorted((directory / "samples").glob("step-*.png"))
    aim = experiment.hparams.get("tracker", {}).get("aim")
    furthest = max((result.step or 0 for result in results), default=0)
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
        generator.network.resolution,
        grids[-1] if grids else None,
        neighborhoods(generator.network),
        aim["repo"] if aim else None,
        status_of(directory, training.iterations, furthest, ended),
        model_of(experiment.settings(), generator.network, networks["discriminator"].network),
        environment=recorded_environment(directory),
    )
