"""The evaluation of one run's weights, from its loaded experiment on."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from registry import Experiment, Registry, UserError
from registry.wording import printable
from stylenat import checkpoint, weights
from stylenat.classes import Classes
from stylenat.commands._generator import to_precision
from stylenat.data.identity import differences, identity
from stylenat.evaluation.baselines import baselines
from stylenat.evaluation.cache import StatisticsCache, statistics_folder
from stylenat.evaluation.evaluate import Evaluation, Evaluator, check_images, fitting, usable, warnings_for
from stylenat.evaluation.extractors import provide
from stylenat.evaluation.one_class import mean_over_classes, of_class
from stylenat.evaluation.progress import ProgressLine
from stylenat.evaluation.records import append_evaluation
from stylenat.evaluation.table import metrics_table
from stylenat.interfaces import Dataset
from stylenat.random_streams import BLOCK
from stylenat.ranks import rank
from stylenat.reused_memory import reuse_freed_memory
from stylenat.sampling import Sampler, default_batch, sampler_of
from stylenat.training.agreement import facts_of, must_agree
from stylenat.training.forward import use_tf32
from stylenat.training.memory import out_of_memory_is_one_line, smaller_batch
from stylenat.training.processes import pick_device, prepare_in_turn


@dataclass(frozen=True)
class Evaluated:
    """Weights as they are evaluated.

    Attributes:
        network: their name in the checkpoint; average: that name where it is not what training measures, else None.
        manifest: of the checkpoint; classes: of a conditional generator.
    """

    generator: nn.Module
    network: str
    average: str | None
    manifest: dict[str, Any]
    classes: Classes | None

    @property
    def sha256(self) -> str:
        return str(self.manifest["sha256"][f"{self.network}.safetensors"])


def evaluate_run(
    arguments: argparse.Namespace, registry: Registry, experiment: Experiment, folder: Path, out: Path
) -> int:
    """Measures, prints, appends to ``out`` and tells the run's trackers.

    Args:
        arguments: of ``tools/evaluate.py``; folder: of the weights; out: a metrics.jsonl.

    Raises:
        UserError: the weights, the data or the options do not fit, or nothing could be measured.
    """
    threads = experiment.value("train.threads")
    if threads is not None:
        torch.set_num_threads(threads)
    # All of the checkpoint is read now: training may go on meanwhile, and drop it.
    trackers, own = _trackers(experiment, folder), _weights(arguments, experiment, folder)
    metrics = fitting(experiment.value("train.metrics"), own.generator, _say)
    sources = [metric.needs for metric in metrics if hasattr(metric, "needs")]
    provide(sources, arguments.extractor_weights, arguments.download)
    metrics = usable(metrics, _say)
    if not metrics:
        raise UserError("there is nothing to measure: bind train.metrics, for instance with --gin metrics/offline.gin")
    device = pick_device(experiment.value("train.device"), "--device" if arguments.device else "train.device")
    if device.type == "cpu":
        reuse_freed_memory()
    use_tf32(experiment.value("train.tf32"))
    dataset = _dataset(registry, experiment, arguments.data, own.generator.resolution)
    facts = facts_of(experiment, registry.plugin_files)
    must_agree(facts | {"weights": own.sha256})
    if any(getattr(metric, "uses_real", True) for metric in metrics):
        _prepare(dataset, arguments, own.manifest.get("dataset"))
    numbers = _classes(arguments, own.classes)
    samples = experiment.value("train.evaluation_samples")
    check_images(metrics, of_class(dataset, numbers[0]), samples, arguments.real_samples)
    for line in warnings_for(samples):
        _say(f"note: {line}")

    own.generator.to(device)
    to_precision(own.generator, arguments.precision, device)
    found = []
    for number in numbers:
        evaluator = _evaluator(arguments, of_class(dataset, number), metrics, device, facts)
        evaluation, failures = _measured(evaluator, _sampler(experiment, own, number), samples, arguments, experiment)
        if set(evaluation.failed) == set(evaluation.metrics):
            raise UserError(f"{folder}: nothing is measured and nothing written: {'; '.join(failures)}")
        for text in failures:
            _say(text)
        evaluation.protocol["generated"]["weights_sha256"] = own.sha256
        if own.average:
            evaluation.protocol["generated"]["average"] = own.average
        _report(evaluation, evaluator, samples, arguments.baselines)
        _write(out, own.manifest, evaluation)
        found.append(evaluation)
    if arguments.per_class:
        evaluation = mean_over_classes(found)
        _report(evaluation, None, samples, False)
        _write(out, own.manifest, evaluation)
    measured_in_training = arguments.number is None and not own.average and arguments.precision == "float32"
    for tracker in trackers if measured_in_training else ():
        tracker.record_evaluation(own.manifest.get("step"), evaluation.metrics, evaluation.details())
    return 0


def _weights(arguments: argparse.Namespace, experiment: Experiment, folder: Path) -> Evaluated:
    generator, network = weights.generator_of(folder, experiment.value("train.generator"), arguments.average)
    # What training measures; results of any other weights are no values of the run.
    measured = "ema" if (folder / "ema.safetensors").exists() else "generator"
    classes = weights.classes_of_weights(folder, generator)
    average = None if network == measured else network
    return Evaluated(generator, network, average, weights.manifest_of(folder), classes)


def _classes(arguments: argparse.Namespace, classes: Classes | None) -> list[int | None]:
    """The classes to measure, each by itself; None for all images together."""
    if classes is None:
        for asked, option in ((arguments.number is not None, "--class"), (arguments.per_class, "--per-class")):
            if asked:
                raise UserError(f"{option}: the generator has no classes; it was trained without labels")
        return [None]
    if arguments.number is not None:
        classes.one(arguments.number)
    return list(range(len(classes))) if arguments.per_class else [arguments.number]


def _sampler(experiment: Experiment, own: Evaluated, number: int | None) -> Callable[[int], Sampler]:
    """From a batch size to a sampler of a class, or of all."""
    seed, psi = experiment.value("train.seed"), experiment.value("train.truncation_psi")
    pixel_space = experiment.value("train.pixel_space")

    def sampler(batch: int) -> Sampler:
        made = sampler_of(own.generator, seed, psi, batch, own.classes, pixel_space)
        return made if number is None else made.of_class(number)

    return sampler


def _evaluator(
    arguments: argparse.Namespace,
    dataset: Dataset,
    metrics: Sequence[Any],
    device: torch.device,
    facts: Mapping[str, str],
) -> Evaluator:
    cache = None if arguments.no_cache else StatisticsCache(arguments.cache or statistics_folder(), _say)
    batch = arguments.batch or BLOCK
    return Evaluator(dataset, metrics, device, cache, arguments.real_samples, batch=batch, kept_as=facts)


def _measured(
    evaluator: Evaluator,
    sampler: Callable[[int], Sampler],
    samples: int,
    arguments: argparse.Namespace,
    experiment: Experiment,
) -> tuple[Evaluation, list[str]]:
    """The evaluation, and what it said of metrics that failed."""
    batch = arguments.batch or default_batch(experiment.value("train.batch_size"))
    progress = ProgressLine("generated"), ProgressLine("real")
    failures: list[str] = []
    evaluator.say = failures.append

    def one() -> None:
        evaluator.embed(sampler(1)(0, 1))

    def at_once() -> int:
        return max(batch, arguments.batch or BLOCK)

    with out_of_memory_is_one_line(at_once, one, evaluator.device, smaller_batch):
        try:
            evaluation = evaluator.evaluate(sampler(batch), samples, *progress)
        finally:
            for line in progress:
                line.close()
    evaluator.say = _say
    return evaluation, failures


def _prepare(dataset: Dataset, arguments: argparse.Namespace, trained_on: Any) -> None:
    """Opens the real images. Raises UserError where that would create files, which a run's config may not decide."""
    created = getattr(dataset, "creates", None)
    if created is not None and not arguments.make_data:
        raise UserError(f"{created} does not exist; add --make-data to create it there, or give images with --data")
    prepare_in_turn(dataset)
    images = identity(dataset)
    must_agree({f"data set, {name}": str(value) for name, value in images.items()})
    if arguments.data is None and isinstance(trained_on, dict) and (lines := differences(trained_on, images)):
        _say(f"note: the real images are not those of the training: {'; '.join(lines)}")


def _dataset(registry: Registry, experiment: Any, data: Path | None, resolution: int) -> Dataset:
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


def _report(evaluation: Evaluation, evaluator: Evaluator | None, samples: int, with_baselines: bool) -> None:
    compared = baselines(evaluator) if evaluator is not None and with_baselines and evaluator.real.used else {}
    if rank() == 0:
        what = f"{samples} generated images"
        if evaluator is None:
            what = f"mean over classes, {what} each"
        elif (real := evaluator.real).used:
            what += f", {real.count} of {real.dataset.describe()}"
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(printable(what), soft_wrap=True, highlight=False, markup=False)
        console.print(metrics_table(evaluation, compared))


def _write(out: Path, manifest: dict[str, Any], evaluation: Evaluation) -> None:
    if rank():
        return
    try:
        append_evaluation(out, manifest.get("step"), manifest.get("images"), evaluation.metrics, evaluation.details())
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from error
    print(printable(f"written with its protocol: {out}"))


def _trackers(experiment: Any, folder: Path) -> list[Any]:
    """The run's trackers that take evaluations after training, each in the state that the checkpoint has."""
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
    if rank():
        return
    print(printable(line), file=sys.stderr)
