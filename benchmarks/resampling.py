"""Resampling filters beside one depthwise convolution of the same taps, forward and backward, on a CPU.

    python benchmarks/resampling.py [--threads 1] [--repeats 5]

The convolution has the larger map's size: what it reads and writes is what a filter must touch.
"""

import argparse

import torch
from measure import alternating
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from stylenat.networks.resampling import blur, blur_kernel, downsample, upsample

SHAPES = ((4, 128, 128, 128), (4, 512, 32, 32), (8, 64, 64, 64))
"""[batch, channels, height, width] of the smaller map."""


def forward_and_backward(function, x):
    def call() -> None:
        x.grad = None
        function(x).sum().backward()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    taps = blur_kernel()
    table = Table(title=f"{arguments.threads} threads, minimum / median of {arguments.repeats}, forward and backward")
    for column in ("smaller map", "depthwise 4x4", "upsample", "downsample", "blur", "of the convolution's time"):
        table.add_column(column, justify="right")
    for batch, channels, height, width in SHAPES:
        small = torch.randn(batch, channels, height, width, requires_grad=True)
        large = torch.randn(batch, channels, 2 * height, 2 * width, requires_grad=True)
        kernel = taps.expand(channels, 1, 4, 4)
        calls = {
            "convolution": forward_and_backward(
                lambda x, k=kernel, c=channels: F.conv2d(x, k, padding=2, groups=c), large),
            "upsample": forward_and_backward(lambda x: upsample(x, taps), small),
            "downsample": forward_and_backward(lambda x: downsample(x, taps), large),
            "blur": forward_and_backward(lambda x: blur(x, taps), large),
        }  # fmt: skip
        times = alternating(calls, arguments.repeats)
        first = times.pop("convolution")
        ratios = ", ".join(f"{found.minimum / first.minimum:.2f}" for found in times.values())
        table.add_row(f"{batch}x{channels}x{height}x{width}", str(first), *map(str, times.values()), ratios)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
