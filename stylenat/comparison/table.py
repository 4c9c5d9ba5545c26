"""The comparison as tables: for the terminal, as Markdown, and as CSV with all digits.

One table says what was compared, and one for each metric and protocol says what came out.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from registry.wording import printable
from stylenat.comparison.foreign import csv_cell, markdown_cell
from stylenat.comparison.groups import Group, Spread
from stylenat.comparison.paired import METHOD, Paired
from stylenat.comparison.results import Comparison, Standing

LEGEND = (
    f"**: best mean of its table · *: differs from the variant that it is compared with, p < 0.05 ({METHOD}) · "
    "no mark: not shown to differ · ( ): the last value of unfinished runs, not ranked"
)


BEST = "best ever"
"""The column that a narrow terminal does without."""


class Cell(NamedTuple):
    """Foreign text as it came; ``best``: the best value of its column."""

    text: str
    best: bool = False


Costs = Mapping[str, Mapping[str, Spread]]
"""Measured columns by name, by variant."""


@dataclass(frozen=True)
class Tabular:
    """``left``: how many of its columns, from the first, hold text; all others hold numbers."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: int


def tables(comparison: Comparison, costs: Costs) -> list[Tabular]:
    """What was compared, then a table for each metric.

    Args:
        costs: measured columns, such as images a second, by variant; empty where none was measured.
    """
    return [_variants(comparison, costs), *(_metric(comparison, metric) for metric in comparison.metrics)]


def _variants(comparison: Comparison, costs: Costs) -> Tabular:
    headers = ("variant", *comparison.columns, "status", "seeds", "parameters", "GMACs", *costs)
    rows = []
    for group in comparison.groups:
        first = group.runs[0]
        texts = [group.name, *(group.settings.get(name, "-") for name in comparison.columns), group.status()]
        texts += [str(len(group.ranked)), f"{first.parameters:,}", f"{first.macs / 1e9:,.3g}"]
        texts += [_text(column.get(group.name)) for column in costs.values()]
        rows.append(tuple(map(Cell, texts)))
    return Tabular(f"{comparison.name}: variants", headers, tuple(rows), len(comparison.columns) + 2)


def _metric(comparison: Comparison, metric: str) -> Tabular:
    standings = comparison.standing(metric)
    when = f"at {comparison.at}" if comparison.at else "at the end of training"
    title = f"{metric}, {'higher' if comparison.higher_is_better(metric) else 'lower'} is better, {when}"
    headers = ("variant", f"final {_arrow(comparison, metric)}", "difference [95 %]", "p", "pairs", BEST)
    rows = []
    for group in comparison.groups:
        standing = standings.get(group.name)
        difference, p, pairs = _compared(standing)
        value = marked(group, metric, standing)
        rows.append((Cell(group.name), value, *map(Cell, (difference, p, pairs, _text(group.best(metric))))))
    return Tabular(title, headers, tuple(rows), 1)


def marked(group: Group, metric: str, standing: Standing | None) -> Cell:
    """The final value; of a variant without a finished run its last one, in brackets."""
    final = group.final(metric)
    if final is None:
        last = group.last(metric)
        return Cell("-" if last is None else f"({last})")
    if standing and standing.best:
        return Cell(str(final), best=True)
    return Cell(f"{final} *" if standing and standing.paired and standing.paired.significant else str(final))


def _compared(standing: Standing | None) -> tuple[str, str, str]:
    """Difference, p, number of pairs."""
    if standing is None or (standing.paired is None and not standing.reference):
        return "-", "-", "-"
    if standing.paired is None:
        return "reference", "", ""
    return difference(standing.paired), p_value(standing.paired.p_holm), str(standing.paired.n)


def difference(found: Paired) -> str:
    """``+0.012 [-0.001, +0.025]``."""
    if found.mean is None:
        return "-"
    if found.interval is None:
        return f"{found.mean:+.2g}"
    low, high = found.interval
    # As many decimals as the interval's half has to two digits.
    decimals = min(max(0, 1 - math.floor(math.log10((high - low) / 2))), 8) if high > low else 2
    return f"{found.mean:+.{decimals}f} [{low:+.{decimals}f}, {high:+.{decimals}f}]"


