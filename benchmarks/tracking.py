"""What the trackers cost of a training step.

    python benchmarks/tracking.py [--gin quickstart.gin] [--steps 400] [--repeats 3] [--trackers tensorboard wandb]

Every hook call of a tracker, and its state for a checkpoint, is timed on its own while a run trains, and set against
the time of the steps. A sample grid and an evaluation's metrics are tracked within a step too, so the slowest single
call is shown too.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from registry import hookimpl, load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder
from stylenat.training import launch


class Timed:
    """A tracker whose hook calls are timed; everything else is its own."""

    def __init__(self, tracker: Any, seconds: dict[str, list[float]]) -> None:
        self._tracker, self._seconds = tracker, seconds

    def _call(self, hook: str, **arguments: Any) -> None:
        method = getattr(self._tracker, hook, None)
        if method is None:
            return
        names = method.__code__.co_varnames[1 : method.__code__.co_argcount]
        began = time.perf_counter()
        method(**{name: arguments[name] for name in names})
        self._seconds.setdefault(hook, []).append(time.perf_counter() - began)

    @hookimpl
    def run_started(self, run):
        self._call("run_started", run=run)

    @hookimpl
    def step_ended(self, run, step, scalars):
        self._call("step_ended", run=run, step=step, scalars=scalars)

    @hookimpl
    def images_sampled(self, run, step, images, path):
        self._call("images_sampled", run=run, step=step, images=images, path=path)

    @hookimpl
    def metrics_evaluated(self, run, step, metrics, details):
        self._call("metrics_evaluated", run=run, step=step, metrics=metrics, details=details)

    @hookimpl
    def run_rolled_back(self, run, step):
        self._call("run_rolled_back", run=run, step=step)

    @hookimpl
    def run_ended(self, run, status):
        self._call("run_ended", run=run, status=status)

    def state_dict(self) -> dict[str, Any]:
        began = time.perf_counter()
        state = self._tracker.state_dict()
        self._seconds.setdefault("state_dict", []).append(time.perf_counter() - began)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._tracker.load_state_dict(state)


def measured(
    gin: str, steps: int, folder: Path, trackers: Sequence[str]
) -> tuple[dict[str, dict[str, list[float]]], float]:
    """Seconds of each hook call by tracker and hook, and of the whole training, of one run."""
    registry = load_plugins(core=CORE)
    bindings = [
        f"train.iterations = {steps}",
        f"train.trackers = [{', '.join(f'@tracker.{name}()' for name in trackers)}]",
    ]
    bindings += [f"tracker.aim.repo = '{folder}'"] if "aim" in trackers else []
    experiment = load_experiment(registry, [gin], bindings, search_path=[experiments_folder()])
    seconds: dict[str, dict[str, list[float]]] = {}
    whole = 0.0
    train = launch.train

    def timed_train(settings, state, run, hook, *rest):
        nonlocal whole
        for tracker in settings.trackers:
            registry.manager.unregister(tracker)
            name = type(tracker).__name__
            registry.manager.register(Timed(tracker, seconds.setdefault(name, {})))
        began = time.perf_counter()
        try:
            return train(settings, state, run, hook, *rest)
        finally:
            whole = time.perf_counter() - began
            for plugin in [p for p in registry.manager.get_plugins() if isinstance(p, Timed)]:
                registry.manager.unregister(plugin)
            for tracker in settings.trackers:  # As the caller left them.
                registry.manager.register(tracker)

    launch.train = timed_train
    try:
        launch.run_experiment(registry, experiment, folder / "run", "auto")
    finally:
        launch.train = train
    return seconds, whole


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gin", default="quickstart.gin")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trackers", nargs="+", default=["progress", "jsonl", "aim"], metavar="NAME")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(2)
    lines = []
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            seconds, whole = measured(arguments.gin, arguments.steps, Path(folder), arguments.trackers)
        for tracker, hooks in seconds.items():
            in_steps = [s for hook, calls in hooks.items() if hook not in ("run_started", "run_ended") for s in calls]
            start = sum(hooks.get("run_started", [])) + sum(hooks.get("run_ended", []))
            share = 100 * sum(in_steps) / whole
            lines.append(
                f"| {tracker} | {share:.2f} % | {1000 * sum(in_steps) / arguments.steps:.3f} "
                f"| {1000 * max(in_steps):.1f} | {start:.2f} | {1000 * whole / arguments.steps:.0f} |"
            )
    print("| tracker | fraction of training | ms a step | slowest call, ms | start and end, s | step, ms |")
    print("|---|---:|---:|---:|---:|---:|")
    print("\n".join(sorted(lines)))


if __name__ == "__main__":
    main()
