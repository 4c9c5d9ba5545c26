"""From a loaded experiment to a run: claims its folder, finds its checkpoint, trains, and says where things are."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import nn

from registry import Experiment, PluginFile, Registry, UserError
from registry.wording import printable
from stylenat import checkpoint, ranks, weights
from stylenat.data.identity import differences, identity
from stylenat.evaluation.baselines import baselines
from stylenat.evaluation.cache import StatisticsCache, statistics_folder
from stylenat.evaluation.evaluate import Evaluator, check_images, fitting, usable, warnings_for
from stylenat.evaluation.table import metrics_table
from stylenat.files import disk_full
from stylenat.interfaces import Tracker
from stylenat.networks.neighborhoods import neighborhoods
from stylenat.networks.notes import notes
from stylenat.reused_memory import reuse_freed_memory
from stylenat.training.agreement import facts_of, must_agree, must_share
from stylenat.training.compilation import check_compilation
from stylenat.training.determinism import check_determinism, deterministic
from stylenat.training.forward import PRECISIONS, use_tf32
from stylenat.training.loop import sampler, train
from stylenat.training.memorised import nearest_training_images
from stylenat.training.memory import too_little_for, training_memory
from stylenat.training.processes import no_way_back, pick_device, prepare_in_turn
from stylenat.training.run import (
    ENVIRONMENT,
    PREEMPTED,
    Run,
    environment,
    make_folder,
    mark_preempted,
    only_process,
    recognise,
    record_changes,
    record_plugins,
    recorded_plugins,
    write_environment,
)
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState


def run_experiment(
    registry: Registry,
    experiment: Experiment,
    directory: Path,
    resume: str,
    with_changes: bool = False,
    deadline: float | None = None,
) -> Literal["finished", "stopped"]:
    """Trains the experiment in its folder, or continues there.

    Args:
        resume: ``auto``, ``never``, or a checkpoint folder.
        with_changes: whether a folder of an experiment that differs is taken over, and the difference recorded.
        deadline: of ``time.monotonic()``, when to stop as if asked to; None for none.

    Raises:
        UserError: whatever of the gin file, the data or the folder stands in the way; before anything is written.
    """
    console = _console()
    arguments = {"--run-dir": str(directory), "--resume": resume, "--resume-with-changes": str(with_changes)}
    must_agree(facts_of(experiment, registry.plugin_files) | arguments)
    must_share(directory)
    settings: Training = experiment.get("train")()
    for tracker in settings.trackers:
        if hasattr(tracker, "check"):
            tracker.check()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = pick_device(settings.device)
    if device.type == "cpu":
        reuse_freed_memory()
    check_compilation(settings, device)
    use_tf32(settings.tf32)
    state = TrainingState(settings, device)

    def say(line: str) -> None:
        console.print(printable(line), markup=False)

    settings.metrics = usable(fitting(settings.metrics, state.generator, say), say)
    prepare_in_turn(settings.dataset)
    state.find_classes()
    state.dataset = identity(settings.dataset)
    must_agree({f"data set, {name}": str(value) for name, value in state.dataset.items()})
    check_images(settings.metrics, settings.dataset, settings.evaluation_samples)

    attention = attention_backends(state.generator, settings.precision)
    check_determinism(settings.deterministic, attention, device)

    # Before the folder is claimed: bad weights leave nothing behind.
    initial, own = None, directory / "checkpoints"
    goes_on = resume not in ("auto", "never")
    if settings.initial_weights is not None and not goes_on and checkpoint.newest_good(own, str) is None:
        initial = weights.initialise(state.networks(), Path(settings.initial_weights), settings.pixel_space)
    begun = {} if initial or goes_on or checkpoint.newest_good(own, lambda line: None) else state.begin()

    config_text = experiment.operative_text()
    changes = recognise(directory, experiment.differences, with_changes)
    existed = changes is not None
    loaded, other_images = _load(state, directory, resume, console)
    if other_images and not with_changes:
        raise UserError(
            f"{loaded} was trained on other images than {settings.dataset.describe()}: {'; '.join(other_images)}; bind "
            "the data set that it began with, or add --run-dir DIR --resume-with-changes, which records the change"
        )
    changed_plugins = _changed_plugins(registry, directory)
    changes = [*(changes or []), *other_images, *changed_plugins]
    if not existed and state.step >= settings.iterations:
        raise UserError(f"{loaded} is at iteration {state.step}: bind train.iterations above it to train on")
    run = Run(
        name=directory.name,
        experiment=experiment.name,
        directory=directory,
        iterations=settings.iterations,
        batch_size=settings.batch_size,
        config_text=config_text,
        hparams=experiment.hparams,
        environment=environment(settings.seed, experiment.plugins, registry.plugin_files)
        | ({"initial_weights": initial} if initial else {})
        | ({"begun_from": begun} if begun else {}),
        step=state.step,
        images=state.images,
        resumed=loaded is not None,
        neighborhoods=neighborhoods(state.generator),
        networks=state.networks(),
    )
    if state.finished:
        said = f"{directory} is finished at iteration {state.step}"
        to_train_on = f"to train on, bind train.iterations above it, with --run-dir {directory} --resume-with-changes"
        if with_changes and changes:
            raise UserError(f"{said}, so nothing would train with the changes ({'; '.join(changes)}); {to_train_on}")
        console.print(printable(f"{said}; nothing to do; {to_train_on}"))
        return "finished"
    if loaded is not None:
        console.print(printable(f"continuing from {loaded}"))
    if initial is not None and loaded is None:
        console.print(printable(f"starting from {initial['path']}: {', '.join(initial['sha256'])}"))
    for line in (
        *notes(state.generator, state.discriminator),
        too_little_for(state.generator, state.discriminator, device=device),
        no_way_back(),
    ):
        if line is not None:
            console.print(printable(f"note: {line}"))
    ranks.wait_for_all()  # Until here nobody may find a folder that process 0 has begun to write.
    hook: Any = NoHooks()
    with ExitStack() as until_the_end:
        if ranks.rank() == 0:
            make_folder(directory, None if existed else config_text)
            until_the_end.enter_context(only_process(directory))
            until_the_end.enter_context(_storage_faults(directory))
            if changes:
                record_changes(directory, config_text, state.step, changes)
                console.print(printable(f"changed from iteration {state.step} on: {'; '.join(changes)}"))
            if not (directory / ENVIRONMENT).exists():
                write_environment(directory, run.environment)
            elif changed_plugins:  # What a later command loads is what the run goes on with.
                record_plugins(directory, registry.plugin_files)
            (directory / PREEMPTED).unlink(missing_ok=True)
            hook = registry.manager.hook
            for tracker in settings.trackers:
                registry.manager.register(tracker)
                until_the_end.callback(registry.manager.unregister, tracker)
        console.print(printable(f"{settings.dataset.describe()}: {len(settings.dataset)} images"))
        if attention:
            console.print(printable(f"attention on {device}: {', '.join(sorted(attention))}"))
        until_the_end.enter_context(training_memory(settings, state, device, directory))
        until_the_end.enter_context(deterministic(settings.deterministic))
        status, evaluation = train(settings, state, run, hook, deadline)
        if status == "stopped" and ranks.rank() == 0:
            mark_preempted(directory, state.step)
    if state.guard.skipped:
        skipped = ", ".join(f"{name} {count}" for name, count in state.guard.skipped.items())
        console.print(printable(f"steps skipped because a loss or gradient was not finite: {skipped}"))
    if status == "finished" and evaluation and evaluation.metrics:
        evaluator = Evaluator(settings.dataset, settings.metrics, device, StatisticsCache(statistics_folder(), print))
        console.print(metrics_table(evaluation, baselines(evaluator)), soft_wrap=False)
        for line in warnings_for(settings.evaluation_samples):
            console.print(printable(f"note: {line}"))
        if ranks.rank() == 0:
            picture = directory / "nearest.png"
            if memorised := nearest_training_images(settings, sampler(settings, state), picture):
                console.print(printable(f"memorisation: {memorised}"))
    _say_where(console, run, status, settings.trackers, registry.plugin_files)
    return status


@contextmanager
def _storage_faults(directory: Path) -> Iterator[None]:
    """Names a run folder that is gone and a disk that is full, whatever was being written.

    Raises:
        UserError: one of the two.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not directory.is_dir():
            raise UserError(
                f"the run folder {directory} was removed or renamed during the training; if it was renamed, continue "
                "with --run-dir and its new name"
            ) from error
        if not disk_full(error, directory):
            raise
        # Not every file of a run lies in its folder: the disk that is full may be another one.
        raise UserError(
            f"no disk space left for {error.filename or 'a file of the run'} ({error.strerror}); saved files in "
            f"{directory} are kept: free some space and run the same command again to continue"
        ) from error


