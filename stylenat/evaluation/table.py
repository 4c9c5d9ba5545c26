"""The metrics table: a run's numbers beside the yardsticks that give them meaning."""

import math
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from registry.wording import printable
from stylenat.evaluation.evaluate import Evaluation


def metrics_table(evaluation: Evaluation, yardsticks: Mapping[str, Mapping[str, float]]) -> Table:
    """One row a value; columns for the run and each yardstick. An arrow says which way is better."""
    table = Table(title="↓ lower is better, ↑ higher", title_justify="left")
    table.add_column("metric")
    table.add_column("this run", justify="right", style="bold")
    for name in yardsticks:
        table.add_column(Text(name), justify="right")
    for name, value in evaluation.metrics.items():
        arrow = "↑" if evaluation.protocol["metrics"][name]["better"] == "higher" else "↓"
        spread = f" ± {evaluation.spread[name]:.2g}" if name in evaluation.spread else ""
        sticks = [f"{stick[name]:.4g}" if name in stick else "–" for stick in yardsticks.values()]
        shown = f"{value:.4g}{spread}" if math.isfinite(value) else "null"
        table.add_row(Text(printable(f"{name} {arrow}")), shown, *sticks)
    return table