def p_value(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def print_tables(console: Console, comparison: Comparison, costs: Costs) -> None:
    """For a terminal, each as ``print_table`` does; one that fits without ``BEST`` alone goes without it."""
    for one in tables(comparison, costs):
        shorter = Tabular(one.title, one.headers[:-1], tuple(cells[:-1] for cells in one.rows), one.left)
        fits = _width(_rich(one)) <= console.width or one.headers[-1] != BEST or _width(_rich(shorter)) > console.width
        print_table(console, one if fits else shorter)


def print_table(console: Console, one: Tabular) -> None:
    """For a terminal. No cell is cut or folded: a table that is too wide becomes a list."""
    table = _rich(one)
    if _width(table) <= console.width:
        console.print(table)
        return
    console.print(Text(printable(one.title), "italic"), soft_wrap=True)
    for cells in one.rows:
        for i, (title, cell) in enumerate(zip(one.headers, cells, strict=True)):
            line = f"{'' if i == 0 else '    '}{title}: {'** ' if cell.best else ''}{cell.text}"
            console.print(Text(printable(line), "bold" if cell.best else ""), soft_wrap=True)


def _rich(one: Tabular) -> Table:
    table = Table(title=Text(printable(one.title)), title_justify="left")
    for i, title in enumerate(one.headers):
        table.add_column(Text(printable(title)), justify="left" if i < one.left else "right", no_wrap=True)
    for cells in one.rows:
        table.add_row(*(Text(f"** {c.text}", "bold") if c.best else Text(printable(c.text)) for c in cells))
    return table


def _width(table: Table) -> int:
    return Console(width=100_000).measure(table).maximum


def markdown(comparison: Comparison, costs: Costs) -> str:
    """Each table with its title as a paragraph above it."""
    return markdown_of(tables(comparison, costs))


def markdown_of(found: Sequence[Tabular]) -> str:
    """The tables one below the other."""
    parts = []
    for one in found:
        rule = ["---" if i < one.left else "---:" for i in range(len(one.headers))]
        lines = [[markdown_cell(title) for title in one.headers], rule]
        lines += [[f"**{c.text}**" if c.best else markdown_cell(c.text) for c in cells] for cells in one.rows]
        parts.append(f"{markdown_cell(one.title)}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join(parts) + "\n"


def _plain(column: str) -> str:
    """``images/s sampling`` to ``sampling_images_per_second``."""
    unit, slash, what = column.partition("/s ")
    return f"{what}_{unit}_per_second" if slash else column.replace(" ", "_")


def as_csv(comparison: Comparison, costs: Costs) -> str:
    """A row a variant: means, deviations, tests and counts in columns of their own; empty where there is none."""
    titles = ["variant", *comparison.columns, "status"]
    for metric in comparison.metrics:
        titles += [f"{metric}.{what}" for what in ("final", "final_std", "n", "best", "best_std")]
        titles += [f"{metric}.{what}" for what in ("difference", "low", "high", "pairs", "p", "p_holm")]
    titles += [title for name in costs for title in (_plain(name), f"{_plain(name)}_std")]
    standings = {metric: comparison.standing(metric) for metric in comparison.metrics}
    rows = []
    for group in comparison.groups:
        cells: list[object] = [group.name, *(group.settings.get(name, "") for name in comparison.columns)]
        cells.append(group.status())
        for metric in comparison.metrics:
            final, standing = group.final(metric), standings[metric].get(group.name)
            cells += [*_numbers(final), "" if final is None else len(final.values), *_numbers(group.best(metric))]
            cells += _test(standing.paired if standing else None)
        for column in costs.values():
            cells += _numbers(column.get(group.name))
        first = group.runs[0]
        rows.append([*cells, first.parameters, first.macs, len(group.ranked)])
    return _written([*titles, "parameters", "macs", "seeds"], rows)


def csv_by_seed(comparison: Comparison) -> str:
    """A row a run, with the status that it has, its image count and its final values; for other programs."""
    titles = ["variant", "seed", *comparison.columns, "status", "iterations", "images", "ranked", *comparison.metrics]
    rows = []
    for group in comparison.groups:
        for run in group.runs:
            last = {metric: found[-1] for metric in comparison.metrics if (found := run.of(metric))}
            images = max((result.images or 0 for result in last.values()), default=0)
            settings = [group.settings.get(name, "") for name in comparison.columns]
            cells = [group.name, run.seed, *settings, run.status.word, run.status.step, images, int(run.ranked)]
            rows.append([*cells, *(last[metric].value if metric in last else "" for metric in comparison.metrics)])
    return _written(titles, rows)


def _written(titles: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in (titles, *rows):
        writer.writerow(map(csv_cell, row))
    return out.getvalue()


def _numbers(spread: Spread | None) -> list[object]:
    return ["", ""] if spread is None else [spread.mean, "" if spread.deviation is None else spread.deviation]


def _test(found: Paired | None) -> list[object]:
    if found is None:
        return [""] * 6
    low, high = found.interval or ("", "")
    values = (found.mean, low, high, found.n, found.p, found.p_holm)
    return ["" if value is None else value for value in values]


def _arrow(comparison: Comparison, metric: str) -> str:
    return "↑" if comparison.higher_is_better(metric) else "↓"


def _text(spread: Spread | None) -> str:
    return "-" if spread is None else str(spread)
