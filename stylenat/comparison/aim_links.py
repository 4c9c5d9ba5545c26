"""Addresses of Aim's own pages that show these runs, grouped by what differs. Nothing is fetched."""

import base64
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from registry import UserError
from registry.wording import did_you_mean, listed
from stylenat.comparison.results import Comparison
from stylenat.comparison.runs import RunResults

ADDRESS = "http://127.0.0.1:43800"
"""The default address of ``aim up``."""


AGGREGATED = {"aggregationConfig": {"methods": {"area": 2, "line": 0}, "isApplied": True, "isEnabled": True}}
"""Aim's numbers: area 2 is the standard deviation, line 0 the mean."""


@dataclass(frozen=True)
class Links:
    """``pages``: address by title. ``start``: the command that makes them answer; ``grouped_by``: as it was asked."""

    pages: dict[str, str]
    start: str
    grouped_by: str


def links(comparison: Comparison, group_by: str | None = None, address: str = ADDRESS) -> Links | None:
    """Pages of each metric, of the losses and of the sample grids; None where the runs are not in one Aim repository.

    Args:
        group_by: ``variant``, or a parameter such as ``block.hydra.partition``; by default what tells the runs apart.

    Raises:
        UserError: a key that some run does not have. Aim would draw all curves into one chart and say nothing.
    """
    runs = [run for group in comparison.groups for run in group.runs]
    repos = {run.aim_repo for run in runs}
    if len(repos) != 1 or None in repos:
        return None
    group_by = group_by or ("variant" if all("variant" in run.labels for run in runs) else _telling(comparison))
    key = grouping_key(runs, group_by) if group_by else "run.props.name"
    chosen = f"run.experiment == {runs[0].experiment!r}"
    if len({run.experiment for run in runs}) > 1 or not all("variant" in run.labels for run in runs):
        chosen = f"run.name in {[run.directory.name for run in runs]!r}"
    names = {measure.label: measure.name for measure in comparison.measures}  # Aim has no protocols.
    # A mean over seeds with its deviation, where a variant has several runs.
    several = any(len(group.runs) > 1 for group in comparison.groups)
    pages = {
        metric: f"{address}{metrics_path(f'{chosen} and metric.name == {metric!r}', [], [key], several)}"
        for metric in dict.fromkeys(names.get(label, label) for label in comparison.metrics)
    }
    losses = metrics_path(f"{chosen} and metric.name == 'loss'", ["context.net"], [key], several)
    seed = ["run.params.labels.seed"] if all("seed" in run.labels for run in runs) else []
    samples = images_path(f"{chosen} and images.name == 'samples'", [key, *seed, "step"])
    pages |= {"losses": address + losses, "samples": address + samples}
    repo = repos.pop()
    return Links(pages, "aim up" if repo == "." else f"aim up --repo {shlex.quote(repo)}", group_by or "run")


def grouping_key(runs: Sequence[RunResults], name: str) -> str:
    """Aim's name of a label or parameter that every run has. Raises UserError where one has not."""
    for run in runs:
        known = {f"labels.{label}" for label in run.labels} | set(run.settings)
        if name not in known and f"labels.{name}" not in known:
            guess = did_you_mean(name, {*run.labels, *run.settings}) or "."
            raise UserError(
                f"{run.directory} has no {name!r} to group by{guess} Parameters are written in full, such as "
                f"train.batch_size{'; labels: ' + listed(run.labels) if run.labels else ''}"
            )
    if name in runs[0].labels:
        return f"run.params.labels.{name}"
    # What a gin file calls wide/block.hydra.mlp_ratio lies under block, "wide/hydra", mlp_ratio.
    scope, _, selector = name.rpartition("/")
    kind, _, rest = selector.partition(".")
    return f"run.params.hparams.{kind}.{scope + '/' if scope else ''}{rest}"


def metrics_path(query: str, chart: Sequence[str], color: Sequence[str] = (), aggregated: bool = False) -> str:
    """The page of the metrics that a query of Aim's selects, one chart for each value of ``chart``.

    ``aggregated``: one line for each group, the mean, with an area of one standard deviation.
    """
    grouping = {"chart": list(chart), "color": list(color)}
    path = f"/metrics?select={encoded(_select(query))}&grouping={encoded(grouping)}"
    return f"{path}&chart={encoded(AGGREGATED)}" if aggregated else path


def images_path(query: str, rows: Sequence[str]) -> str:
    """The page of the images that a query of Aim's selects, one row for each value of ``rows``."""
    return f"/images?select={encoded(_select(query))}&grouping={encoded({'row': list(rows)})}"


def _select(query: str) -> dict[str, Any]:
    return {"options": [], "query": "", "advancedMode": True, "advancedQuery": query}


def encoded(value: Any) -> str:
    """As Aim's pages put objects into addresses: base64url, unpadded, of what JavaScript's encodeURI gives."""
    text = quote(json.dumps(value), safe=";,/?:@&=+$-_.!~*'()#")
    return "O-" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _telling(comparison: Comparison) -> str | None:
    """The first parameter that differs and that all runs have."""
    runs = [run for group in comparison.groups for run in group.runs]
    return next((name for name in comparison.columns if all(name in run.settings for run in runs)), None)
