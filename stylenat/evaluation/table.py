"""The table of metrics: the values of a run next to those of the baselines."""

import math
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from registry.wording import printable
from stylenat.evaluation.evaluate import Evaluation


def metrics_table(evaluation: Evaluation, baselines: Mapping[str, Mapping[str, float]]) -> Table:
    """One row for each value; columns for the run and each baseline. The arrow shows the better direction."""
    table = Table(title="↓ lower is better, ↑ higher", title_justify="left")
    table.add_column("metric")
    table.add_column("this run", justify="right", style="bold")
    for name in baselines:
        table.add_column(Text(name), justify="right")
    for name, value in evaluation.metrics.items():
        arrow = "↑" if evaluation.protocol["metrics"][name]["better"] == "higher" else "↓"
        spread = f" ± {evaluation.spread[name]:.2g}" if name in evaluation.spread else ""
        others = [f"{values[name]:.4g}" if name in values else "–" for values in baselines.values()]
        shown = f"{value:.4g}{spread}" if math.isfinite(value) else "null"
        table.add_row(Text(printable(f"{name} {arrow}")), shown, *others)
    return table
