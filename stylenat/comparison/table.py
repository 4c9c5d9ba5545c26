"""The comparison as a table: for the terminal, as Markdown, and as CSV with all digits."""

import csv
import io
from collections.abc import Mapping

from rich.table import Table

from stylenat.comparison.results import Comparison, Group, Spread, Standing

LEGEND = "best in its column: ** · not told apart from it over the seeds (Welch's t-test, 5 %): ~"


def headers(comparison: Comparison, sampling: Mapping[str, float]) -> list[str]:
    """Column titles. ``sampling``: measured images a second of the generator by variant, empty where none was."""
    metrics = [title for name in comparison.metrics for title in (f"{name} {_arrow(comparison, name)}", f"best {name}")]
    speeds = ["images/s in training", *(["images/s sampling"] if sampling else [])]
    return ["variant", *comparison.columns, *metrics, *speeds, "parameters", "GMACs", "seeds"]


def rows(comparison: Comparison, sampling: Mapping[str, float]) -> list[list[str]]:
    """A row a variant; the best final value of each metric between double asterisks, what equals it after a ~."""
    standings = {metric: comparison.standing(metric) for metric in comparison.metrics}
    found = []
    for group in comparison.groups:
        cells = [group.name, *(group.settings.get(name, "-") for name in comparison.columns)]
        for metric in comparison.metrics:
            cells.append(_marked(group.final(metric), standings[metric].get(group.name)))
            cells.append(_text(group.best(metric)))
        rate = group.rate()
        cells.append("-" if rate is None else f"{rate.mean:.3g}")
        if sampling:
            cells.append(f"{sampling[group.name]:.3g}")
        first = group.runs[0]
        cells += [f"{first.parameters:,}", f"{first.macs / 1e9:,.3g}", str(len(group.runs))]
        found.append(cells)
    return found


def rich_table(comparison: Comparison, sampling: Mapping[str, float]) -> Table:
    table = Table(title=f"{comparison.name}: final values, mean ± standard deviation over seeds", title_justify="left")
    for i, title in enumerate(headers(comparison, sampling)):
        right = i > len(comparison.columns)
        table.add_column(_plain(title), justify="right" if right else "left", overflow="fold")
    for cells in rows(comparison, sampling):
        table.add_row(*(f"[bold]** {cell[2:-2]}[/]" if cell.startswith("**") else _plain(cell) for cell in cells))
    return table


def markdown(comparison: Comparison, sampling: Mapping[str, float]) -> str:
    titles = headers(comparison, sampling)
    left = len(comparison.columns) + 1
    rule = ["---" if i < left else "---:" for i in range(len(titles))]
    lines = [titles, rule, *([_escaped(cell) for cell in cells] for cells in rows(comparison, sampling))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def as_csv(comparison: Comparison, sampling: Mapping[str, float]) -> str:
    """Means, deviations and counts in columns of their own; empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    titles = ["variant", *comparison.columns]
    for metric in comparison.metrics:
        titles += [f"{metric}.{what}" for what in ("final", "final_std", "best", "best_std")]
    titles += ["training_images_per_second", *(["sampling_images_per_second"] if sampling else [])]
    writer.writerow([*titles, "parameters", "macs", "seeds"])
    for group in comparison.groups:
        writer.writerow(_csv_row(comparison, group, sampling))
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
    known = [result for group in comparison.groups for result in group.finals(metric)]
    return "↑" if known and known[0].higher_is_better else "↓"


def _marked(spread: Spread | None, standing: Standing | None) -> str:
    text = _text(spread)
    if standing and standing.best:
        return f"**{text}**"
    return f"~ {text}" if standing and standing.close else text


def _text(spread: Spread | None) -> str:
    return "-" if spread is None else str(spread)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _escaped(cell: str) -> str:
    """Fit for a Markdown cell: nothing in it ends the cell or the line."""
    return cell.replace("|", "\\|").replace("\n", " ")
