"""``tools/memorisation.py``: the training images that are nearest to samples."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import UserError
from registry.wording import printable
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command
from stylenat.commands._generator import (
    add_run,
    add_truncation,
    check_truncation_argument,
    new_folder,
    new_folder_at,
    opened_on_device,
    parsed_seeds,
)

if TYPE_CHECKING:
    from torch import Tensor

    from stylenat.evaluation.nearest import Nearest
    from stylenat.trained import Opened

EXAMPLES = """examples:
  python tools/memorisation.py runs/NAME --out memorised
  python tools/memorisation.py runs/NAME --seeds 0-255 --data faces.lmdb --features inception \\
      --extractor-weights weights-inception-2015-12-05-6726825d.pth --out memorised

For each sample the nearest training image, or mirrored training image, is found in three spaces: pixels (at 64x64 at
most), Haar wavelets without the mean, and an extractor's features. DIR/nearest.png shows the samples that are nearest
to a training image in pixels, each with its nearest ones; DIR/distances.png compares the distances with those of
training images to other training images; DIR/memorisation.json holds the numbers. A generator that draws new images has
about 5 % of its samples below the 5th percentile of the latter; one that copies has more.
"""
SHOWN = 12
"""Rows of the sheet."""
MOST = 20_000
"""Samples or training images."""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="memorisation", description="Find the training images that are nearest to samples.", epilog=EXAMPLES
    )
    add_run(parser)
    parser.add_argument("--seeds", default="0-99", metavar="A-B,C", help="sample indices (default: %(default)s)")
    parser.add_argument("--data", type=Path, metavar="LMDB", help="training images (default: the run's)")
    parser.add_argument(
        "--features", default="random_convolution", metavar="NAME", help="extractor (default: %(default)s)"
    )
    extractor = "the extractor's weights; repeatable"
    parser.add_argument("--extractor-weights", type=Path, action="append", default=[], metavar="FILE", help=extractor)
    add_truncation(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    seeds = parsed_seeds(arguments.seeds)
    check_truncation_argument(arguments.truncation_psi)
    if len(seeds) > MOST:
        raise UserError(f"--seeds asks for {len(seeds)} samples; ask for at most {MOST}")
    new_folder(arguments.out)
    opened, device = opened_on_device(arguments, "memorisation", argv)

    import torch

    from stylenat.evaluation import nearest as spaces
    from stylenat.evaluation.extractors import provide
    from stylenat.evaluation.progress import ProgressLine
    from stylenat.grids import labelled_rows, save_png

    extractor = opened.registry.find(f"features.{arguments.features}").load()()
    provide([extractor], arguments.extractor_weights)
    if hasattr(extractor, "check"):
        extractor.check()
    real = training_images(opened, arguments.data)
    samples = opened.sampler(arguments.truncation_psi, number=arguments.number).at(seeds).cpu()
    embeds = {
        "pixels": spaces.pixels,
        "wavelets": spaces.wavelets,
        arguments.features: lambda images: extractor(images.to(device)),
    }
    found = {}
    for name, embed in embeds.items():
        line, total = ProgressLine(printable(name, 40)), len(samples) + 2 * len(real)
        try:
            found[name] = spaces.nearest(samples, real, embed, lambda done, line=line, total=total: line(done, total))
        finally:
            line.close()
    order = found["pixels"].distance.argsort()[:SHOWN]
    # Short names fit above small images.
    columns = {"sample": samples[order]}
    for name, near in zip(("pixels", "wavelets", "features"), found.values(), strict=True):
        columns[name] = real[near.index[order]]
    rows = {f"seed {seeds[i]}": torch.stack([c[n] for c in columns.values()]) for n, i in enumerate(order.tolist())}
    numbers = {name: _plain(near, seeds) for name, near in found.items()}
    facts: dict[str, Any] = {"weights_sha256": opened.sha256, "training_images": len(real), "spaces": numbers}
    with new_folder_at(arguments.out) as folder:
        save_png(folder / "nearest.png", labelled_rows(rows, list(columns)))
        _histograms(folder / "distances.png", found)
        (folder / "memorisation.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for name, near in found.items():
        share = f"{near.closer:.0%} of {len(seeds)} samples are nearer to a training image"
        print(printable(f"{name}: {share} than 95 % of training images to another (5 % expected)"))
    print(printable(f"nearest.png, distances.png and memorisation.json in {arguments.out}"))
    return 0


def training_images(opened: "Opened", data: Path | None) -> "Tensor":
    """All of them, uint8 [count, 3, resolution, resolution].

    Raises:
        UserError: they are not there, of another resolution, too many, or fewer than two.
    """
    import torch

    side = opened.generator.resolution
    if data is not None:
        dataset = opened.registry.find("dataset.lmdb").load()(path=str(data), resolution=side)
    else:
        dataset = opened.experiment.value("train.dataset")
        if (created := getattr(dataset, "creates", None)) is not None:
            raise UserError(f"{created} does not exist; give the training images with --data")
    dataset.prepare()
    if dataset.resolution != side:
        raise UserError(f"the generator's images are {side}x{side}, and {dataset.describe()} has {dataset.resolution}")
    if not 2 <= len(dataset) <= MOST:
        raise UserError(f"{dataset.describe()} has {len(dataset)} images; 2 to {MOST} can be compared")
    return torch.stack([dataset[i] for i in range(len(dataset))])


def _plain(near: "Nearest", seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "closer_than_5_percent_of_real": near.closer,
        "median_distance": float(near.distance.median()),
        "median_distance_real_to_real": float(near.real.median()),
        "nearest": [
            {"seed": seed, "training_image": int(index), "distance": float(distance)}
            for seed, index, distance in zip(seeds, near.index, near.distance, strict=True)
        ],
    }


def _histograms(path: Path, found: "Mapping[str, Nearest]") -> None:
    """A panel for each space: distances of samples, and of training images, to the nearest (other) training image."""
    import numpy as np
    from matplotlib.figure import Figure

    from stylenat.files import whole_file

    figure = Figure(figsize=(3.4 * len(found), 2.6), layout="constrained")
    for axis, (name, near) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        both = np.concatenate([near.distance.numpy(), near.real.numpy()])
        bins = np.linspace(both.min(), both.max() + 1e-9, 31)
        for distances, label in ((near.real, "training images"), (near.distance, "samples")):
            axis.hist(distances.numpy(), bins, density=True, alpha=0.55, label=label)
        axis.axvline(float(near.real.quantile(0.05)), color="black", linestyle=":", linewidth=1)
        axis.set_title(printable(name, 40), fontsize=9)
        axis.set_xlabel("distance to the nearest training image", fontsize=8)
        axis.set_yticks([])
    figure.axes[0].legend(fontsize=7)
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
