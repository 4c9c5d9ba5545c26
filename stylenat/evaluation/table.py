"""The metrics table: a run's numbers beside the yardsticks that give them meaning."""

from collections.abc import Mapping

from rich.table import Table


def metrics_table(metrics: Mapping[str, float], yardsticks: Mapping[str, Mapping[str, float]]) -> Table:
    """One row a metric; columns for the run and each yardstick. Lower is better throughout."""
    table = Table(title="distance to the real images (lower is better)")
    table.add_column("metric")
    table.add_column("this run", justify="right", style="bold")
    for name in yardsticks:
        table.add_column(name, justify="right")
    for metric, value in metrics.items():
        table.add_row(metric, f"{value:.4g}", *(f"{stick[metric]:.4g}" for stick in yardsticks.values()))
    return table
