"""``tools/evaluate.py``: metrics of a trained generator, each with its protocol."""

import argparse
import errno
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import Registry, UserError
from registry.wording import printable
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command, experiments_folder, one_of_several
from stylenat.files import open_in_folder

if TYPE_CHECKING:
    from stylenat.evaluation.evaluate import Evaluation
    from stylenat.interfaces import Dataset

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
        return _all(arguments, argv)
    from stylenat.training.processes import joined

    with joined():
        return _all(arguments, argv)


def _all(arguments: argparse.Namespace, argv: Sequence[str] | None) -> int:
    """One run, or those of an ablation."""
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
    files, bindings = [config, *arguments.gin], _bindings(arguments)
    experiment = load_experiment(registry, files, bindings, search_path=search)
    if arguments.bootstrap is not None:
        with_it = [name for name in experiment.settings() if re.fullmatch(r"(.+/)?metric\.\w+\.bootstrap", name)]
        bindings += [f"{name} = {arguments.bootstrap}" for name in with_it]
        experiment = load_experiment(registry, files, bindings, search_path=search)
    out = arguments.out or config.parent / "metrics.jsonl"
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent} to write {out.name} to")
    try:
        if os.path.lexists(out):
            os.close(open_in_folder(out, os.O_WRONLY | os.O_APPEND))
        elif not os.access(out.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "its folder cannot be written")
    except OSError as error:
        raise UserError(f"cannot write results to {out} ({error.strerror}); choose another file with --out") from error

    import torch

    from stylenat.evaluation.cache import StatisticsCache, statistics_folder
    from stylenat.evaluation.evaluate import Evaluation, Evaluator, check_images, usable, warnings_for
    from stylenat.evaluation.one_class import mean_over_classes, of_class
    from stylenat.evaluation.progress import ProgressLine
    from stylenat.random_streams import BLOCK
    from stylenat.sampling import Sampler, default_batch, sampler_of
    from stylenat.training.agreement import facts_of, must_agree
    from stylenat.training.forward import use_tf32
    from stylenat.training.memory import out_of_memory_is_one_line, smaller_batch
    from stylenat.training.processes import pick_device
    from stylenat.weights import classes_of_weights

    threads = experiment.value("train.threads")
    if threads is not None:
        torch.set_num_threads(threads)
    metrics = experiment.value("train.metrics")
    _provide(metrics, arguments)
    metrics = usable(metrics, _say)
    if not metrics:
        raise UserError("there is nothing to measure: bind train.metrics, for instance with --gin metrics/offline.gin")
    device = pick_device(experiment.value("train.device"))
    use_tf32(experiment.value("train.tf32"))
    # All of the checkpoint is read now: training may go on meanwhile, and drop it.
    manifest, trackers = weights.manifest_of(folder), _trackers(experiment, folder)
    generator, network = weights.generator_of(folder, experiment.value("train.generator"), arguments.average)
    # What training measures; results of any other weights are no values of the run.
    another_average = network != ("ema" if (folder / "ema.safetensors").exists() else "generator")
    dataset = _dataset(registry, experiment, arguments.data, generator.resolution)
    must_agree(facts_of(experiment, registry.plugin_files) | {"weights": manifest["sha256"][f"{network}.safetensors"]})
    if any(getattr(metric, "uses_real", True) for metric in metrics):
        _prepare(dataset, arguments, manifest.get("dataset"))
    samples = experiment.value("train.evaluation_samples")
    classes = classes_of_weights(folder, generator)
    pixel_space = experiment.value("train.pixel_space")
    numbers: list[int | None] = [arguments.number]
    if arguments.number is not None:
        if classes is None:
            raise UserError("--class: the generator has no classes; it was trained without labels")
        classes.one(arguments.number)
    if arguments.per_class:
        if classes is None:
            raise UserError("--per-class: the generator has no classes; it was trained without labels")
        numbers = list(range(len(classes)))
    check_images(metrics, of_class(dataset, numbers[0]), samples, arguments.real_samples)
    for line in warnings_for(samples):
        _say(f"note: {line}")

    batch = arguments.batch or default_batch(experiment.value("train.batch_size"))
    seed, psi = experiment.value("train.seed"), experiment.value("train.truncation_psi")
    cache = None if arguments.no_cache else StatisticsCache(arguments.cache or statistics_folder(), _say)
    failures: list[str] = []
    progress = ProgressLine("generated"), ProgressLine("real")
    step, images = manifest.get("step"), manifest.get("images")
    at_once = max(batch, arguments.batch or BLOCK)

    def sampler(number: int | None, batch: int) -> Sampler:
        made = sampler_of(generator.to(device), seed, psi, batch, classes, pixel_space)
        return made if number is None else made.of_class(number)

    found: list[Evaluation] = []
    for number in numbers:
        evaluator = Evaluator(
            of_class(dataset, number),
            metrics,
            device,
            cache,
            arguments.real_samples,
            failures.append,
            arguments.batch or BLOCK,
        )

        def one(evaluator: Evaluator = evaluator, number: int | None = number) -> None:
            evaluator.embed(sampler(number, 1)(0, 1))

        with out_of_memory_is_one_line(lambda: at_once, one, device, smaller_batch):
            try:
                evaluation = evaluator.evaluate(sampler(number, batch), samples, *progress)
            finally:
                for line in progress:
                    line.close()
            if set(evaluation.failed) == set(evaluation.metrics):
                raise UserError(f"{folder}: nothing is measured and nothing written: {'; '.join(failures)}")
            for text in failures:
                _say(text)
            failures.clear()
            evaluator.say = _say
            evaluation.protocol["generated"]["weights_sha256"] = manifest["sha256"][f"{network}.safetensors"]
            if another_average:
                evaluation.protocol["generated"]["average"] = network
            _report(evaluation, evaluator, samples, arguments.baselines)
        _write(out, step, images, evaluation)
        found.append(evaluation)
    if arguments.per_class:
        evaluation = mean_over_classes(found)
        _report(evaluation, None, samples, False)
        _write(out, step, images, evaluation)
    for tracker in trackers if arguments.number is None and not another_average else ():
        tracker.record_evaluation(step, evaluation.metrics, evaluation.details())
    return 0


