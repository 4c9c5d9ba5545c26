"""``tools/interpolate.py``: a video of walks through the latents or the styles."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry import UserError
from registry.wording import printable
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command
from stylenat.commands._generator import (
    add_run,
    add_truncation,
    check_truncation_argument,
    new_file,
    new_folder,
    opened_on_device,
    parsed_seeds,
)
from stylenat.commands.mix import chosen_layers

if TYPE_CHECKING:
    from torch import Tensor

    from stylenat.sampling import Sampler

EXAMPLES = """examples:
  python tools/interpolate.py runs/NAME --seeds 0-5 --out walk.mp4
  python tools/interpolate.py runs/NAME --seeds 0-23 --grid 3x2 --frames 30 --out walks.webm
  python tools/interpolate.py runs/NAME --seeds 0,9 --layers 0-3 --frames 20 --fps 20 --out pose.gif
  python tools/interpolate.py runs/NAME --seeds 0-3 --space z --method spherical --open --out frames

A walk goes from seed to seed and back to the first, --frames images from each to the next. With --grid COLUMNSxROWS the
seeds are divided among that many walks, which are shown side by side. With --layers only those styles move; the others
stay the first seed's. OUT.mp4 and OUT.webm need imageio-ffmpeg (pip install 'stylenat[video]'); OUT.gif and a folder of
PNGs need nothing.
"""
MOST = 100_000
"""Frames times walks."""


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="interpolate", description="Make a video of walks between samples.", epilog=EXAMPLES)
    add_run(parser)
    parser.add_argument("--seeds", default="0-5", metavar="A-B,C", help="sample indices (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=60, metavar="N", help="from seed to seed (default: %(default)s)")
    parser.add_argument("--fps", type=int, default=30, metavar="N", help="frames a second (default: %(default)s)")
    parser.add_argument("--grid", default="1x1", metavar="CxR", help="columns and rows of walks (default: %(default)s)")
    parser.add_argument("--space", choices=["z", "w"], help="of the walk (default: w, or z for one without styles)")
    parser.add_argument(
        "--method", choices=["linear", "spherical"], help="(default: linear in w, spherical in z, StyleGAN's habit)"
    )
    parser.add_argument("--layers", metavar="A-B,C", help="only these styles move (default: all)")
    parser.add_argument("--open", action="store_true", help="end at the last seed instead of returning to the first")
    add_truncation(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="OUT.mp4, OUT.webm, OUT.gif or a folder")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    seeds = parsed_seeds(arguments.seeds)
    check_truncation_argument(arguments.truncation_psi)
    columns, rows = parsed_grid(arguments.grid)
    for value, option in ((arguments.frames, "--frames"), (arguments.fps, "--fps")):
        if not 1 <= value <= MOST:
            raise UserError(f"{option} must be 1 to {MOST}; got {value}")
    walks = columns * rows
    if len(seeds) % walks or len(seeds) < 2 * walks:
        raise UserError(
            f"--grid {arguments.grid} has {walks} walks, and --seeds {len(seeds)}: give a multiple, at least two each"
        )
    if len(seeds) * arguments.frames > MOST:
        raise UserError(f"{len(seeds) * arguments.frames} images; ask for at most {MOST}")
    if arguments.out.suffix:
        from stylenat import video

        if arguments.out.suffix.lower() not in video.SUFFIXES:
            raise UserError(
                f"--out {arguments.out} must end in {', '.join(video.SUFFIXES)}, or be a name without a suffix for a "
                "folder of PNGs"
            )
        new_file(arguments.out)
        video.check(arguments.out)
    else:
        new_folder(arguments.out)
    opened, _ = opened_on_device(arguments, "interpolate", argv)

    from stylenat import video
    from stylenat.evaluation.progress import ProgressLine
    from stylenat.sampling import is_style_based, must_be_style_based

    space = arguments.space or ("w" if is_style_based(opened.generator) else "z")
    if space == "w":
        must_be_style_based(opened.generator, "--space w")
    layers = None
    if arguments.layers is not None:
        must_be_style_based(opened.generator, "--layers")
        if space == "z":
            raise UserError("--layers applies to styles; leave out --space z")
        layers = chosen_layers(arguments.layers, opened.generator.num_styles)
    method = arguments.method or ("linear" if space == "w" else "spherical")
    sampler = opened.sampler(arguments.truncation_psi, number=arguments.number)
    each = len(seeds) // walks
    starts = [seeds[i * each : (i + 1) * each] for i in range(walks)]
    total = (each if not arguments.open else each - 1) * arguments.frames + arguments.open
    line = ProgressLine("walk", unit="frames")

    def frames() -> Iterator["Tensor"]:
        cells = of_walks(sampler, starts, arguments.frames, not arguments.open, space, method, layers)
        for number, images in enumerate(cells, start=1):
            frame = video.tiled(images.cpu(), columns)
            yield video.enlarged(frame) if arguments.out.suffix else frame
            line(number, total)

    try:
        count = video.write(arguments.out, frames(), arguments.fps)
    finally:
        line.close()
    print(printable(f"{count} frames in {arguments.out}"))
    return 0


def of_walks(
    sampler: "Sampler",
    walks: Sequence[Sequence[int]],
    frames: int,
    closed: bool,
    space: str,
    method: str,
    layers: list[int] | None,
) -> Iterator["Tensor"]:
    """The images of each frame, uint8 [walks, 3, resolution, resolution].

    Args:
        walks: the seeds of each; frames, closed: as of ``walks.walk``.
        layers: the styles that move, None for all. A generator's declared draws stay those of the first seed.
    """
    import torch

    from stylenat.sampling import for_all_layers
    from stylenat.walks import METHODS, linear, mixed, walk

    between, generator = METHODS[method], sampler.generator
    paths, labels, draws = [], [], []
    for seeds in walks:
        if space == "w":
            styles = sampler.styles_at(seeds)
            path = for_all_layers(walk(styles, frames, closed, between), generator)
            if layers is not None:
                path = mixed(for_all_layers(styles[:1], generator), path, layers)
            paths.append(path)
            continue
        paths.append(walk(torch.cat([sampler.latents(i, 1) for i in seeds]), frames, closed, between))
        of_seeds = [sampler.labels(i, 1) for i in seeds]
        labels.append(None if of_seeds[0] is None else walk(torch.cat(of_seeds), frames, closed, linear))
        draws.append(sampler.draws(seeds[0], 1))
    for i in range(len(paths[0])):
        points = torch.stack([path[i] for path in paths])
        if space == "w":
            yield sampler.of_styles(points)
            continue
        label = None if labels[0] is None else torch.stack([of_walk[i] for of_walk in labels])
        given = {name: torch.cat([of_walk[name] for of_walk in draws]) for name in draws[0]}
        yield sampler.of_latents(points, label, given)


def parsed_grid(text: str) -> tuple[int, int]:
    """``3x2`` to (3, 2): columns and rows. Raises UserError for anything else."""
    numbers = text.lower().split("x")
    if len(numbers) != 2 or not all(n.isdecimal() and 0 < int(n[:4]) <= 64 and len(n) < 4 for n in numbers):
        raise UserError(f"--grid takes columns and rows, such as 3x2, each 1 to 64; got {text!r}")
    return int(numbers[0]), int(numbers[1])
