"""``tools/evaluate.py``: metrics of a trained generator, each with its protocol."""

import argparse
import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from registry import UserError
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command, experiments_folder, one_of_several
from stylenat.commands._generator import DEVICES, add_precision, check_batch_argument, check_truncation_argument
from stylenat.files import open_in_folder

EXAMPLES = """examples:
  python tools/evaluate.py runs/quickstart-1a2b3c4d
  python tools/evaluate.py runs/NAME --gin metrics/fid50k.gin --data data/ffhq256.lmdb --extractor-weights inception.pth
  python tools/evaluate.py runs/NAME/checkpoints/step-000001000 --gin metrics/all50k.gin --samples 10000
  python tools/evaluate.py imported/ --gin metrics/inception50k.gin --data data/ffhq256.lmdb --download
  python tools/evaluate.py --ablation head_partitions --gin metrics/offline.gin --samples 10000
  torchrun --nproc-per-node 4 tools/evaluate.py runs/NAME --gin metrics/fid50k.gin
"""

BOOTSTRAP = 20
"""Resamplings with ``--ablation``: the value of ``metric.fid.bootstrap`` that docs/evaluation.md proposes."""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="evaluate",
        description="Compute metrics of a run's EMA generator. Append them, with their protocol, to metrics.jsonl.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "run", type=Path, nargs="?", metavar="RUN", help="run folder, one of its checkpoints, or imported weights"
    )
    parser.add_argument("--ablation", metavar="NAME", help="instead of RUN: all finished runs of runs/NAME, each once")
    parser.add_argument("--at", type=int, metavar="ITERATION", help="with --ablation: checkpoints of that iteration")
    parser.add_argument(
        "--bootstrap", type=int, metavar="N", help="resamplings for intervals, where a metric has them (--ablation: 20)"
    )
    parser.add_argument(
        "--gin", action="append", default=[], metavar="FILE", help="metrics and their settings (default: the run's)"
    )
    parser.add_argument("--bind", action="append", default=[], metavar="'SELECTOR.PARAMETER = VALUE'")
    parser.add_argument("--data", type=Path, metavar="DATA.lmdb", help="real images (default: the run's)")
    parser.add_argument(
        "--make-data", action="store_true", help="create the data set where the run's config says, if it is not there"
    )
    parser.add_argument("--samples", type=int, metavar="N", help="number of generated images (default: the run's)")
    parser.add_argument("--real-samples", type=int, metavar="N", help="only the first N real images (default: all)")
    parser.add_argument("--truncation-psi", type=float, metavar="PSI", help="1: no truncation")
    parser.add_argument("--device", choices=DEVICES, help="(default: the run's train.device)")
    add_precision(parser)
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="images at once (default: as in training, at most 16; other numbers may round differently)",
    )
    parser.add_argument(
        "--extractor-weights",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="weights file of any extractor; repeatable",
    )
    parser.add_argument("--download", action="store_true", help="download missing weights of extractors")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="cache of the real images' statistics (default: ~/.cache/stylenat/statistics, or in $STYLENAT_CACHE)",
    )
    parser.add_argument("--no-cache", action="store_true", help="do not use this cache")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="default: metrics.jsonl in the run's folder")
    parser.add_argument(
        "--baselines", "--yardsticks", action="store_true", help="measure real halves, blurred and mean images too"
    )
    one_of = parser.add_mutually_exclusive_group()
    one_of.add_argument(
        "--class",
        dest="number",
        type=int,
        metavar="K",
        help="class-conditional generator: class K against its real images",
    )
    one_of.add_argument("--per-class", action="store_true", help="each class separately, and the mean over classes")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    parser.add_argument(
        "--average",
        metavar="NAME",
        help="which average of the weights: ema (default), ema-0.100 or the like, generator for none",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    _check(arguments)
    if not one_of_several():
        return evaluate(arguments, argv)
    from stylenat.training.processes import joined

    with joined():
        return evaluate(arguments, argv)


def evaluate(arguments: argparse.Namespace, argv: Sequence[str] | None) -> int:
    """Evaluates one run, or those of an ablation."""
    if arguments.ablation is None:
        return _evaluate(arguments, argv)
    from stylenat.commands._evaluate_ablation import evaluate_ablation

    return evaluate_ablation(arguments, lambda one: _evaluate(one, argv))


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.run is None) is (arguments.ablation is None):
        raise UserError("name RUN or --ablation NAME, and not both")
    if arguments.ablation is None and arguments.at is not None:
        raise UserError("--at is for --ablation; of one run name the checkpoint's folder")
    if arguments.ablation is not None and arguments.out is not None:
        raise UserError("--out is for one RUN; with --ablation each run's metrics.jsonl is written")
    if arguments.bootstrap is None and arguments.ablation is not None:
        arguments.bootstrap = BOOTSTRAP
    if arguments.bootstrap is not None and arguments.bootstrap not in (0, *range(2, 100_001)):
        raise UserError(f"--bootstrap must be 0, or from 2 to 100,000; got {arguments.bootstrap}")


def _evaluate(arguments: argparse.Namespace, argv: Sequence[str] | None) -> int:
    from registry import load_experiment
    from stylenat import weights
    from stylenat.commands._plugins import loaded_plugins

    folder = weights.weights_folder(arguments.run)
    config, search = weights.config_of(folder), [experiments_folder()]
    registry = loaded_plugins(arguments.plugin, [config.parent], "evaluate", argv)
    files, bindings = [config, *arguments.gin], bindings_of(arguments)
    experiment = load_experiment(registry, files, bindings, search_path=search)
    if arguments.bootstrap is not None:
        with_it = [name for name in experiment.settings() if re.fullmatch(r"(.+/)?metric\.\w+\.bootstrap", name)]
        bindings += [f"{name} = {arguments.bootstrap}" for name in with_it]
        experiment = load_experiment(registry, files, bindings, search_path=search)
    out = arguments.out or config.parent / "metrics.jsonl"
    _check_writable(out)
    from stylenat.commands._evaluate_run import evaluate_run

    return evaluate_run(arguments, registry, experiment, folder, out)


def _check_writable(out: Path) -> None:
    """Raises UserError where results could not be appended, before hours are spent on them."""
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent} to write {out.name} to")
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file with --out, such as {out / 'metrics.jsonl'}")
    try:
        if os.path.lexists(out):
            os.close(open_in_folder(out, os.O_WRONLY | os.O_APPEND))
        elif not os.access(out.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "its folder cannot be written")
    except OSError as error:
        raise UserError(f"cannot write results to {out} ({error.strerror}); choose another file with --out") from error


def bindings_of(arguments: argparse.Namespace) -> list[str]:
    """The options that are parameters of ``train``, as bindings, which are checked as such.

    Raises UserError for numbers that are out of range.
    """
    for name in ("samples", "real_samples"):
        value = getattr(arguments, name)
        if value is not None and value < 2:
            raise UserError(f"--{name.replace('_', '-')} must be at least 2; got {value}")
    check_batch_argument(arguments.batch)
    check_truncation_argument(arguments.truncation_psi)
    bindings = list(arguments.bind)
    if arguments.samples is not None:
        bindings.append(f"train.evaluation_samples = {arguments.samples}")
    if arguments.truncation_psi is not None:
        bindings.append(f"train.truncation_psi = {arguments.truncation_psi!r}")
    if arguments.device is not None:
        bindings.append(f"train.device = {arguments.device!r}")
    return bindings
