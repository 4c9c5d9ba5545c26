"""Neighborhood attention with bias on a CPU, beside the op written with ``unfold`` and NATTEN's last CPU kernels.

    python benchmarks/attention.py [--threads 2] [--repeats 5] [--shapes A,B,C,D] [--backends compiled,tiled]

NATTEN's times are of version 0.17.1, built with -O3 and OpenMP, where the reference ran at 175 GFLOP/s; they are scaled
by the reference measured here, in the same run.
"""

import argparse
from collections.abc import Iterator
from functools import partial

import torch
from measure import alternating, gflops, product
from rich.console import Console
from rich.table import Table
from torch import Tensor

from stylenat.attention import neighborhood_attention
from stylenat.attention.window import window, window_start

# name: batch, height, width, heads, head dim, kernel size, dilation
SHAPES = {
    "A": (1, 256, 256, 4, 32, 7, 1),
    "B": (1, 256, 256, 4, 32, 7, 16),
    "C": (1, 64, 64, 16, 32, 7, 4),
    "D": (4, 32, 32, 16, 32, 7, 2),
}
NATTEN_SECONDS = {"A": (1.657, 9.918), "B": (1.697, 10.300), "C": (0.522, 2.929)}
NATTEN_REFERENCE = 175.0


def unfolded(q: Tensor, k: Tensor, v: Tensor, kernel_size: int, dilation: int, bias: Tensor) -> Tensor:
    """The op written plainly: every query's keys and values copied out, k x k of each."""
    height, width, dim = q.shape[1], q.shape[2], q.shape[-1]
    y = torch.tensor([window(i, height, kernel_size, dilation) for i in range(height)])
    x = torch.tensor([window(i, width, kernel_size, dilation) for i in range(width)])
    first_y, first_x = (
        torch.tensor([window_start(i, n, kernel_size, dilation) - i // dilation + kernel_size - 1 for i in range(n)])
        for n in (height, width)
    )
    place = torch.arange(kernel_size)
    index = (slice(None), y[:, None, :, None], x[None, :, None, :])
    keys, values = k[index], v[index]  # [batch, height, width, k, k, heads, dim]
    logits = torch.einsum("byxhd,byxijhd->byxhij", q * dim**-0.5, keys)
    table = bias[:, (first_y[:, None] + place)[:, None, :, None], (first_x[:, None] + place)[None, :, None, :]]
    weights = (logits + table.permute(1, 2, 0, 3, 4)).flatten(-2).softmax(-1)
    return torch.einsum("byxhn,byxnhd->byxhd", weights, values.flatten(3, 4))


def rows(name: str, backends: list[str], unfold: bool, repeats: int) -> Iterator[list[str]]:
    """The table's rows of one shape, one a side."""
    batch, height, width, heads, dim, kernel_size, dilation = SHAPES[name]
    q, k, v = (torch.randn(batch, height, width, heads, dim, requires_grad=True) for _ in range(3))
    bias = torch.randn(heads, 2 * kernel_size - 1, 2 * kernel_size - 1, requires_grad=True)
    inputs, grad = (q, k, v, bias), torch.randn(batch, height, width, heads, dim)

    def op(side: str) -> Tensor:
        if side == "unfold":
            return unfolded(q, k, v, kernel_size, dilation, bias)
        options = {"kernel_size": kernel_size, "dilation": dilation, "bias": bias}
        return neighborhood_attention(q, k, v, backend=side, **options)

    sides = [*backends, "unfold"] if unfold else backends
    reference = op(sides[0])
    for side in sides[1:]:
        torch.testing.assert_close(op(side), reference, rtol=1e-4, atol=1e-4)
    del reference

    calls = {"reference": product()}
    for side in sides:
        calls[f"{side} f"] = torch.no_grad()(partial(op, side))
        calls[f"{side} fb"] = lambda side=side: torch.autograd.grad(op(side), inputs, grad)
    times = alternating(calls, repeats)
    rate = gflops(times["reference"])
    for side in sides:
        forward, both = times[f"{side} f"], times[f"{side} fb"]
        row = [name, side, str(forward), str(both), f"{rate:.0f} GFLOP/s"]
        if name in NATTEN_SECONDS:
            scaled = [seconds * NATTEN_REFERENCE / rate for seconds in NATTEN_SECONDS[name]]
            row += [f"{s / t.minimum:.1f}" for s, t in zip(scaled, (forward, both), strict=True)]
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shapes", default="A,B,C,D")
    parser.add_argument("--backends", default="compiled,tiled")
    parser.add_argument("--no-unfold", action="store_true", help="leave out the plain op (about 10 GB at A and B)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    table = Table(title=f"{arguments.threads} threads, minimum / median of {arguments.repeats}")
    for column in ("shape", "side", "forward", "forward + backward", "reference", "x NATTEN", "x NATTEN f+b"):
        table.add_column(column, justify="right")
    for name in arguments.shapes.split(","):
        for row in rows(name, arguments.backends.split(","), not arguments.no_unfold, arguments.repeats):
            table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
