"""``tools/sample.py``: pictures from a run or checkpoint."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from stylenat.commands._command import command

EXAMPLES = """examples:
  python tools/sample.py runs/quickstart-1a2b3c4d --seeds 0-15 --out samples
  python tools/sample.py runs/NAME/checkpoints/step-000001000 --seeds 3,7 --truncation-psi 0.7 --out samples
"""

MOST = 100_000
"""Seeds in one range."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sample",
        description="Write one PNG a seed, and a grid of all, from a run's averaged generator.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, one of its checkpoints, or imported weights")
    parser.add_argument("--seeds", default="0-15", metavar="A-B,C", help="(default: %(default)s)")
    parser.add_argument("--truncation-psi", type=float, default=1.0, metavar="PSI", help="1 for none (default)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    seeds = parsed_seeds(arguments.seeds)
    from registry import UserError, load_experiment
    from stylenat.commands._plugins import loaded_plugins

    if not math.isfinite(arguments.truncation_psi):
        raise UserError(f"--truncation-psi must be finite; got {arguments.truncation_psi}")

    from stylenat import weights

    folder = weights.weights_folder(arguments.run)
    config = weights.config_of(folder)
    registry = loaded_plugins(arguments.plugin, [config.parent], "sample", argv)
    experiment = load_experiment(registry, [str(config)])

    import torch

    from stylenat.data.pixels import NotFinite
    from stylenat.evaluation.grids import image_grid, save_png
    from stylenat.networks.sampling import mean_style, sample

    generator, _ = weights.generator_of(folder, experiment.value("train.generator"))
    latents = torch.cat(
        [torch.randn(1, generator.latent_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
    centre = mean_style(generator) if arguments.truncation_psi != 1 else None
    try:
        images = sample(generator, latents, arguments.truncation_psi, centre)
    except NotFinite as error:
        raise UserError(f"{folder}: {error}") from error
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for seed, image in zip(seeds, images, strict=True):
            save_png(arguments.out / f"seed-{seed:06d}.png", image)
        save_png(arguments.out / "grid.png", image_grid(images))
    except OSError as error:
        raise UserError(f"cannot write to {arguments.out}: {error.strerror}") from error
    print(f"{len(seeds)} images and grid.png in {arguments.out}")
    return 0


def parsed_seeds(text: str) -> list[int]:
    """``0-3,7`` to [0, 1, 2, 3, 7]. Raises UserError for anything else."""
    from registry import UserError

    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers = [first, last] if dash else [first]
        if not all(n.isdecimal() and len(n) < 19 for n in numbers) or int(numbers[-1]) < int(first):
            raise UserError(f"--seeds takes numbers and ranges such as 0-15 or 3,7; got {text!r}")
        if int(numbers[-1]) - int(first) >= MOST:
            raise UserError(f"--seeds {part} is more than {MOST} images; ask for fewer at a time")
        seeds += range(int(first), int(numbers[-1]) + 1)
    return seeds
