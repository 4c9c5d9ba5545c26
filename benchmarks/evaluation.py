"""A whole evaluation beside what it cannot do without: making the images and embedding them.

python benchmarks/evaluation.py                       # FFHQ's shape of Inception, a small generator
python benchmarks/evaluation.py --features random_convolution --samples 1024
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import alternating, gflops, product
from rich.console import Console
from rich.table import Table

from plugins.datasets.lfw_faces import LfwFaces
from plugins.features.inception import INCEPTION, Inception
from plugins.features.random_convolution import RandomConvolution
from plugins.metrics.frechet import FID
from plugins.metrics.kernel import KID
from plugins.metrics.manifold import DensityCoverage, PrecisionRecall
from plugins.metrics.sliced_wasserstein import SlicedWasserstein
from plugins.metrics.spectrum import Spectrum
from registry import load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder
from stylenat.evaluation.evaluate import Evaluator
from stylenat.sampling import sampler_of


class Clock:
    """Seconds spent in some calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args)
            finally:
                self.seconds += time.perf_counter() - began

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", choices=["inception", "random_convolution"], default="inception")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--gin", default="quickstart.gin", help="whose generator, newly initialised")
    parser.add_argument("--bind", action="append", default=[])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    experiment = load_experiment(
        load_plugins([], core=CORE), [arguments.gin], arguments.bind, search_path=[experiments_folder()]
    )
    generator = experiment.value("train.generator")().eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        features = RandomConvolution() if arguments.features == "random_convolution" else inception(Path(folder))
        faces = LfwFaces(generator.resolution, f"{folder}/faces.lmdb")
        faces.prepare()
        table = Table(title=f"{arguments.samples} images of {arguments.gin}, features {features.name}")
        for column in ("repeat", "whole pass, s", "generation, s", "extraction, s", "share of both"):
            table.add_column(column)
        for repeat in range(arguments.repeats + 1):
            whole, made, embedded = one_pass(generator, features, faces, arguments.samples)
            if repeat:  # The first is the warm-up.
                share = (made + embedded) / whole
                table.add_row(str(repeat), f"{whole:.2f}", f"{made:.2f}", f"{embedded:.2f}", f"{share:.3f}")
    Console(width=120).print(table)
    print(f"reference: {gflops(alternating({'product': product()}, 3)['product']):.0f} GFLOP/s")


def one_pass(generator: Any, features: Any, faces: LfwFaces, samples: int) -> tuple[float, float, float]:
    """Seconds of generating, embedding and comparing; of generation; of embedding. The real set is done before."""
    metrics = [
        FID(features),
        KID(features, subsets=10, subset_size=100),
        PrecisionRecall(features),
        DensityCoverage(features),
        Spectrum(),
        SlicedWasserstein(),
    ]
    evaluator = Evaluator(faces, metrics, real_samples=100)
    evaluator.real.collection()
    made, embedded = Clock(), Clock()
    sampler = sampler_of(generator, 0)
    original = type(features).__call__
    type(features).__call__ = embedded.timed(original)
    try:
        began = time.perf_counter()
        evaluator.evaluate(made.timed(sampler), samples)
        whole = time.perf_counter() - began
    finally:
        type(features).__call__ = original
    return whole, made.seconds, embedded.seconds


def inception(folder: Path) -> Inception:
    """With weights of PyTorch's initialisation: their values do not move the clock."""
    from torch_fidelity import feature_extractor_inceptionv3 as library

    load = torch.nn.Module.load_state_dict
    fetch = library.load_state_dict_from_url
    try:
        torch.nn.Module.load_state_dict = lambda *args, **kwargs: None
        library.load_state_dict_from_url = lambda *args, **kwargs: None
        network = library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    finally:
        torch.nn.Module.load_state_dict, library.load_state_dict_from_url = load, fetch
    torch.save(network.state_dict(), folder / INCEPTION.file)
    return Inception(str(folder / INCEPTION.file))


if __name__ == "__main__":
    main()
