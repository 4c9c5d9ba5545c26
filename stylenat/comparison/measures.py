"""Columns of a comparison: a metric by one protocol each. What measures a part of a run stays out of them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stylenat.comparison.runs import RunResults
from stylenat.evaluation.protocol import Result, compared


@dataclass(frozen=True)
class Measure:
    """``label``: of its column, unlike all others; ``name``: the metric's. ``fields``: None where not recorded."""

    label: str
    name: str
    fields: Mapping[str, Any] | None


def labelled(runs: Sequence[RunResults]) -> tuple[list[RunResults], list[Measure], list[str]]:
    """The runs with their results renamed to the label of their column.

    A metric that was measured by one protocol alone keeps its name. Results of one class, or of another average than
    the run's, are no value of the run: they are left out.

    Returns:
        Runs, columns in order of appearance, and a line for each kind of result that is left out.
    """
    keys: dict[str, dict[str | None, Result]] = {}
    left_out: dict[str, None] = {}
    for result in (result for run in runs for result in run.results):
        if result.part is not None:
            left_out[f"{result.name} of {result.part}"] = None
        else:
            keys.setdefault(result.name, {}).setdefault(_key(result), result)
    measures: dict[tuple[str, str | None], Measure] = {}
    taken: set[str] = set()
    for name, by_key in keys.items():
        fields = {key: None if r.protocol is None else compared(r.protocol) for key, r in by_key.items()}
        differing = _differing([one for one in fields.values() if one is not None])
        for key, one in fields.items():
            by_class = str((one or {}).get("generated.labels")).startswith("mean over")
            several = f"{name} ({_described(one, differing or ['generated.labels'])})"
            label = several if len(fields) > 1 or by_class else name
            while label in taken:
                label += "'"
            taken.add(label)
            measures[name, key] = Measure(label, name, one)
    renamed = [
        replace(
            run,
            results=tuple(
                replace(result, name=measures[result.name, _key(result)].label)
                for result in run.results
                if result.part is None
            ),
        )
        for run in runs
    ]
    lines = [f"left out, as no value of the whole run: {', '.join(left_out)}"] if left_out else []
    return renamed, list(measures.values()), lines


def protocol_notes(measures: Sequence[Measure]) -> list[str]:
    """A line for each metric with several columns, with the fields that tell them apart; one for those without any."""
    lines, bare = [], [measure.label for measure in measures if measure.fields is None]
    if bare:
        lines.append(f"{', '.join(bare)}: not ranked, no protocol is recorded (an older version measured them)")
    for name in dict.fromkeys(measure.name for measure in measures):
        known = [measure.fields for measure in measures if measure.name == name and measure.fields is not None]
        if len(known) > 1:
            parts = [f"{field} {' and '.join(_values(field, known))}" for field in _differing(known)]
            lines.append(f"{name}: {len(known)} protocols, a column each, ranked by itself: {'; '.join(parts)}")
    return lines


def _key(result: Result) -> str | None:
    return None if result.protocol is None else json.dumps(compared(result.protocol), sort_keys=True, default=str)


def _differing(found: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(field for one in found for field in one)
    return [name for name in names if len({_text(one.get(name)) for one in found}) > 1]


def _values(field: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(_text(one.get(field)) for one in found))


def _described(fields: Mapping[str, Any] | None, differing: Sequence[str]) -> str:
    """``count 500``: the fields that tell a column from the others, two at most."""
    if fields is None:
        return "no protocol"
    short = [name.rpartition(".")[2] for name in differing]
    shown = [
        f"{name if short.count(end) > 1 else end} {_text(fields.get(name))}"
        for name, end in zip(differing, short, strict=True)
    ]
    return ", ".join(shown[:2]) + (", ..." if len(shown) > 2 else "") or "recorded"


def _text(value: Any) -> str:
    text = str(value)
    return f"{text[:8]}…" if re.fullmatch("[0-9a-f]{64}", text) else text
