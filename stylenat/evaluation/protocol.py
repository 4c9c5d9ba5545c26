"""The protocol of a result: what a number depends on beside the model, as plain data that travels with it.

A line of ``metrics.jsonl`` (docs/evaluation.md) holds it once for all its results. Nothing here imports torch: who
compares runs only reads. Two results may be ranked when ``differences`` finds none.
"""

import json
import math
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from registry import UserError
from registry.wording import reason
from stylenat.files import read_bounded

FORMAT_VERSION = 1

RESULTS_BYTES = 2**28
"""The longest ``metrics.jsonl`` that is read: about 100,000 evaluations."""

COMPARED = {
    "generated": ("count", "resolution", "truncation_psi", "truncation_centre", "precision", "labels", "average"),
    "real": ("pixels_sha256", "count", "resolution"),
}
"""What must agree, beside everything under a result's own ``metric``. All else is information: versions, the machine,
names and paths, the seed (another draw of the same measurement, whose size the spread says)."""

TYPES: dict[str, dict[str, type]] = {
    "generated": {"count": int, "resolution": int, "truncation_psi": float},
    "real": {"count": int, "resolution": int},
}
"""Of what a comparison writes as a number."""

PACKAGES = ("stylenat", "torch", "torchvision", "torch-fidelity", "numpy", "scipy")


@dataclass(frozen=True)
class Result:
    """One metric's value, as a line of ``metrics.jsonl`` has it.

    Attributes:
        name: such as ``fid``; value: None where it was not finite.
        step, images, time: iteration, real images seen in training, UTC; None where the line does not say.
        spread: one standard deviation, of what docs/evaluation.md says for the metric; interval: 95 %. None for none.
        protocol: ``metric`` (this metric's definition, parameters and extractor), ``generated``, ``real``,
            ``versions``, ``machine``; None for a result that was written without one.
        training: seconds of the iterations before this evaluation, and their number; None where neither is recorded,
            as after training.
        skipped: steps that the run had skipped, since a loss or gradient was not finite, by whose they were.
    """

    name: str
    value: float | None
    step: int | None = None
    images: int | None = None
    time: str | None = None
    spread: float | None = None
    interval: tuple[float, float] | None = None
    protocol: Mapping[str, Any] | None = None
    training: tuple[float, int] | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def part(self) -> str | None:
        """What it measures instead of the whole run: ``class 3``, or an average that is not the run's; else None."""
        generated = (self.protocol or {}).get("generated", {})
        if re.fullmatch(r"class \d+", str(generated.get("labels"))):
            return str(generated["labels"])
        return f"the average {generated['average']}" if generated.get("average") is not None else None

    @property
    def after_training(self) -> bool:
        """Whether ``tools/evaluate.py`` made it: it alone records whose weights it measured."""
        return "weights_sha256" in (self.protocol or {}).get("generated", {})

    @property
    def higher_is_better(self) -> bool:
        """As its protocol says; a result without one is a distance."""
        return bool(self.protocol) and self.protocol["metric"].get("better") == "higher"


@dataclass(frozen=True)
class Difference:
    """A field on which two protocols differ, such as ``generated.count``, with both values."""

    field: str
    first: Any
    second: Any

    def __str__(self) -> str:
        return f"{self.field}: {_short(self.first)} and {_short(self.second)}"


def differences(first: Result, second: Result) -> list[Difference]:
    """Why two results must not be ranked against each other; empty when they may.

    A result without a protocol is comparable with nothing: what it was measured on is not known.
    """
    if first.name != second.name:
        return [Difference("name", first.name, second.name)]
    if first.protocol is None or second.protocol is None:
        states = ["recorded" if result.protocol is not None else "not recorded" for result in (first, second)]
        return [Difference("protocol", *states)]
    ours, theirs = compared(first.protocol), compared(second.protocol)
    return [
        Difference(field, ours.get(field), theirs.get(field))
        for field in dict.fromkeys([*ours, *theirs])
        if ours.get(field) != theirs.get(field)
    ]


