"""Sampling at 256x256 of every system's generator at its published width, on a CPU, one beside the other.

    python benchmarks/systems.py [--threads 2] [--repeats 3] [--batch 1,4]

Weights are random, which costs the same. Systems take turns; the peak memory of one image is measured in a process of
its own. "x products" is the time of an image by that of its multiply-accumulates at the rate of the reference product.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import torch
from measure import alternating, gflops, product
from rich.console import Console
from rich.table import Table
from torch import nn

from registry import load_experiment, load_plugins
from stylenat.commands._command import ASIDE, CORE, experiments_folder
from stylenat.networks.counting import macs

LARGE = ["generator.stylegan_xl.stem_layers = 10", "generator.stylegan_xl.head_layers = 7"]
SYSTEMS = {
    "StyleNAT": ("ffhq256.gin", []),
    "StyleSwin": ("styleswin_ffhq256.gin", []),
    "StyleGAN2": ("stylegan2_paper256.gin", []),
    "R3GAN": ("r3gan_ffhq256.gin", []),
    "HiT-B": ("hit_ffhq256.gin", []),
    "StyleGAN3-T": ("stylegan3_t_ffhqu256.gin", []),
    "StyleGAN3-R": ("stylegan3_r_ffhqu256.gin", []),
    "StyleGAN-XL, 7 + 4 layers": ("stylegan_xl_ffhq256.gin", []),
    "StyleGAN-XL, 10 + 7 layers": ("stylegan_xl_ffhq256.gin", LARGE),
}
"""Gin file and bindings."""


def experiment(name: str):
    file, bindings = SYSTEMS[name]
    registry = load_plugins(core=CORE, aside=ASIDE)
    return load_experiment(registry, [file], ["train.trackers = []", *bindings], search_path=[experiments_folder()])


def generator(name: str) -> nn.Module:
    return experiment(name).value("train.generator")().eval()


def size(name: str) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of one image."""
    with torch.device("meta"):
        network = generator(name)
        return sum(p.numel() for p in network.parameters()), macs(network, torch.zeros(1, network.latent_dim))


@torch.no_grad()
def peak(name: str) -> float:
    """MB that making one image takes, beside the weights."""
    network = generator(name)
    latents = torch.randn(1, network.latent_dim)
    # ru_maxrss would be the parent's peak, where that is higher.
    Path("/proc/self/clear_refs").write_text("5")  # The peak becomes what is resident now.
    before = resident_peak()
    network(latents)
    return (resident_peak() - before) / 1024


def resident_peak() -> int:
    """KiB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", default="1,4")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(f"{peak(arguments.memory_of):.0f}")
        return
    networks = {name: generator(name) for name in SYSTEMS}
    sizes = {name: size(name) for name in SYSTEMS}
    for batch in map(int, arguments.batch.split(",")):
        calls = {"reference": product()}
        for name, network in networks.items():
            latents = torch.randn(batch, network.latent_dim)
            calls[name] = torch.no_grad()(lambda network=network, latents=latents: network(latents))
        times = alternating(calls, arguments.repeats)
        rate = gflops(times["reference"])
        first = times["StyleNAT"].minimum
        table = Table(title=f"batch {batch}, {arguments.threads} threads, minimum / median of {arguments.repeats}; "
                            f"reference {rate:.0f} GFLOP/s")  # fmt: skip
        columns = ("parameters", "GMACs", "seconds an image", "images/s, StyleNAT = 1", "x products", "MB an image")
        table.add_column("system")
        for column in columns:
            table.add_column(column, justify="right")
        for name, (parameters, multiplied) in sizes.items():
            found = times[name]
            seconds = found.minimum / batch
            command = [sys.executable, __file__, "--threads", str(arguments.threads), "--memory-of", name]
            memory = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            table.add_row(
                name,
                f"{parameters:,}",
                f"{multiplied / 1e9:.1f}",
                f"{seconds:.2f} / {found.median / batch:.2f}",
                f"{first / found.minimum:.2f}",
                f"{seconds * rate / (2 * multiplied / 1e9):.2f}",
                memory if batch == 1 else "",
            )
        Console(width=160).print(table)


if __name__ == "__main__":
    main()
