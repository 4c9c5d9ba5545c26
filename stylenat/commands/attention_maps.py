"""``tools/attention_maps.py``: what the heads of each layer look at."""

import argparse
from collections.abc import Callable, Sequence
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
    new_folder,
    new_folder_at,
    note_of,
    opened_on_device,
    parsed_seeds,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stylenat.commands._attention_figure import Group
    from stylenat.sampling import Sampler

EXAMPLES = """examples:
  python tools/attention_maps.py runs/NAME --seeds 0 --out attention
  python tools/attention_maps.py runs/NAME --seeds 3,7 --query 120,64 --out eyes
  python tools/attention_maps.py runs/NAME --seeds 0-3 --mean --overlays --out average

--query X,Y is a pixel of the image, counted from the top left; in each layer it is the token over it. Without it, the
middle. --mean shows the mean over queries instead. DIR/seed-000003.png and .pdf are one figure of all layers and groups
of heads, for papers; --overlays adds a PNG for each head. DIR/attention.json and the printed
table have the mean attention distance (in tokens and as a share of the side) and the entropy (nats) of each group, over
a grid of queries and all seeds.
"""
QUERIES = 64
"""Of each layer, for statistics and averages; all where there are no more."""
MOST = 256


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="attention_maps", description="Show what a generator's heads look at.", epilog=EXAMPLES)
    add_run(parser)
    parser.add_argument("--seeds", default="0", metavar="A-B,C", help="sample indices (default: %(default)s)")
    parser.add_argument("--query", metavar="X,Y", help="pixel whose attention is shown (default: the middle)")
    parser.add_argument("--mean", action="store_true", help="show the mean over queries instead of one query")
    parser.add_argument("--overlays", action="store_true", help="also a PNG for each head of each layer")
    add_truncation(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    seeds = parsed_seeds(arguments.seeds)
    check_truncation_argument(arguments.truncation_psi)
    if arguments.query is not None and arguments.mean:
        raise UserError("--query and --mean contradict each other; leave out one")
    if len(seeds) > MOST:
        raise UserError(f"--seeds asks for {len(seeds)} figures; ask for at most {MOST}")
    new_folder(arguments.out)
    opened, _ = opened_on_device(arguments, "attention_maps", argv)
    generator, side = opened.generator, opened.generator.resolution
    pixel = None if arguments.mean else parsed_query(arguments.query, side)

    import json

    from stylenat.attention.shown import shows_attention
    from stylenat.commands._attention_figure import overlay, plain, save_figure, table
    from stylenat.evaluation.progress import ProgressLine
    from stylenat.grids import save_png

    if not any(map(shows_attention, generator.modules())):
        raise UserError(
            f"{type(generator).__name__} has no attention layer that shows its maps (interfaces.ShowsAttention)"
        )
    sampler, line = opened.sampler(arguments.truncation_psi, 1, arguments.number), ProgressLine("images")
    found = []
    try:
        for seed in seeds:
            found.append(of_sample(sampler, seed, pixel))
            line(len(found), len(seeds))
    finally:
        line.close()
    groups = mean_statistics([groups for _, groups in found])
    where = "mean over queries" if pixel is None else f"query at ({pixel[1]}, {pixel[0]})"
    with new_folder_at(arguments.out) as folder:
        origin = opened.origin(sampler) | {"seeds": seeds, "query": pixel and [pixel[1], pixel[0]], "queries": QUERIES}
        (folder / "samples.json").write_bytes(note_of(origin))
        for seed, (image, of_it) in zip(seeds, found, strict=True):
            name = f"seed-{seed:06d}"
            for suffix in (".png", ".pdf"):
                save_figure(folder / f"{name}{suffix}", image, of_it, f"sample {seed}, {where}")
            for group in of_it if arguments.overlays else ():
                for head, weights in zip(group.heads, group.maps, strict=True):
                    file_name = f"{name}-layer{group.layer:02d}-head{head:02d}.png"
                    save_png(folder / file_name, overlay(image, weights, group.query))
        (folder / "attention.json").write_text(json.dumps(plain(groups), indent=2) + "\n", encoding="utf-8")
    print(table(groups))
    print(printable(f"figures of {len(seeds)} sample(s) and attention.json in {arguments.out}"))
    return 0


def of_sample(sampler: "Sampler", seed: int, pixel: tuple[int, int] | None) -> "tuple[Tensor, list[Group]]":
    """``of_image`` of a sample index. The sampler has a batch of 1."""
    return of_image(sampler.generator, lambda: sampler.images(range(seed, seed + 1))[0].cpu(), pixel)


def of_image(
    generator: "nn.Module", draw: "Callable[[], Tensor]", pixel: tuple[int, int] | None
) -> "tuple[Tensor, list[Group]]":
    """An image uint8 [3, side, side], and the maps of each group of heads of each layer.

    Args:
        draw: makes the image, by one call of the generator with a batch of 1.
        pixel: row and column whose attention the maps show, None for the mean over queries.
    """
    import torch

    from stylenat.attention.shown import observed, spread_queries, statistics
    from stylenat.commands._attention_figure import Group

    resolution = generator.resolution
    at: Callable[[int], tuple[int, int] | None] = lambda side: (  # noqa: E731 - one line says it
        None if pixel is None else (pixel[0] * side // resolution, pixel[1] * side // resolution)
    )

    def queries(side: int) -> "Tensor":
        spread, own = spread_queries(side, QUERIES), at(side)
        return spread if own is None else torch.cat([torch.tensor([own]), spread])

    with observed(generator, queries) as calls:
        image = draw()
    groups = []
    for layer, (name, shown) in enumerate(calls.items()):
        head = 0
        for part in shown[0]:
            weights = part.weights[0].float().cpu()
            side, own = weights.shape[-1], at(weights.shape[-1])
            spread = weights if own is None else weights[:, 1:]
            groups.append(
                Group(
                    layer=layer,
                    name=name,
                    side=side,
                    label=part.label,
                    heads=range(head, head := head + len(weights)),
                    maps=weights.mean(1) if own is None else weights[:, 0],
                    query=own,
                    statistics=statistics(spread[None], spread_queries(side, QUERIES)),
                )
            )
    return image, groups


def mean_statistics(samples: "Sequence[Sequence[Group]]") -> "list[Group]":
    """The groups of the first sample with the statistics' means over all samples."""
    from dataclasses import replace

    from stylenat.attention.shown import Statistics

    found = []
    for same in zip(*samples, strict=True):
        of_all = [group.statistics for group in same]
        mean = Statistics(
            sum(s.distance for s in of_all) / len(of_all),
            sum(s.entropy for s in of_all) / len(of_all),
            max(s.keys for s in of_all),
        )
        found.append(replace(same[0], statistics=mean))
    return found


def parsed_query(text: str | None, side: int) -> tuple[int, int]:
    """``X,Y`` to row and column; the middle for None. Raises UserError for what is no pixel of the image."""
    if text is None:
        return side // 2, side // 2
    numbers = text.split(",")
    if len(numbers) != 2 or not all(n.isdecimal() and len(n) < 7 for n in numbers) or max(map(int, numbers)) >= side:
        raise UserError(f"--query takes a pixel X,Y, each 0 to {side - 1}; got {text!r}")
    return int(numbers[1]), int(numbers[0])
