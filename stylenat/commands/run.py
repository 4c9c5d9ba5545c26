"""``tools/run.py``: trains the experiment of gin files; evaluations and samples included."""

import argparse
import glob
import os
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from registry import Experiment, Registry, UserError
from registry import arguments as bound
from registry.wording import printable
from stylenat.commands import _streams
from stylenat.commands._arguments import Parser
from stylenat.commands._command import STOPPED, command, experiments_folder, one_of_several
from stylenat.commands._plugins import loaded_plugins
from stylenat.files import read_bounded
from stylenat.training.interrupt import signals_end_the_process
from stylenat.training.run import CONFIG_BYTES, ENVIRONMENT

LENGTH = "train.iterations"

EXAMPLES = """examples:
  python tools/run.py --gin gin/quickstart.gin
  python tools/run.py --gin gin/quickstart.gin --bind 'train.iterations = 100' --bind 'train.seed = 1'
  python tools/run.py --gin gin/quickstart.gin --bind 'SIDE = 64'    # another resolution
  python tools/run.py --gin gin/ffhq256.gin --dry-run
  python tools/run.py --gin gin/ffhq256.gin --max-hours 23.5      # then the same command again
  python tools/run.py --gin gin/ffhq256.gin --run-dir runs/a --bind 'train.batch_size = 64' --resume-with-changes
  torchrun --nproc-per-node 8 tools/run.py --gin gin/ffhq256.gin       # on eight GPUs: docs/scaling.md
  python tools/run.py --list partition
  python tools/run.py --explain partition.pyramid --picture pyramid.png
  python tools/run.py --explain partition.pyramid --bind 'partition.pyramid.kernel_size = 3'

Ctrl-C, SIGTERM, SIGUSR1 and --max-hours end training after the current iteration, with a checkpoint.
Exit codes: 0 done, 2 invalid input, 75 interrupted and resumable, 1 internal error.
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="run",
        description="Train the experiment of the gin files. The same command continues its run.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--gin", action="append", default=[], metavar="FILE", help="experiment; later files override")
    parser.add_argument(
        "--bind", action="append", default=[], metavar="'SELECTOR.PARAMETER = VALUE'", help="overrides the files"
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="default: runs/EXPERIMENT-HASH")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|CHECKPOINT",
        help="continue the run (auto), require a new one (never), or start from CHECKPOINT",
    )
    changes = "continue in --run-dir although the experiment has changed; the change is recorded there"
    parser.add_argument("--resume-with-changes", action="store_true", help=changes)
    hours = "stop with a checkpoint H hours after the start"
    parser.add_argument("--max-hours", type=float, metavar="H", help=hours)
    parser.add_argument("--dry-run", action="store_true", help="check the experiment and show its sizes; train nothing")
    memory = "with --dry-run: count the memory of an iteration, and what fits cards of 24, 40 and 80 GB"
    parser.add_argument("--memory", action="store_true", help=memory)
    parser.add_argument(
        "--list", nargs="?", const="", metavar="KIND", help="list the names for gin files, of one kind or of all"
    )
    parser.add_argument("--explain", metavar="KIND.NAME", help="show the docstring and the parameters of one name")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="with --explain partition.NAME: write a picture"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    began = time.monotonic()
    arguments = parser().parse_args(argv)
    _check(arguments)
    if not one_of_several():
        return _run(arguments, began, argv)
    with signals_end_the_process(STOPPED):
        from stylenat.training.processes import joined

    with joined():
        return _run(arguments, began, argv)


def _run(arguments: argparse.Namespace, began: float, argv: Sequence[str] | None) -> int:
    with signals_end_the_process(STOPPED):  # Until all that is imported is.
        from registry import load_experiment
        from stylenat.commands._listing import explain, listing

        registry = loaded_plugins(arguments.plugin, _runs_of(arguments.gin), "run", argv)
        if arguments.list is not None:
            from stylenat.commands.tables import print_listing

            print_listing(listing(registry, arguments.list or None), registry.suspects)
            return 0
        if arguments.explain:
            from stylenat.commands.tables import print_explanation

            entry = explain(registry, arguments.explain)
            print_explanation(entry)
            if entry.kind == "partition" and not entry.problem:
                _show_partition(registry, entry.selector, arguments)
            elif arguments.picture:
                raise UserError(f"--picture draws partitions; {entry.selector} is not one")
            return 0

        experiment = load_experiment(registry, arguments.gin, arguments.bind, search_path=[experiments_folder()])
        if arguments.dry_run:
            from stylenat.commands.tables import print_dry_run

            print_dry_run(experiment, arguments.memory)
            return 0
        from stylenat.training.launch import run_experiment

    _streams.go_on_without()
    directory = arguments.run_dir or _folder_of(experiment)
    deadline = None if arguments.max_hours is None else began + 3600 * arguments.max_hours
    status = run_experiment(registry, experiment, directory, arguments.resume, arguments.resume_with_changes, deadline)
    # torchrun takes any other code than 0 for a failure; the marker in the run folder says the rest.
    stopped = 0 if "TORCHELASTIC_RUN_ID" in os.environ else STOPPED
    return stopped if status == "stopped" else 0


def _folder_of(experiment: Experiment) -> Path:
    """``runs/NAME-HASH``; or the folder of the same experiment from a version that spelt it otherwise, such as before a
    parameter had its present name: it goes on there.

    Prints how to go on in the folder of a run that differs in its length alone.
    """
    directory = Path("runs") / f"{experiment.name}-{experiment.hash}"
    if directory.exists():
        return directory
    shorter: list[tuple[Path, str]] = []
    for folder in sorted(Path("runs").glob(f"{glob.escape(experiment.name)}-*")):
        if re.fullmatch("[0-9a-f]{8}", folder.name.removeprefix(f"{experiment.name}-")):
            try:
                text = read_bounded(folder / "config.gin", CONFIG_BYTES).decode()
            except (OSError, ValueError):
                continue  # No run folder, or none that can be read.
            try:
                found = experiment.differing(text)
            except UserError:
                continue  # Of other plugins or another version.
            if not found:
                print(printable(f"{folder} holds this experiment, in the spelling of an earlier version"))
                return folder
            if set(found) == {LENGTH}:
                shorter.append((folder, str(found[LENGTH][1])))
    for folder, iterations in shorter:
        print(
            printable(
                f"a new run begins in {directory}; {folder} differs only in {LENGTH}, {iterations} there: to go on "
                f"in it instead, add --run-dir {shlex.quote(str(folder))} --resume-with-changes"
            )
        )
    return directory


def _runs_of(files: Sequence[str]) -> list[Path]:
    """The run folders whose own ``config.gin`` is among the files: an experiment that is repeated."""
    paths = map(Path, files)
    return [path.parent for path in paths if path.name == "config.gin" and (path.parent / ENVIRONMENT).is_file()]


def _check(arguments: argparse.Namespace) -> None:
    if arguments.resume_with_changes and arguments.run_dir is None:
        raise UserError("--resume-with-changes needs --run-dir: without it a changed experiment gets another folder")
    if arguments.memory and not arguments.dry_run:
        raise UserError("--memory is for --dry-run: add it, or leave --memory out")
    if arguments.max_hours is not None and not 0 < arguments.max_hours < 10**6:
        raise UserError(f"--max-hours must be above 0 and below 1e6; got {arguments.max_hours:g}")


def _show_partition(registry: Registry, selector: str, arguments: argparse.Namespace) -> None:
    """Draws what the partition's heads see, with the parameters that gin files and bindings give it."""
    from stylenat.receptive_field import published_sites, save_picture, terminal_picture

    try:
        options = bound(registry, selector, arguments.gin, arguments.bind, [experiments_folder()])
    except UserError as error:
        if arguments.gin or arguments.bind or arguments.picture:
            raise
        print(printable(f"no picture: {error}"))
        return
    partition, sites = registry.find(selector).load()(**options), published_sites()
    print(terminal_picture(partition, sites))
    if arguments.picture:
        save_picture(arguments.picture, selector, partition, sites)
        print(f"\nwritten: {arguments.picture}")
