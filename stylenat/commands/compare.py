"""``tools/compare.py``: runs side by side, as a table, pictures, links into Aim, and one page of all."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stylenat.commands._arguments import Parser
from stylenat.commands._command import command

if TYPE_CHECKING:
    from stylenat.comparison.aim_links import Links
    from stylenat.comparison.chosen import Choice
    from stylenat.comparison.groups import At
    from stylenat.comparison.results import Comparison
    from stylenat.comparison.sheets import Sheet
    from stylenat.comparison.table import Costs

EXAMPLES = """examples:
  python tools/compare.py --experiment head_partitions
  python tools/compare.py runs/quickstart-1a2b3c4d runs/quickstart-5e6f7a8b --metric fid
  python tools/compare.py --experiment head_partitions --out report      # report/report.html, plots, tables
  python tools/compare.py --experiment head_partitions --format markdown > table.md
  python tools/compare.py --experiment head_partitions --format latex > table.tex
  python tools/compare.py --experiment head_partitions --at 1200 --baseline uniform
  python tools/compare.py --experiment head_partitions --out report --draw 3,17,42 --draw-psi 0.7

Results of different protocols are not ranked against each other: docs/evaluation.md. How to read a report:
docs/ablations.md.
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="compare",
        description="Compare runs: a table of differing parameters and of metrics over seeds; plots; a report.",
        epilog=EXAMPLES,
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders, or an ablation's folder")
    parser.add_argument("--experiment", metavar="NAME", help="an ablation, or all runs/NAME-*")
    parser.add_argument("--metric", action="append", default=[], metavar="NAME", help="show these (default: all)")
    points = parser.add_mutually_exclusive_group()
    points.add_argument("--at", type=int, metavar="ITERATION", help="compare all at this iteration (default: the end)")
    points.add_argument("--at-images", type=int, metavar="IMAGES", help="compare all at so many real images seen")
    parser.add_argument("--baseline", metavar="VARIANT", help="compare with this variant (default: the best)")
    parser.add_argument(
        "--format",
        choices=("table", "markdown", "csv", "csv-by-seed", "latex"),
        default="table",
        help="of what is printed",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write report.html, plots and tables here")
    parser.add_argument("--draw", metavar="A-B,C", help="with --out: a figure of these sample indices by variant")
    parser.add_argument("--draw-classes", metavar="A-B,C", help="of conditional generators: of these classes")
    parser.add_argument("--draw-psi", type=float, metavar="PSI", help="its truncation, 1 for none (default: the runs')")
    parser.add_argument(
        "--group-by", metavar="KEY", help="parameter or label that Aim groups by (default: those that differ)"
    )
    parser.add_argument(
        "--measure", action="store_true", help="time each generator on this machine, which should be idle"
    )
    parser.add_argument(
        "--measure-training", action="store_true", help="--measure, and time training and count its memory, too"
    )
    parser.add_argument("--remark", action="append", default=[], metavar="TEXT", help="note for the report; repeatable")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from registry import UserError
    from stylenat.commands._generator import must_name_folder
    from stylenat.commands._plugins import loaded_plugins
    from stylenat.comparison.find import found_runs, run_folders

    if arguments.out is not None:
        must_name_folder(arguments.out)
    if arguments.runs and arguments.experiment:
        raise UserError("name runs or --experiment, not both")
    runs = run_folders(arguments.runs, arguments.experiment)
    registry = loaded_plugins(arguments.plugin, runs, "compare", argv)

    from stylenat.comparison.aim_links import links
    from stylenat.comparison.chosen import draw
    from stylenat.comparison.results import compared_runs

    choice = _choice(arguments)
    found = found_runs(registry, arguments.runs, arguments.experiment)
    comparison = compared_runs(
        found.runs, found.name, arguments.metric, found.order, at=_at(arguments), baseline=arguments.baseline
    )
    pages = links(comparison, arguments.group_by)
    if pages is None and arguments.group_by:
        raise UserError("--group-by is for Aim, and these runs are not in one Aim repository")
    if arguments.out:
        _make(arguments.out)
    costs: Costs = {}
    remarks = list(arguments.remark)
    if arguments.measure or arguments.measure_training:
        from stylenat.comparison.throughput import measured
        from stylenat.training.launch import pick_device

        found_costs = measured(registry, comparison, pick_device("auto"), arguments.measure_training)
        costs, remarks = found_costs.columns, [*found_costs.notes, *remarks]
    _print(comparison, costs, arguments.format, pages, [*found.missing, *comparison.notes(), *remarks])
    if arguments.out:
        chosen = None if choice is None else draw(registry, comparison, choice)
        _write(arguments.out, comparison, costs, pages, found.missing, remarks, chosen)
    return 0


def _choice(arguments: argparse.Namespace) -> "Choice | None":
    """What --draw asks for. Raises UserError for options that do not fit."""
    from registry import UserError
    from stylenat.commands.sample import parsed_seeds
    from stylenat.comparison.chosen import Choice

    if arguments.draw is None:
        if arguments.draw_classes is not None or arguments.draw_psi is not None:
            raise UserError("--draw-classes and --draw-psi need --draw INDICES")
        return None
    if arguments.out is None:
        raise UserError("--draw needs --out DIR, where the figure is written")
    if arguments.draw_psi is not None and not math.isfinite(arguments.draw_psi):
        raise UserError(f"--draw-psi must be finite; got {arguments.draw_psi}")
    classes = [] if arguments.draw_classes is None else parsed_seeds(arguments.draw_classes, "--draw-classes")
    return Choice(parsed_seeds(arguments.draw, "--draw"), classes, arguments.draw_psi)


def _at(arguments: argparse.Namespace) -> "At | None":
    from stylenat.comparison.groups import At

    if arguments.at is not None:
        return At(arguments.at, "iterations")
    return None if arguments.at_images is None else At(arguments.at_images, "images")


def _print(comparison: "Comparison", costs: "Costs", form: str, pages: "Links | None", notes: Sequence[str]) -> None:
    """The table on stdout; in a form for other programs it stands there alone, and the notes go to stderr."""
    from rich.console import Console

    from registry.wording import printable
    from stylenat.commands.tables import WIDTH
    from stylenat.comparison.latex import latex
    from stylenat.comparison.table import LEGEND, as_csv, csv_by_seed, markdown, print_tables

    aside = Console(stderr=form != "table", width=WIDTH, highlight=False, soft_wrap=True, markup=False)
    if form == "table":
        print_tables(Console(width=None if sys.stdout.isatty() else WIDTH), comparison, costs)
        aside.print(LEGEND)
    elif form == "csv-by-seed":
        print(csv_by_seed(comparison), end="")
    else:
        write = {"markdown": markdown, "csv": as_csv, "latex": latex}[form]
        print(write(comparison, costs), end="")
    for note in notes:
        aside.print(printable(f"note: {note}"))
    if pages:
        aside.print(f"\nin Aim, grouped by {printable(pages.grouped_by)} (first run: {printable(pages.start)})")
        for title, url in pages.pages.items():
            aside.print(f"{printable(title):>24}  {url}")


def _make(folder: Path) -> None:
    from registry import UserError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error


def _write(
    folder: Path,
    comparison: "Comparison",
    costs: "Costs",
    pages: "Links | None",
    missing: Sequence[str],
    remarks: Sequence[str],
    drawn: "Sheet | None",
) -> None:
    from registry.wording import printable
    from stylenat.comparison import pictures, plots
    from stylenat.comparison.appendix import by_run, environments
    from stylenat.comparison.foreign import file_name
    from stylenat.comparison.latex import latex
    from stylenat.comparison.report import Pictures, report
    from stylenat.comparison.table import as_csv, csv_by_seed, markdown, markdown_of
    from stylenat.comparison.throughput import SAMPLING
    from stylenat.training.run import write_text

    taken: set[str] = set()
    runs = [run for group in comparison.groups for run in group.runs]
    curved = [metric for metric in comparison.metrics if any(len(run.of(metric)) > 1 for run in runs)]
    figures = {file_name(f"curve-{metric}", taken): plots.curves(comparison, metric) for metric in curved}
    groups = comparison.groups
    with_values = [metric for metric in comparison.metrics if any(group.final(metric) for group in groups)]
    main_metric = (with_values or comparison.metrics)[0]
    axes = [("parameters", "parameters of the generator (millions)", plots.parameters_of(groups), True)]
    if SAMPLING in costs:
        speeds = {name: spread.mean for name, spread in costs[SAMPLING].items()}
        axes.append(("throughput", "images a second, sampling, measured side by side", speeds, False))
    captions = {name: plots.curves_caption(comparison, metric) for name, metric in zip(figures, curved, strict=True)}
    for name, title, values, less in axes:
        figures[f"pareto-{name}"] = plots.pareto(comparison, main_metric, title, values, less)
        captions[f"pareto-{name}"] = plots.pareto_caption(comparison, main_metric, title)
    shown = Pictures()
    for name, figure in figures.items():
        plots.save(figure, folder / name)
        shown.plots[captions[name]] = (folder / f"{name}.svg").read_bytes()
    if drawn is not None:
        shown.chosen, shown.chosen_caption = drawn.png(), drawn.caption
        captions["chosen-samples"] = drawn.caption
        drawn.save(folder / "chosen-samples")
    chosen, without = pictures.same_latents(comparison)
    if chosen:
        sheet = pictures.side_by_side(chosen)
        shown.side_by_side, shown.side_by_side_caption = sheet.png(), sheet.caption
        captions["samples"] = sheet.caption
        sheet.save(folder / "samples")
        shown.grids = {name: run.grid.read_bytes() for name, run in chosen.items() if run.grid}
        remarks = [*remarks, *without]
    shown.heads = pictures.what_heads_see(comparison)
    write_text(folder / "captions.txt", "".join(f"{name}: {printable(text)}\n" for name, text in captions.items()))
    write_text(folder / "table.md", markdown(comparison, costs))
    write_text(folder / "appendix.md", markdown_of([by_run(comparison), environments(comparison)]))
    write_text(folder / "table.csv", as_csv(comparison, costs))
    write_text(folder / "table.tex", latex(comparison, costs))
    write_text(folder / "table-by-seed.csv", csv_by_seed(comparison))
    write_text(folder / "report.html", report(comparison, costs, shown, pages, missing, remarks))
    written = printable(folder / "report.html")
    print(f"\nwritten: {written}, with its plots and tables in the same folder")
