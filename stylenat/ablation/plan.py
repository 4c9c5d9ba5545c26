"""What an ablation will do: its runs, what was built of each variant on paper, and the manifest that records it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import UserError
from stylenat.ablation.outcomes import record_outcome
from stylenat.ablation.variants import Variant
from stylenat.files import read_bounded
from stylenat.networks.neighborhoods import Neighborhoods
from stylenat.training.run import write_text

FORMAT_VERSION = 1
MANIFEST = "ablation.json"
MANIFEST_BYTES = 2**24
"""The longest one that is read: about 100,000 runs."""


@dataclass(frozen=True)
class Job:
    """One run of one variant.

    Attributes:
        directory: the run folder; config: where its frozen gin text is written; text: that text.
        iterations: that it will have at the end; step: that its newest checkpoint has.
    """

    variant: str
    seed: int
    directory: Path
    config: Path
    text: str
    iterations: int
    step: int

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def finished(self) -> bool:
        return self.step >= self.iterations


@dataclass(frozen=True)
class Planned:
    """A variant as ``--dry-run`` shows it: what differs among the variants, the generator's size and head groups.

    ``model``: of ``sameness.model_of``; ``same_as``: an earlier variant that is the same model, where that is allowed.
    """

    variant: Variant
    settings: dict[str, str]
    parameters: int
    macs: int
    neighborhoods: Neighborhoods = ()
    model: str = ""
    same_as: str | None = None


@dataclass(frozen=True)
class Broken:
    """A variant whose construction, or whose data, raised what is no UserError. ``traceback``: the text of it."""

    variant: Variant
    reason: str
    traceback: str


@dataclass(frozen=True)
class Plan:
    """Everything that ``tools/ablate.py`` will do. ``broken``: variants that it leaves out."""

    name: str
    folder: Path
    seeds: tuple[int, ...]
    variants: tuple[Planned, ...]
    jobs: tuple[Job, ...]
    broken: tuple[Broken, ...] = ()

    def write(self) -> None:
        """The manifest and each job's frozen config; a job starts from what was checked, whatever is edited since.

        What an earlier command made in the folder stays in the manifest, and so in comparisons.
        Runs of variants that cannot be built are in it too; their log is the traceback.

        Raises UserError when they cannot be written.
        """
        before = manifest(self.folder)
        everything = [*(planned.variant for planned in self.variants), *(one.variant for one in self.broken)]
        variants = {variant.name: list(variant.bindings) for variant in everything}
        failed = {run_name(one.variant.name, seed): one for one in self.broken for seed in self.seeds}
        runs = {job.name: {"variant": job.variant, "seed": job.seed} for job in self.jobs}
        runs |= {
            run_name(one.variant.name, seed): {"variant": one.variant.name, "seed": seed}
            for one in self.broken
            for seed in self.seeds
        }
        held = {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "variants": before.get("variants", {}) | variants,
            "seeds": sorted({*before.get("seeds", ()), *self.seeds}),
            "runs": before.get("runs", {}) | runs,
        }
        try:
            (self.folder / "configs").mkdir(parents=True, exist_ok=True)
            for job in self.jobs:
                write_text(job.config, job.text)
            write_text(self.folder / MANIFEST, json.dumps(held, indent=2) + "\n")
            (self.folder / "logs").mkdir(exist_ok=True)
            for name, one in failed.items():
                write_text(self.folder / "logs" / f"{name}.log", one.traceback)
                record_outcome(self.folder, name, 1, f"it cannot be built: {one.reason}")
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}; choose another --out") from error


def manifest(folder: Path) -> dict[str, Any]:
    """Of an earlier command in the folder, empty for none. Raises UserError where it cannot be read."""
    try:
        held = json.loads(read_bounded(folder / MANIFEST, MANIFEST_BYTES))
        if held["format_version"] > FORMAT_VERSION:
            raise ValueError("a later version of this project made it")
        return {"name": str(held["name"]), "seeds": list(held["seeds"])} | {
            name: dict(held[name]) for name in ("variants", "runs")
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST} cannot be read ({error}); choose another folder with --out") from error


def run_name(variant: str, seed: int) -> str:
    return f"{variant}-seed{seed}"
