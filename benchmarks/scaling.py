"""What processes cost: their time on this machine, what they send, and a model of their network.

    python benchmarks/scaling.py [--repeats 3] [--iterations 16]

faces32's networks with R1, 16 images an iteration over all processes, gloo over loopback.

* **Time**: one process without and with a group, and two; each side in processes of its own, in turn. Valid on an idle
  machine with at least two cores only.
* **Traffic**: every collective of the iterations of 1, 2 and 4 processes, counted where they are called.
* **Share of communication**: a model. Each process is given a machine of its own, which computes its images in the time
  that one thread took here, and a network of --gigabits and --microseconds, over which a message is reduced in a ring:
  2 (P - 1) steps of a P-th of the bytes each. Nothing overlaps, as in the training step.

``--shaped GIGABITS`` does something else: it compares the model's bandwidth with two processes whose loopback is shaped
to that rate for each, in a network namespace of its own (Linux, root, tc with tbf). Latency is not shaped: that needs
netem, which not every kernel has.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measure import alternating, gflops, product
from rich.console import Console
from rich.table import Table
from torch import distributed, multiprocessing
from watched import load

from registry import load_experiment, load_plugins
from stylenat import ranks
from stylenat.commands._command import CORE, experiments_folder
from stylenat.pixels import to_networks
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

BATCH, R1_INTERVAL = 16, 8
PROCESSES = 1, 2, 4


@dataclass(frozen=True)
class Side:
    """Processes, or None for one without a group; threads of each; images an iteration over all of them."""

    processes: int | None
    threads: int = 1
    images: int = BATCH


SIDES = {
    "1 process of 2 threads": Side(None, 2),
    "the same in a group of one": Side(1, 2),
    "2 processes of 1 thread": Side(2),
    "1 process of 1 thread": Side(None),
    "1 process of 1 thread, half of the images": Side(None, images=BATCH // 2),
    "1 process of 1 thread, a quarter of the images": Side(None, images=BATCH // 4),
}
ALONE = {1: "1 process of 1 thread", 2: "1 process of 1 thread, half of the images",
         4: "1 process of 1 thread, a quarter of the images"}  # fmt: skip
"""The side that computes what one of so many processes does."""


@dataclass
class Found:
    """Of one side: seconds an iteration, how many of them in collectives; and (name, bytes) of every collective."""

    seconds: float
    sending: float
    messages: list[tuple[str, int]] = field(default_factory=list)


class Watch:
    """Counts and times the collectives that ``stylenat.ranks`` calls."""

    def __init__(self) -> None:
        self.seconds, self.messages = 0.0, []
        for name in ("all_reduce", "all_gather", "broadcast"):
            setattr(distributed, name, self._watched(name, getattr(distributed, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            tensor = args[1] if name == "all_gather" else args[0]
            self.messages.append((name, tensor.nbytes))
            began = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                self.seconds += time.perf_counter() - began

        return run


def measure(rank: int, side: Side, iterations: int, folder: str) -> None:
    """Writes what process 0 found."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(side.threads)
    if side.processes is not None:
        where = f"file://{folder}/rendezvous"
        distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=side.processes)
    watch = Watch()
    bindings = [f"train.batch_size = {side.images}", "train.trackers = []"]
    experiment = load_experiment(
        load_plugins([], core=CORE), ["faces32.gin"], bindings, search_path=[experiments_folder()]
    )
    state = TrainingState(experiment.get("train")(), torch.device("cpu"))
    images = torch.randint(0, 256, (side.images // (side.processes or 1), 3, 32, 32), dtype=torch.uint8)
    for step in range(R1_INTERVAL + iterations):
        if step == R1_INTERVAL:  # The first ones build what later ones reuse.
            ranks.wait_for_all()
            watch.seconds, began = 0.0, time.perf_counter()
            watch.messages.clear()
        iteration(state, iter([(to_networks(images), None)]))
        state.step += 1
    found = Found(0.0, watch.seconds / iterations, list(watch.messages))
    ranks.wait_for_all()
    found.seconds = (time.perf_counter() - began) / iterations
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(vars(found)))
    if side.processes is not None:
        distributed.destroy_process_group()


def run(side: Side, iterations: int) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        arguments = (side, iterations, folder)
        multiprocessing.start_processes(measure, arguments, nprocs=side.processes or 1, start_method="spawn")
        found = json.loads(Path(folder, "found.json").read_text())
    return Found(found["seconds"], found["sending"], [(name, size) for name, size in found["messages"]])


def ring(messages: list[tuple[str, int]], processes: int, bytes_per_second: float, latency: float) -> float:
    """Seconds, by the model, of messages that follow one another."""
    steps = {"all_reduce": 2 * (processes - 1), "all_gather": processes - 1, "broadcast": processes - 1}
    parts = {"all_reduce": processes, "all_gather": 1, "broadcast": 1}
    return sum(steps[name] * (latency + size / parts[name] / bytes_per_second) for name, size in messages)


def shaped(gigabits: float, iterations: int) -> None:
    """In the shaped namespace: the collectives of two processes, and what the model says of them without latency."""
    found = run(Side(2), iterations)
    size = sum(size for _, size in found.messages) / iterations / 1e6
    modelled = ring(found.messages, 2, gigabits * 1e9 / 8, 0.0) / iterations
    measured = f"{1000 * found.sending:.0f} ms in collectives of {1000 * found.seconds:.0f} ms an iteration"
    print(f"{gigabits:g} Gbit/s, {size:.2f} MB: {measured}; the model: {1000 * modelled:.0f} ms; {load()}")


def in_a_namespace(gigabits: float) -> int:
    """This script again, where both directions share a loopback of twice the rate."""
    rate = f"tc qdisc add dev lo root tbf rate {2000 * gigabits:.0f}mbit burst 256kb latency 200ms"
    script = f'ip link set lo up && {rate} && exec "$@"'
    return subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, *sys.argv, "--inside"]
    ).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=2 * R1_INTERVAL, help=f"a multiple of {R1_INTERVAL}")
    parser.add_argument("--gigabits", type=float, default=10.0, help="a second, of the model's network")
    parser.add_argument("--microseconds", type=float, default=100.0, help="of latency, of the model's network")
    parser.add_argument("--shaped", type=float, metavar="GIGABITS", help="compare the model with a shaped loopback")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.shaped is not None:
        sys.exit(shaped(arguments.shaped, R1_INTERVAL) if arguments.inside else in_a_namespace(arguments.shaped))
    print(load())
    found: dict[str, list[Found]] = {name: [] for name in SIDES}
    for _ in range(arguments.repeats):
        for name, side in SIDES.items():
            found[name].append(run(side, arguments.iterations))
    torch.set_num_threads(2)
    rate = gflops(alternating({"product": product()}, 4)["product"])
    console = Console(width=140)

    table = Table("side", "ms an iteration, minimum / median", "x the first", "in collectives, median")
    first = min(each.seconds for each in found["1 process of 2 threads"])
    for name, each in found.items():
        times = [one.seconds for one in each]
        median, sending = statistics.median(times), statistics.median(one.sending for one in each)
        share = f"{100 * sending / median:.1f} %"
        table.add_row(name, f"{1000 * min(times):.0f} / {1000 * median:.0f}", f"{min(times) / first:.2f}", share)
    console.print(table)
    print(f"reference {rate:.0f} GFLOP/s; {load()}")

    table = Table(
        "processes", "images each", "messages", "MB", "computation, ms", "network, ms (model)", "share (model)"
    )
    for processes in PROCESSES:
        messages = run(Side(processes), R1_INTERVAL).messages
        alone = 1000 * min(each.seconds for each in found[ALONE[processes]])
        speed, latency = arguments.gigabits * 1e9 / 8, arguments.microseconds * 1e-6
        network = 1000 * ring(messages, processes, speed, latency) / R1_INTERVAL
        count, size = len(messages) / R1_INTERVAL, sum(size for _, size in messages) / R1_INTERVAL / 1e6
        shown = f"{count:.2f}", f"{size:.2f}", f"{alone:.0f}", f"{network:.1f}"
        table.add_row(str(processes), str(BATCH // processes), *shown, f"{100 * network / (network + alone):.1f} %")
    table.title = f"an iteration; the network is a model: {arguments.gigabits:g} Gbit/s, {arguments.microseconds:g} µs"
    console.print(table)


if __name__ == "__main__":
    main()
