"""What processes cost: one under torchrun against none, two of one thread against one of two, and what sending takes.

    python benchmarks/scaling.py [--repeats 3] [--iterations 20]

faces32's networks, 16 images an iteration, in every side's own processes, which time their iterations
between two barriers. Gloo over loopback.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from measure import alternating, gflops, product
from rich.console import Console
from rich.table import Table
from torch import distributed, multiprocessing

from registry import load_experiment, load_plugins
from stylenat import ranks
from stylenat.commands._command import CORE, experiments_folder
from stylenat.pixels import to_networks
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

SIDES = {  # name: (processes, or None for one without a process group; threads of each)
    "1 process of 2 threads": (None, 2),
    "the same in a group of one": (1, 2),
    "2 processes of 1 thread": (2, 1),
    "1 process of 1 thread": (None, 1),
}


def measure(rank: int, processes: int | None, threads: int, iterations: int, folder: str) -> None:
    """Writes seconds an iteration, and how many of them were spent sending gradients and scalars."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(threads)
    if processes is not None:
        where = f"file://{folder}/rendezvous"
        distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=processes)
    sent = [0.0]

    def timed(tensors, average=ranks.average):
        began = time.perf_counter()
        average(tensors)
        sent[0] += time.perf_counter() - began

    ranks.average = timed
    bindings = ["train.batch_size = 16", "train.regularizers = []", "train.trackers = []"]
    experiment = load_experiment(
        load_plugins([], core=CORE), ["faces32.gin"], bindings, search_path=[experiments_folder()]
    )
    state = TrainingState(experiment.get("train")(), torch.device("cpu"))
    images = torch.randint(0, 256, (16 // (processes or 1), 3, 32, 32), dtype=torch.uint8)
    for step in range(iterations + 3):
        if step == 3:  # The first ones build what later ones reuse.
            ranks.wait_for_all()
            sent[0], began = 0.0, time.perf_counter()
        iteration(state, iter([(to_networks(images), None)]))
        state.step += 1
    ranks.wait_for_all()
    seconds = time.perf_counter() - began
    if rank == 0:
        Path(folder, "times").write_text(f"{seconds / iterations} {sent[0] / iterations}")
    if processes is not None:
        distributed.destroy_process_group()


def side(processes: int | None, threads: int, iterations: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, threads, iterations, folder)
        multiprocessing.start_processes(measure, arguments, nprocs=processes or 1, start_method="spawn")
        whole, sending = Path(folder, "times").read_text().split()
        return float(whole), float(sending)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=20)
    arguments = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    for _ in range(arguments.repeats):
        for name, (processes, threads) in SIDES.items():
            times[name].append(side(processes, threads, arguments.iterations))
    table = Table("side", "ms an iteration, minimum / median", "x the first", "of it sending, median")
    first = min(whole for whole, _ in times["1 process of 2 threads"])
    for name, values in times.items():
        wholes, sending = [w for w, _ in values], statistics.median(s for _, s in values)
        median = statistics.median(wholes)
        share = f"{100 * sending / median:.1f} %"
        table.add_row(name, f"{1000 * min(wholes):.0f} / {1000 * median:.0f}", f"{min(wholes) / first:.2f}", share)
    Console().print(table)
    torch.set_num_threads(2)
    print(f"reference {gflops(alternating({'product': product()}, 4)['product']):.0f} GFLOP/s")


if __name__ == "__main__":
    main()
