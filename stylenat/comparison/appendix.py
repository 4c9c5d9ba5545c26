"""What a reader needs to repeat the runs of a comparison: code, versions, plugins, machines, time and images by run."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from stylenat.comparison.results import Comparison
from stylenat.comparison.runs import RunResults
from stylenat.comparison.table import Cell, Tabular

NOT_RECORDED = "not recorded"


def by_run(comparison: Comparison) -> Tabular:
    """A row a run: status, iterations, real images, time of its iterations, processes, environment by its letter."""
    letters = _letters(comparison)
    rows = []
    for group in comparison.groups:
        for run in group.runs:
            images = max((result.images or 0 for result in run.results), default=0)
            seconds = run.training_seconds
            time = NOT_RECORDED if seconds is None else str(timedelta(seconds=round(seconds)))
            processes = ", ".join(f"{count} on {device}" for count, device in sorted(run.processes)) or NOT_RECORDED
            cells = [group.name, processes, letters[_key(run)], run.status.word]
            rows.append(tuple(map(Cell, [*cells, str(run.seed), f"{run.status.step:,}", f"{images:,}", time])))
    titles = ("variant", "processes", "environment", "status", "seed", "iterations", "images", "time of iterations")
    return Tabular("Runs", titles, tuple(rows), 4)


def environments(comparison: Comparison) -> Tabular:
    """A column for each environment that runs began in, a row for what it says; what differs is marked as such."""
    letters = _letters(comparison)
    columns = [_flat(json.loads(key)) for key in letters]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in names:
        values = [column.get(name, NOT_RECORDED) for column in columns]
        rows.append((Cell(name + (" (differs)" if len(set(values)) > 1 else "")), *map(Cell, values)))
    titles = ("", *(f"environment {letter}" for letter in letters.values()))
    return Tabular("Environments", titles, tuple(rows), len(titles))


def _runs(comparison: Comparison) -> Sequence[RunResults]:
    return [run for group in comparison.groups for run in group.runs]


def _letters(comparison: Comparison) -> dict[str, str]:
    """A name for each environment: A, B, ..., in order of appearance."""
    keys = dict.fromkeys(_key(run) for run in _runs(comparison))
    return {key: chr(ord("A") + i) if i < 26 else f"A{i}" for i, key in enumerate(keys)}


def _key(run: RunResults) -> str:
    """What the environment says of code and machine, without what is a run's own."""
    own = {"seed", "command", "started", "format_version", "initial_weights"}
    kept = {name: value for name, value in run.environment.items() if name not in own}
    return json.dumps(kept, sort_keys=True, default=str)


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    """Text by dotted name."""
    flat: dict[str, str] = {}
    for name, value in environment.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": text for inner, text in _flat(value).items()}
        elif isinstance(value, list):
            flat[name] = "; ".join(_item(item) for item in value) or "none"
        else:
            flat[name] = "none" if value is None else str(value)
    return flat


def _item(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in _flat(value).items()) if isinstance(value, Mapping) else str(value)