def attention_backends(generator: nn.Module, precision: str) -> set[str]:
    """The backends that the generator's attention layers take where it is, as far as its blocks say.

    Raises:
        UserError: one that is named cannot be used there.
    """
    dtype = PRECISIONS.get(precision, torch.float32)
    blocks = (module for module in generator.modules() if hasattr(module, "attention_backends"))
    return {name for block in blocks for name in block.attention_backends(dtype)}


class NoHooks:
    """Hooks that do nothing, for all processes except 0."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda **arguments: None


def _console() -> Console:
    """Process 0's terminal, or a stream wide enough for every name. Lines are printed as they are, without markup."""
    width = None if sys.stdout.isatty() else 120
    return Console(width=width, quiet=ranks.rank() != 0, markup=False, highlight=False, soft_wrap=True)


def _load(state: TrainingState, directory: Path, resume: str, console: Console) -> tuple[Path | None, list[str]]:
    """Restores the state.

    Returns the checkpoint that it came from, and what tells the images of its training from those that are here.
    """
    folder = directory / "checkpoints"
    if resume == "never":
        if checkpoint.found(folder):
            raise UserError(f"{directory} has checkpoints and --resume is never; choose another --run-dir")
        return None, []
    if resume == "auto":
        path = checkpoint.newest_for_all(folder, lambda line: console.print(printable(line)))
        if path is None and checkpoint.found(folder):
            console.print(printable(f"no checkpoint in {folder} can be used: training begins at iteration 0"))
        if path is None:
            return None, []
    else:
        path = Path(resume)
        try:
            checkpoint.verify(path)
        except checkpoint.Damaged as error:
            raise UserError(f"{error}; give a complete checkpoint folder, or --resume auto") from error
    restored = state.restore(path)
    for name, network in state.networks().items():
        weights.check_finite(network.state_dict(), network, str(path / f"{name}.safetensors"))
    state.load_trackers(restored.get("trackers", {}))
    images = restored.get("dataset")
    if images is None:
        console.print(printable(f"{path} does not say which images it was trained on; from here on, checkpoints do"))
        return path, []
    if not isinstance(images, dict):
        raise UserError(f"{path} does not fit this experiment (its data set is a {type(images).__name__})")
    return path, [f"data set: {line}" for line in differences(images, state.dataset or {})]


