"""``tools/ablate.py``: trains every variant that an ablation file names."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stylenat.commands import _streams
from stylenat.commands._arguments import Parser
from stylenat.commands._command import STOPPED, USER_ERROR, command, experiments_folder

if TYPE_CHECKING:
    from rich.table import Table

    from registry import HeadGroup
    from stylenat.ablation.execute import Outcome
    from stylenat.ablation.plan import Plan

EXAMPLES = """examples:
  python tools/ablate.py --gin gin/ablations/head_partitions.gin --dry-run
  python tools/ablate.py --gin gin/ablations/head_partitions.gin --quick
  python tools/ablate.py --gin mine.gin --jobs 4 --threads 8
  python tools/ablate.py --gin mine.gin --print-commands > commands.txt      # a line each, for a SLURM array
  python tools/ablate.py --gin mine.gin --ray auto                           # pip install 'stylenat[ray]'

then:
  python tools/compare.py --experiment head_partitions --out report

Ctrl-C stops every run with a checkpoint (exit code 75); the same command continues. The file: docs/ablations.md.
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ablate",
        description="Train every variant of an ablation with each of its seeds. All variants are checked before the\n"
        "first run starts. Finished runs are skipped, interrupted ones continue. A run that fails is\n"
        "reported, and the others continue.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--gin", action="append", default=[], metavar="FILE", help="ablation; later files override")
    parser.add_argument(
        "--bind", action="append", default=[], metavar="'SELECTOR.PARAMETER = VALUE'", help="overrides the files"
    )
    parser.add_argument("--quick", action="store_true", help="apply ablation.quick, the file's small version")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of all runs (default: runs/NAME)")
    parser.add_argument(
        "--allow-equal", action="store_true", help="mark variants that build the same model instead of refusing them"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="check every variant and show sizes; write nothing")
    parser.add_argument(
        "--print-commands", action="store_true", help="print one command for each unfinished run; start none"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, each on its own cores")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each run (default: its cores)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="submit the runs to Ray; without ADDRESS it is started on this machine",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from registry import UserError
    from stylenat.commands._generator import must_name_folder
    from stylenat.commands._plugins import loaded_plugins

    if arguments.out is not None:
        must_name_folder(arguments.out)
    for name in ("jobs", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1; got {value}")
    if arguments.print_commands and arguments.threads is not None:
        raise UserError("--threads is not in the printed commands; set OMP_NUM_THREADS where they run")
    registry = loaded_plugins(arguments.plugin)

    from stylenat.ablation.planning import planned, prepare

    plan = planned(
        registry,
        arguments.gin,
        arguments.bind,
        [experiments_folder()],
        quick=arguments.quick,
        out=arguments.out,
        allow_equal=arguments.allow_equal,
    )
    if arguments.dry_run:
        _print_plan(plan)
        for one in plan.broken:
            print(one.traceback, file=sys.stderr)
        return _broken(plan)
    unfinished = [job for job in plan.jobs if not job.finished]
    if not unfinished and not plan.broken:
        print(f"all {len(plan.jobs)} runs in {plan.folder} are finished; nothing to do")
        return 0

    from stylenat.ablation.execute import command_of, execute, only_one

    if arguments.print_commands:
        plan.write()
        for job in unfinished:
            print(shlex.join(command_of(job, arguments.plugin)))
        return _broken(plan)

    import torch

    from stylenat.ablation.display import Display
    from stylenat.ablation.runners import LocalRunner, RayRunner

    _streams.go_on_without()
    _make(plan.folder)
    with only_one(plan.folder) as lock:
        if arguments.ray:
            runner = RayRunner(arguments.ray, arguments.threads)
        else:
            # Not where there are GPUs: CUDA cannot be used in a fork of a process that has asked for them.
            warm = len(unfinished) > 1 and not torch.cuda.is_available()
            runner = LocalRunner(arguments.jobs, arguments.threads, lock, warm)
        try:
            plan.write()
            if (prepared := prepare(registry, plan)) != plan:
                plan = prepared
                plan.write()
            outcomes = execute(plan.jobs, runner, plan.folder, Display(plan.jobs), arguments.plugin)
        finally:
            runner.close()
    return _said(plan, outcomes, arguments.plugin)


def _make(folder: Path) -> None:
    from registry import UserError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error


def _said(plan: "Plan", outcomes: "Sequence[Outcome]", plugins: Sequence[str]) -> int:
    """Says how it all ended; the exit code."""
    from registry.wording import printable

    finished = sum(job.finished for job in plan.jobs) + sum(outcome.code == 0 for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.code not in (0, STOPPED)]
    broken = _broken(plan)
    print(f"{finished} of {len(plan.jobs)} runs are finished, in {plan.folder}")
    for outcome in failed:
        log = plan.folder / "logs" / f"{outcome.job.name}.log"
        line = f"{outcome.job.name} failed with {outcome.code}: {outcome.reason} (log: {log})"
        print(printable(line), file=sys.stderr)
    if broken:
        return broken
    if failed:
        return USER_ERROR if all(outcome.code == USER_ERROR for outcome in failed) else 1
    if finished < len(plan.jobs):
        print("to continue: the same command")
        return STOPPED
    extra = [argument for plugin in plugins for argument in ("--plugin", plugin)]
    print(f"to compare: python tools/compare.py {shlex.join([str(plan.folder), *extra])}")
    return 0


def _broken(plan: "Plan") -> int:
    """Names the variants that cannot be built; the exit code: 1 where there are any."""
    from registry.wording import printable

    for one in plan.broken:
        line = f"variant {one.variant.name!r} is left out, it cannot be built: {one.reason}"
        print(printable(line), file=sys.stderr)
    return 1 if plan.broken else 0


def _print_plan(plan: "Plan") -> None:
    from rich.console import Console

    from registry.wording import printable
    from stylenat.commands.tables import WIDTH
    from stylenat.comparison.parameters import telling
    from stylenat.comparison.table import Cell, Tabular, print_table

    columns = telling([planned.settings for planned in plan.variants])
    title = f"{plan.name}: {len(plan.variants)} variants, seeds {', '.join(map(str, plan.seeds))}"
    headers, rows = ("variant", *columns, "runs", "parameters", "GMACs"), []
    for planned in plan.variants:
        jobs = [job for job in plan.jobs if job.variant == planned.variant.name]
        done = sum(job.finished for job in jobs)
        begun = sum(0 < job.step < job.iterations for job in jobs)
        counts = {"finished": done, "begun": begun, "to do": len(jobs) - done - begun}
        state = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        values = [planned.settings.get(name, "-") for name in columns]
        sizes = [f"{planned.parameters:,}", f"{planned.macs / 1e9:,.3g}"]
        name = planned.variant.name + (f" (= {planned.same_as})" if planned.same_as else "")
        rows.append(tuple(map(Cell, (name, *values, state, *sizes))))
    console = Console(width=WIDTH)
    print_table(console, Tabular(title, headers, tuple(rows), len(columns) + 2))
    if any(planned.neighborhoods for planned in plan.variants):
        console.print(_heads_table(plan))
    iterations = sum(job.iterations for job in plan.jobs)
    line = printable(f"{len(plan.jobs)} runs, {iterations:,} iterations in all, in {plan.folder}")
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _heads_table(plan: "Plan") -> "Table":
    """The head groups of every variant, a column for each resolution."""
    from rich.table import Table
    from rich.text import Text

    from registry.wording import printable

    sides = sorted({site.resolution for planned in plan.variants for site, _ in planned.neighborhoods})
    table = Table(
        title="head groups: heads x kernel size, dilation (reach: tokens that a window spans of the map's side)",
        show_lines=True,
    )
    for name in ("variant", *(f"{side}x{side}" for side in sides)):
        table.add_column(name, overflow="fold")
    for planned in plan.variants:
        if not planned.neighborhoods:
            continue
        cells = []
        for side in sides:
            layers = [groups for site, groups in planned.neighborhoods if site.resolution == side]
            texts = ["\n".join(_head_group(group, side) for group in groups) for groups in layers]
            cells.append("\n\n".join(dict.fromkeys(texts)) or "-")
        name = planned.variant.name + (f"\n(= {planned.same_as})" if planned.same_as else "")
        table.add_row(Text("\n".join(map(printable, name.split("\n")))), *map(Text, cells))
    return table


def _head_group(group: "HeadGroup", side: int) -> str:
    """``2 x 3, dilation 5 (11 of 16)``."""
    reach = (group.kernel_size - 1) * group.dilation + 1
    return f"{group.num_heads} x {group.kernel_size}, dilation {group.dilation} ({reach} of {side})"
