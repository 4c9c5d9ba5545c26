"""``tools/stages.py``: trains experiments that continue each other, one after the other."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from registry import Experiment, UserError, load_experiment
from registry.wording import printable
from stylenat.commands import run
from stylenat.commands._arguments import Parser
from stylenat.commands._command import USER_ERROR, command, experiments_folder
from stylenat.commands._plugins import loaded_plugins
from stylenat.training.run import PREEMPTED, recognise

EXAMPLES = """examples:
  python tools/stages.py --gin gin/stylegan_xl_faces8.gin --gin gin/stylegan_xl_faces16.gin \\
      --gin gin/stylegan_xl_faces32.gin
  python tools/stages.py --gin a.gin --gin b.gin --max-hours 23.5      # then the same command again

Each file is an experiment of its own; its run folder is runs/NAME, NAME.gin its file, so that a later file can name it.
All files are checked before the first begins. Finished runs are skipped, interrupted ones continue.
Exit codes: 0 done, 2 invalid input, 75 interrupted and resumable, 1 internal error.
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="stages",
        description="Train the experiments of several gin files in their order, such as the stages of a\n"
        "progressively grown generator, each of which begins from the run before. The same command continues.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--gin", action="append", required=True, metavar="FILE", help="a stage; repeat for each one")
    parser.add_argument(
        "--bind", action="append", default=[], metavar="'SELECTOR.PARAMETER = VALUE'", help="overrides every file"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    hours = "stop with a checkpoint H hours after the start"
    parser.add_argument("--max-hours", type=float, metavar="H", help=hours)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    began = time.monotonic()
    arguments = parser().parse_args(argv)
    if arguments.max_hours is not None and not 0 < arguments.max_hours < 10**6:
        raise UserError(f"--max-hours must be above 0 and below 1e6; got {arguments.max_hours:g}")
    files, stages = arguments.gin, stages_of(arguments, argv)
    shared = [word for bind in arguments.bind for word in ("--bind", bind)]
    shared += [word for plugin in arguments.plugin for word in ("--plugin", plugin)]
    commands = [["--gin", file, "--run-dir", str(folder_of(s)), *shared] for file, s in zip(files, stages, strict=True)]
    for file, stage, options in zip(files, stages, commands, strict=True):
        _check_folder(file, stage, options)
    for number, (file, stage, options) in enumerate(zip(files, stages, commands, strict=True), 1):
        folder = folder_of(stage)
        print(printable(f"stage {number} of {len(stages)}: {file} in {folder}"), flush=True)
        hours: list[str] = []
        if arguments.max_hours is not None:
            left = arguments.max_hours - (time.monotonic() - began) / 3600
            hours = ["--max-hours", str(max(left, 1e-6))]
        # Under torchrun a run that was stopped ends with 0 as well.
        code = run.main([*options, *hours])
        if code == USER_ERROR:  # Its line may name options that this command does not have.
            said = f"stage {number} by itself, with all options of tools/run.py: {_command(options)}"
            print(printable(said), file=sys.stderr)
        if code or (folder / PREEMPTED).exists():
            return code
    return 0


def stages_of(arguments: argparse.Namespace, argv: Sequence[str] | None) -> list[Experiment]:
    """The experiments, checked. Raises UserError for a mistake in any, or two of one name."""
    registry = loaded_plugins(arguments.plugin, [], "stages", argv)
    found = [
        load_experiment(registry, [file], arguments.bind, search_path=[experiments_folder()]) for file in arguments.gin
    ]
    names = [experiment.name for experiment in found]
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(f"two stages are called {repeated[0]}, whose run folder would be the same; rename one file")
    return found


def folder_of(stage: Experiment) -> Path:
    return Path("runs") / stage.name


def _command(options: Sequence[str]) -> str:
    return shlex.join(["python", "tools/run.py", *options])


def _check_folder(file: str, stage: Experiment, options: Sequence[str]) -> None:
    """Raises UserError where the stage's folder holds something else, with advice for this command."""
    alone = _command([*options, "--resume-with-changes"])
    recognise(
        folder_of(stage),
        stage.differences,
        elsewhere=f"rename that folder to train {file} anew",
        onward=f"continue in it with `{alone}`, then give this command again",
    )