def _prepare(dataset: "Dataset", arguments: argparse.Namespace, trained_on: Any) -> None:
    """Opens the real images. Raises UserError where that would create files, which a run's config may not decide."""
    from stylenat.data.identity import differences, identity
    from stylenat.training.agreement import must_agree
    from stylenat.training.processes import first_alone

    created = getattr(dataset, "creates", None)
    if created is not None and not arguments.make_data:
        raise UserError(f"{created} does not exist; add --make-data to create it there, or give images with --data")
    first_alone(dataset.prepare)
    images = identity(dataset)
    must_agree({f"data set, {name}": str(value) for name, value in images.items()})
    if arguments.data is None and isinstance(trained_on, dict) and (lines := differences(trained_on, images)):
        _say(f"note: the real images are not those of the training: {'; '.join(lines)}")


def _bindings(arguments: argparse.Namespace) -> list[str]:
    """The options that are parameters of ``train``, as bindings, which are checked as such."""
    for name in ("samples", "real_samples"):
        value = getattr(arguments, name)
        if value is not None and value < 2:
            raise UserError(f"--{name.replace('_', '-')} must be at least 2; got {value}")
    if arguments.batch is not None and arguments.batch < 1:
        raise UserError(f"--batch must be at least 1; got {arguments.batch}")
    bindings = list(arguments.bind)
    if arguments.samples is not None:
        bindings.append(f"train.evaluation_samples = {arguments.samples}")
    if arguments.truncation_psi is not None:
        bindings.append(f"train.truncation_psi = {arguments.truncation_psi!r}")
    return bindings


def _provide(metrics: Sequence[Any], arguments: argparse.Namespace) -> None:
    """Gives the extractors the weights' files, and leave to fetch the others. Raises UserError for a file of no use."""
    from stylenat import weights

    sources = [metric.needs for metric in metrics if hasattr(metric, "needs")]
    for path in arguments.extractor_weights:
        if not path.is_file():
            raise UserError(f"--extractor-weights: there is no file {path}")
        state = weights.read(path).states.get("", {})
        if not any([source.take(path, state) for source in sources if hasattr(source, "take")]):
            names = ", ".join(sorted({source.name for source in sources if hasattr(source, "take")})) or "none"
            raise UserError(f"{path} holds weights of none of the extractors that the metrics use ({names})")
    for source in sources:
        if arguments.download and hasattr(source, "download"):
            source.download = True


def _dataset(registry: Registry, experiment: Any, data: Path | None, resolution: int) -> "Dataset":
    """The real images, unopened. Raises UserError when they are not of the generator's resolution."""
    if data is None:
        dataset = experiment.value("train.dataset")
    else:
        dataset = registry.find("dataset.lmdb").load()(path=str(data), resolution=resolution)
    if dataset.resolution != resolution:
        raise UserError(
            f"the generator's images are {resolution}x{resolution} and {dataset.describe()} has {dataset.resolution}; "
            "give data of the generator's resolution with --data"
        )
    return dataset


def _report(evaluation: "Evaluation", evaluator: Any, samples: int, with_baselines: bool) -> None:
    from rich.console import Console

    from stylenat.evaluation.baselines import baselines
    from stylenat.evaluation.table import metrics_table
    from stylenat.ranks import rank

    compared = baselines(evaluator) if with_baselines and evaluator.real.used else {}
    if rank() == 0:
        what = f"{samples} generated images"
        if evaluator is None:
            what = f"mean over classes, {what} each"
        elif (real := evaluator.real).used:
            what += f", {real.count} of {real.dataset.describe()}"
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(printable(what), soft_wrap=True, highlight=False, markup=False)
        console.print(metrics_table(evaluation, compared))


def _write(out: Path, step: int | None, images: int | None, evaluation: "Evaluation") -> None:
    from stylenat.evaluation.records import append_evaluation
    from stylenat.ranks import rank

    if rank():
        return
    try:
        append_evaluation(out, step, images, evaluation.metrics, evaluation.details())
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from error
    print(printable(f"written with its protocol: {out}"))


def _trackers(experiment: Any, folder: Path) -> list[Any]:
    """The run's trackers that take evaluations after training, each in the state that the checkpoint has."""
    from stylenat import checkpoint
    from stylenat.ranks import rank

    wanting = [t for t in experiment.value("train.trackers") if hasattr(t, "record_evaluation")]
    if rank() or not wanting or not (folder / "state.pt").exists():
        return []
    states = checkpoint.state(folder)["trackers"]
    known = [tracker for tracker in wanting if type(tracker).__qualname__ in states]
    for tracker in known:
        tracker.load_state_dict(states[type(tracker).__qualname__])
    return known


def _say(line: str) -> None:
    """Prints on stderr, in process 0 only."""
    from stylenat.ranks import rank

    if rank():
        return
    print(printable(line), file=sys.stderr)