def compared(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that two protocols must agree on, by dotted name. Those of the real set only where it is used."""
    fields = _flat(protocol["metric"], "metric")
    for part, names in COMPARED.items():
        if part == "generated" or protocol["metric"].get("uses_real", True):
            fields |= {f"{part}.{name}": protocol.get(part, {}).get(name) for name in names}
    return fields


def read_results(path: Path) -> list[Result]:
    """All results of a ``metrics.jsonl``, in its order; of this version, of older ones and without protocols.

    A last line that a crash left torn is passed over.

    Raises:
        UserError: no such file, a damaged line, or one that a later version wrote.
    """
    try:
        lines = read_bounded(path, RESULTS_BYTES).decode().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    results: list[Result] = []
    for number, line in enumerate(lines, start=1):
        where = f"{path} line {number} is not an evaluation"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # A crash tears the last line only.
                break
            raise UserError(f"{where}; repair it or move the file away") from error
        try:
            results += results_of(record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where} ({reason(error)}); repair it or move the file away") from error
    return results


def results_of(record: Mapping[str, Any]) -> list[Result]:
    """The results of one evaluation.

    Raises:
        UserError: a protocol of a later version. ValueError, KeyError, TypeError, AttributeError: other data.
    """
    protocol = record.get("protocol")
    if protocol is not None and protocol["format_version"] > FORMAT_VERSION:
        raise UserError(f"a result has protocol format {protocol['format_version']}; upgrade to read it")
    _check_types(record, {"step": int, "images": int, "time": str})
    results = []
    for name, value in record["metrics"].items():
        interval = record.get("intervals", {}).get(name)
        results.append(
            Result(
                name,
                _finite(value),
                record.get("step"),
                record.get("images"),
                record.get("time"),
                _finite(record.get("spread", {}).get(name)),
                None if interval is None else _interval(*interval),
                None if protocol is None else of_metric(protocol, name),
                _training(record.get("training")),
                _skipped(record.get("training")),
            )
        )
    return results


def of_metric(protocol: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One result's own protocol out of an evaluation's."""
    shared = {part: values for part, values in protocol.items() if part != "metrics"}
    for part, types in TYPES.items():
        if not isinstance(shared.get(part, {}), Mapping):
            raise TypeError(f"{part} must be an object")
        _check_types(shared.get(part, {}), types)
    return {"metric": dict(protocol["metrics"][name]), **shared}


def make_protocol(
    metrics: Mapping[str, Mapping[str, Any]],
    generated: Mapping[str, Any],
    real: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """An evaluation's protocol, ready for JSON.

    Args:
        metrics: of each result by its name.
    """
    return {
        "format_version": FORMAT_VERSION,
        "metrics": {name: dict(values) for name, values in metrics.items()},
        "generated": dict(generated),
        "real": dict(real),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": dict(machine),
    }


def _finite(value: Any) -> float | None:
    """The number; None for null and for what is not finite. Raises ValueError or TypeError for what is no number."""
    try:
        number = math.nan if value is None else float(value)
    except OverflowError:  # A whole number beyond the greatest float.
        return None
    return number if math.isfinite(number) else None


def _interval(low: Any, high: Any) -> tuple[float, float] | None:
    """None where an end is null or not finite. Raises as ``_finite``."""
    ends = _finite(low), _finite(high)
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])


def _check_types(values: Mapping[str, Any], types: Mapping[str, type]) -> None:
    """Raises TypeError for a value that is neither null nor of its type; a whole number is a float, too."""
    for name, kind in types.items():
        value = values.get(name)
        fits = value is None or type(value) is kind or (kind is float and type(value) is int)
        if not fits or (kind is int and value is not None and value < 0):
            raise TypeError(f"{name} must be {'a number from 0' if kind is int else f'of type {kind.__name__}'}")


def _training(record: Any) -> tuple[float, int] | None:
    """Seconds and iterations; None where they are not recorded. Raises TypeError or AttributeError for other data."""
    if record is None:
        return None
    seconds, iterations = _finite(record.get("seconds")), record.get("iterations")
    if type(iterations) is not int:
        raise TypeError("iterations must be a number")
    return None if seconds is None else (seconds, iterations)


def _skipped(record: Any) -> dict[str, int]:
    """Counts by name. Raises TypeError or AttributeError for other data."""
    counts = {} if record is None else record.get("skipped", {})
    if any(type(count) is not int for count in counts.values()):
        raise TypeError("skipped steps must be numbers")
    return dict(counts)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}.{name}") if isinstance(value, Mapping) else {f"{prefix}.{name}": value}
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
