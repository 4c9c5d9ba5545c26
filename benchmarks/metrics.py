"""The numerics of metrics: the Fréchet distance beside scipy's route, neighbours and kernels at full size.

python benchmarks/metrics.py
python benchmarks/metrics.py --only neighbours --count 50000
"""

import argparse
import resource
import time

import numpy as np
import scipy.linalg
import torch
from measure import alternating, gflops, product
from rich.console import Console
from rich.table import Table

from plugins.features.random_convolution import RandomConvolution
from plugins.metrics.kernel import KID
from stylenat.evaluation.accumulators import Rows
from stylenat.evaluation.frechet import GaussianStatistics, frechet_distance
from stylenat.evaluation.manifold import density_and_coverage, precision_and_recall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["frechet", "neighbours", "kernel", "summing"], action="append")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--count", type=int, default=10_000, help="images of each set, for neighbours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parts = {"frechet": frechet, "summing": summing, "kernel": kernel, "neighbours": neighbours}
    for name in arguments.only or parts:
        parts[name](arguments)


def sets(count: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated features of two sets, of full rank where there are enough of them."""
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn(dim, dim, generator=random) / dim**0.5
    first, second = (torch.randn(count, dim, generator=random) for _ in range(2))
    return first @ mixing, 1.1 * second @ mixing + 0.1


def frechet(arguments: argparse.Namespace) -> None:
    gaussians = []
    for features in sets(3 * arguments.dim, arguments.dim):
        statistics = GaussianStatistics()
        for part in features.split(16):
            statistics.update(part)
        gaussians += statistics.mean_and_covariance()
    mean1, covariance1, mean2, covariance2 = gaussians
    found: dict[str, float] = {}

    def ours() -> None:
        found["ours"] = frechet_distance(mean1, covariance1, mean2, covariance2)

    def theirs() -> None:
        root = scipy.linalg.sqrtm((covariance1 @ covariance2).numpy())
        difference = (mean1 - mean2).square().sum()
        found["sqrtm"] = float(difference + (covariance1 + covariance2).trace() - 2 * np.trace(root.real))

    def eigenvalues() -> None:
        values = np.linalg.eigvals(covariance1.numpy() @ covariance2.numpy()).astype(complex)
        difference = (mean1 - mean2).square().sum()
        found["eigvals"] = float(difference + (covariance1 + covariance2).trace() - 2 * np.sqrt(values).real.sum())

    times = alternating(
        {"ours": ours, "sqrtm": theirs, "eigvals": eigenvalues, "product": product()}, arguments.repeats
    )
    names = {
        "ours": "symmetric eigendecomposition",
        "sqrtm": "scipy.linalg.sqrtm",
        "eigvals": "numpy.linalg.eigvals (torch-fidelity's)",
    }
    table = Table(title=f"Fréchet distance, d = {arguments.dim}, float64; {gflops(times['product']):.0f} GFLOP/s")
    for column in ("route", "seconds, minimum / median", "times ours", "relative difference"):
        table.add_column(column)
    for name, words in names.items():
        one, base = times[name], times["ours"]
        ratio = f"{one.minimum / base.minimum:.1f} / {one.median / base.median:.1f}"
        difference = abs(found[name] / found["ours"] - 1)
        table.add_row(words, f"{one.minimum:.2f} / {one.median:.2f}", ratio, f"{difference:.1g}")
    Console(width=120).print(table)


def summing(arguments: argparse.Namespace) -> None:
    features = sets(1024, arguments.dim)[0]

    def streamed() -> None:
        statistics = GaussianStatistics()
        for part in features.split(16):
            statistics.update(part)
        statistics.mean_and_covariance()

    times = alternating({"streamed": streamed}, arguments.repeats)["streamed"]
    print(f"float64 mean and covariance, d = {arguments.dim}: {1000 * times.minimum / 1024:.2f} ms an image")


def kernel(arguments: argparse.Namespace) -> None:
    collected = []
    for features in sets(5000, arguments.dim):
        rows = Rows()
        rows.update(features)
        collected.append(rows)
    metric = KID(RandomConvolution())
    began = time.perf_counter()
    found = metric.compare(*collected)
    seconds = time.perf_counter() - began
    print(f"kid, 100 subsets of 1000, d = {arguments.dim}: {seconds:.1f} s, {found.value:.4g} ± {found.spread:.2g}")


def neighbours(arguments: argparse.Namespace) -> None:
    real, fake = sets(arguments.count, arguments.dim)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, call in (
        ("precision and recall", lambda: precision_and_recall(real, fake, 3)),
        ("density and coverage", lambda: density_and_coverage(real, fake, 5)),
    ):
        began = time.perf_counter()
        values = call()
        seconds = time.perf_counter() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
        size = f"{arguments.count} x {arguments.count}, d = {arguments.dim}"
        print(f"{name}, {size}: {seconds:.1f} s, {grown:.0f} MiB beyond the features, {values}")


if __name__ == "__main__":
    main()
