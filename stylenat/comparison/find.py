"""Which runs are meant: folders, an ablation's folder, or an experiment by its name."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from registry import Registry, UserError
from registry.wording import did_you_mean
from registry.wording import reason as said
from stylenat.ablation.outcomes import outcomes
from stylenat.ablation.plan import FORMAT_VERSION, MANIFEST, MANIFEST_BYTES
from stylenat.comparison.runs import RunResults, read_run
from stylenat.files import read_bounded
from stylenat.training.run import CONFIG_BYTES, OPTION

IN_USE = "# Plugins in use: "
"""How the line of a config begins that names them (``Experiment.operative_text``)."""


@dataclass(frozen=True)
class Found:
    """Runs to compare. ``order``: of an ablation's variants; ``missing``: its runs that cannot be read, a line each."""

    name: str
    runs: tuple[RunResults, ...]
    order: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def run_folders(paths: Sequence[Path], experiment: str | None, root: Path = Path("runs")) -> list[Path]:
    """The folders of the runs that ``found_runs`` would read, where they are there."""
    if experiment is not None:
        paths = [root / experiment, *(path.parent for path in root.glob(f"{experiment}-*/config.gin"))]
    folders: list[Path] = []
    for path in paths:
        ablation = (path / MANIFEST).is_file()
        folders += [config.parent for config in path.glob("*/config.gin")] if ablation else [path]
    return folders


def found_runs(registry: Registry, paths: Sequence[Path], experiment: str | None, root: Path = Path("runs")) -> Found:
    """Reads the runs.

    Args:
        paths: run folders, or an ablation's. experiment: an ablation's name, or the name that run folders begin with.

    Raises:
        UserError: there is no such run, or one that is named has no results.
    """
    if experiment is not None:
        if (root / experiment / MANIFEST).is_file():
            return _ablation(registry, root / experiment)
        paths = sorted(path.parent for path in root.glob(f"{experiment}-*/config.gin"))
        if not paths:
            known = {path.parent.name for path in root.glob(f"*/{MANIFEST}")}
            known |= {path.parent.name.rpartition("-")[0] for path in root.glob("*/config.gin")}
            raise UserError(f"there is no run of {experiment!r} in {root}{did_you_mean(experiment, known)}")
        return Found(experiment, tuple(read_run(registry, path) for path in paths))
    if not paths:
        raise UserError("nothing to compare: name run folders, or --experiment NAME")
    if len(paths) == 1 and (paths[0] / MANIFEST).is_file():
        return _ablation(registry, paths[0])
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no run {path}")
    name = paths[0].name if len(paths) == 1 else "comparison"
    once: dict[Path, Path] = {}
    for path in paths:
        once.setdefault(path.resolve(), path)  # One folder may be named twice, by other paths.
    return Found(name, tuple(read_run(registry, path) for path in once.values()))


def _plugins(registry: Registry, configs: Sequence[Path]) -> str:
    """What to load for a config that names plugins which are not loaded; empty where there are none."""
    config = next((path for path in configs if path.is_file()), None)
    try:
        lines = read_bounded(config, CONFIG_BYTES).decode().splitlines() if config else []
    except (OSError, ValueError):
        return ""
    header = next((line for line in lines if line.startswith(IN_USE)), IN_USE)
    loaded = {entry.origin.distribution for entry in registry.entries.values()}
    names = [text.removeprefix(OPTION) for text in header.removeprefix(IN_USE).split(", ") if text]
    absent = [name for name in names if name.partition(" ")[0] not in loaded and OPTION + name not in loaded]
    if not absent:
        return ""
    return f"; it uses {', '.join(absent)}: install it, or add --plugin MODULE_OR_FILE.py to this command"


def _ablation(registry: Registry, folder: Path) -> Found:
    try:
        manifest = json.loads(read_bounded(folder / MANIFEST, MANIFEST_BYTES))
        version, names, order = manifest["format_version"], list(manifest["runs"]), tuple(manifest["variants"])
        name = str(manifest["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST} cannot be read as an ablation's list of runs: {error}") from error
    if type(version) is not int or version > FORMAT_VERSION:
        raise UserError(f"{folder / MANIFEST} has format {version}; this version reads up to {FORMAT_VERSION}: upgrade")
    ended, runs, missing = outcomes(folder), [], []
    for run in names:
        try:
            config = folder / "configs" / f"{run}.gin"
            runs.append(read_run(registry, folder / run, config, ended.get(run), begun=False))
        except UserError as error:  # The others can be compared meanwhile.
            missing.append(f"{run} is not compared: {error}{_plugins(registry, [folder / run / 'config.gin', config])}")
        except Exception as error:  # A plugin's fault.
            missing.append(f"{run} is not compared, it cannot be built: {said(error)}")
    if not any(run.results for run in runs):
        why = (
            missing[0] if missing else "; ".join(f"{run.directory.name} {run.status}" for run in runs) or "it has none"
        )
        raise UserError(f"no run of {folder} has results yet ({why})")
    return Found(name, tuple(runs), order, tuple(missing))
