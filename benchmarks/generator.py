"""The FFHQ-256 generator on a CPU: inference and one training iteration, beside the machine's own matrix product.

    python benchmarks/generator.py [--threads 2] [--repeats 3] [--batch 1,4] [--train] [--attached] [--profile]

The published code takes 10.4 s an image (inference) and 103 s an iteration with R1 where the reference runs at 175
GFLOP/s; its matrix products alone are 172 GFLOP an image.
"""

import argparse
import copy
import resource
import time

import torch
from measure import alternating, gflops, product
from rich.console import Console
from rich.table import Table
from torch import Tensor

from registry import load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder
from stylenat.precision import lower
from stylenat.reused_memory import reuse_freed_memory
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.step import descend, iteration

GFLOP = 172.0
PUBLISHED = {"inference": 10.4, "iteration with R1": 103.0}
REFERENCE = 175.0
BINDS = ["train.batch_size = 1", "discriminator.wavelet.stddev_group = 1", "train.device = 'cpu'"]


def peak() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB"


def discriminator_seconds(settings: Training, state: TrainingState, real: Tensor, attached: bool) -> float:
    """One discriminator's step, making its fakes included; ``attached`` back-propagates through the generator too."""

    batches = state.microbatches(state.time())
    state.give_images(batches, (real, None))
    began = time.perf_counter()
    state.give_latents(batches)
    if attached:  # The step takes fakes that are there as they are.
        batches[0].fake = state.generate(batches[0].latents)
    descend(state, settings.steps[0], batches)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--batch", default="1,4", help="of inference; '' for none, so that the peak is training's alone"
    )
    parser.add_argument("--train", action="store_true", help="one training iteration as well (minutes)")
    parser.add_argument("--attached", action="store_true", help="and the discriminator's step with fakes not detached")
    parser.add_argument("--profile", action="store_true", help="where a forward at batch 1 spends its time")
    parser.add_argument("--fresh", action="store_true", help="memory from the system for every tensor, as by default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.fresh:
        reuse_freed_memory()
    experiment = load_experiment(load_plugins(core=CORE), ["ffhq256.gin"], BINDS, search_path=[experiments_folder()])
    table = Table(title=f"{arguments.threads} threads, minimum / median of {arguments.repeats}")
    for column in ("what", "seconds an image", "reference", "x published", "x its products' time", "peak memory"):
        table.add_column(column, justify="right")

    def row(what: str, seconds: list[float], rate: float, published: float | None, flop: str) -> None:
        best, middle = min(seconds), sorted(seconds)[len(seconds) // 2]
        faster = f"{published * REFERENCE / rate / best:.1f}" if published else ""
        table.add_row(what, f"{best:.2f} / {middle:.2f}", f"{rate:.0f} GFLOP/s", faster, flop, peak())

    generator = experiment.value("train.generator")().eval()
    lowered = copy.deepcopy(generator)
    lower(lowered, torch.device("cpu"))
    for batch in map(int, filter(None, arguments.batch.split(","))):
        latents = torch.randn(batch, generator.latent_dim)
        with torch.no_grad():
            sides = {
                "reference": product(),
                "reference in bf16": product(torch.bfloat16),
                "generator": lambda latents=latents: generator(latents),
                "generator in bf16": lambda latents=latents: lowered(latents),
            }
            times = alternating(sides, arguments.repeats)
        for suffix in ("", " in bf16"):
            rate = gflops(times[f"reference{suffix}"])
            seconds = [value / batch for value in times[f"generator{suffix}"].repeats]
            floor = f"{min(seconds) * rate / GFLOP:.2f}"
            row(f"inference, batch {batch}{suffix}", seconds, rate, None if suffix else PUBLISHED["inference"], floor)
        with torch.no_grad():
            exact, near = generator(latents), lowered(latents)
            print(f"bf16: {(near - exact).abs().max() / exact.std():.3f} deviations of a pixel apart at most")

    if arguments.profile:
        with torch.no_grad(), torch.profiler.profile() as profile:
            generator(torch.randn(1, generator.latent_dim))
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))

    if arguments.train or arguments.attached:
        del generator
        settings = experiment.get("train")()
        state = TrainingState(settings, torch.device("cpu"))
        real = torch.randn(1, 3, 256, 256)
        iteration(state, iter([(real, None)]))  # Warm, and every lazy regularizer is due in it.
        seconds = []
        rates = []
        for _ in range(arguments.repeats):
            state.step = 0  # An iteration in which every lazy regularizer is due.
            rates.append(gflops(alternating({"reference": product()}, 2)["reference"]))
            began = time.perf_counter()
            iteration(state, iter([(real, None)]))
            seconds.append(time.perf_counter() - began)
        row("iteration with R1, batch 1", seconds, max(rates), PUBLISHED["iteration with R1"], "")
        if arguments.attached:
            for attached in (False, True):
                seconds = [discriminator_seconds(settings, state, real, attached) for _ in range(arguments.repeats + 1)]
                what = "not detached" if attached else "detached"
                row(f"discriminator's step, fakes {what}", seconds[1:], max(rates), None, "")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
