"""The comparison as a table: for the terminal, as Markdown, and as CSV with all digits."""

import csv
import io
from collections.abc import Mapping
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from registry.wording import printable
from stylenat.comparison.foreign import csv_cell, markdown_cell
from stylenat.comparison.results import Comparison, Group, Spread, Standing

LEGEND = "best in its column: ** · not distinguished from it over the seeds (Welch's t-test, 5 %): ~"


class Cell(NamedTuple):
    """Foreign text as it came; ``best``: the best value of its column."""

    text: str
    best: bool = False


def headers(comparison: Comparison, sampling: Mapping[str, float]) -> list[str]:
    """Column titles. ``sampling``: measured images a second of the generator by variant, empty where none was."""
    metrics = [title for name in comparison.metrics for title in (f"{name} {_arrow(comparison, name)}", f"best {name}")]
    speeds = ["images/s in training", *(["images/s sampling"] if sampling else [])]
    return ["variant", *comparison.columns, *metrics, *speeds, "parameters", "GMACs", "seeds"]


def rows(comparison: Comparison, sampling: Mapping[str, float]) -> list[list[Cell]]:
    """A row a variant; the best final value of each metric is marked, what equals it stands after a ~."""
    standings = {metric: comparison.standing(metric) for metric in comparison.metrics}
    found = []
    for group in comparison.groups:
        cells = [Cell(group.name), *(Cell(group.settings.get(name, "-")) for name in comparison.columns)]
        for metric in comparison.metrics:
            cells.append(_marked(group.final(metric), standings[metric].get(group.name)))
            cells.append(Cell(_text(group.best(metric))))
        rate = group.rate()
        cells.append(Cell("-" if rate is None else f"{rate.mean:.3g}"))
        if sampling:
            cells.append(Cell(f"{sampling[group.name]:.3g}"))
        first = group.runs[0]
        cells += map(Cell, (f"{first.parameters:,}", f"{first.macs / 1e9:,.3g}", str(len(group.runs))))
        found.append(cells)
    return found


def rich_table(comparison: Comparison, sampling: Mapping[str, float]) -> Table:
    title = printable(f"{comparison.name}: final values, mean ± standard deviation over seeds")
    table = Table(title=Text(title), title_justify="left")
    for i, title in enumerate(headers(comparison, sampling)):
        right = i > len(comparison.columns)
        table.add_column(Text(printable(title)), justify="right" if right else "left", overflow="fold")
    for cells in rows(comparison, sampling):
        table.add_row(*(Text(f"** {cell.text}", "bold") if cell.best else Text(printable(cell.text)) for cell in cells))
    return table


def markdown(comparison: Comparison, sampling: Mapping[str, float]) -> str:
    titles = [markdown_cell(title) for title in headers(comparison, sampling)]
    left = len(comparison.columns) + 1
    rule = ["---" if i < left else "---:" for i in range(len(titles))]
    lines = [titles, rule]
    for cells in rows(comparison, sampling):
        lines.append([f"**{cell.text}**" if cell.best else markdown_cell(cell.text) for cell in cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def as_csv(comparison: Comparison, sampling: Mapping[str, float]) -> str:
    """Means, deviations and counts in columns of their own; empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    titles = ["variant", *comparison.columns]
    for metric in comparison.metrics:
        titles += [f"{metric}.{what}" for what in ("final", "final_std", "best", "best_std")]
    titles += ["training_images_per_second", *(["sampling_images_per_second"] if sampling else [])]
    writer.writerow(map(csv_cell, [*titles, "parameters", "macs", "seeds"]))
    for group in comparison.groups:
        writer.writerow(map(csv_cell, _csv_row(comparison, group, sampling)))
    return out.getvalue()


def _csv_row(comparison: Comparison, group: Group, sampling: Mapping[str, float]) -> list[object]:
    cells: list[object] = [group.name, *(group.settings.get(name, "") for name in comparison.columns)]
    for metric in comparison.metrics:
        for spread in (group.final(metric), group.best(metric)):
            cells += ["", ""] if spread is None else [spread.mean, "" if spread.deviation is None else spread.deviation]
    rate = group.rate()
    cells.append("" if rate is None else rate.mean)
    if sampling:
        cells.append(sampling[group.name])
    first = group.runs[0]
    return [*cells, first.parameters, first.macs, len(group.runs)]


def _arrow(comparison: Comparison, metric: str) -> str:
    return "↑" if comparison.higher_is_better(metric) else "↓"


def _marked(spread: Spread | None, standing: Standing | None) -> Cell:
    text = _text(spread)
    if standing and standing.best:
        return Cell(text, best=True)
    return Cell(f"~ {text}" if standing and standing.close else text)


def _text(spread: Spread | None) -> str:
    return "-" if spread is None else str(spread)