def _changed_plugins(registry: Registry, directory: Path) -> list[str]:
    """A line for each file of ``--plugin`` that is another one than when the run began."""
    before = {file.name: file.sha256 for file in recorded_plugins(directory)[1] if file.sha256}
    changed = [file.name for file in registry.plugin_files if before.get(file.name, file.sha256) != file.sha256]
    return [f"plugin {name}: its file was changed" for name in changed]


def _say_where(
    console: Console, run: Run, status: str, trackers: Sequence[Tracker], plugins: Sequence[PluginFile]
) -> None:
    options = "".join(f" --plugin {shlex.quote(file.argument)}" for file in plugins)
    written = checkpoint.checkpoint_path(run.directory / "checkpoints", run.step)  # None if stopped before iteration 1.
    lines = {
        "run folder": run.directory,
        "samples": run.directory / "samples" / f"step-{run.step:09d}.png" if status == "finished" else None,
        "checkpoint": written if written.exists() else None,
        "more samples": f"python tools/sample.py {shlex.quote(str(run.directory))} --seeds 0-15 --out samples{options}",
        **{name: how for tracker in trackers for name, how in getattr(tracker, "where", dict)().items()},
        "to continue": "the same command" if status == "stopped" else None,
    }
    for name, value in lines.items():
        if value is not None:
            console.print(printable(f"{name:>14}  {value}"))
