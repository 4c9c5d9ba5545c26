"""``tools/mix.py``: a table of style mixtures."""

import argparse
from collections.abc import Sequence
from pathlib import Path

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

EXAMPLES = """examples:
  python tools/mix.py runs/NAME --rows 0-3 --columns 4-9 --out mix
  python tools/mix.py runs/NAME --rows 0,7 --columns 3,5 --layers 0-3 --truncation-psi 0.7 --out coarse
  python tools/mix.py runs/NAME --rows 0-3 --columns 4-7 --layers 8-13 --out colours

Each image has the styles of its row's seed, and those of --layers from its column's seed. Style 0 belongs to 4x4, the
coarsest level; with two styles a resolution, 0-3 are 4x4 and 8x8. The default is the first half. DIR/grid.png has the
seeds' own images at the left and at the top; DIR/mix-ROW-COLUMN.png are the mixtures.
"""
MOST = 4096
"""Images of a table."""


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="mix", description="Draw a table of style mixtures.", epilog=EXAMPLES)
    add_run(parser)
    parser.add_argument("--rows", default="0-3", metavar="A-B,C", help="sample indices (default: %(default)s)")
    parser.add_argument("--columns", default="4-9", metavar="A-B,C", help="sample indices (default: %(default)s)")
    parser.add_argument("--layers", metavar="A-B,C", help="styles of the columns (default: the first half)")
    add_truncation(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    rows, columns = parsed_seeds(arguments.rows, "--rows"), parsed_seeds(arguments.columns, "--columns")
    if len(rows) * len(columns) > MOST:
        raise UserError(f"--rows and --columns make {len(rows) * len(columns)} images; ask for at most {MOST}")
    check_truncation_argument(arguments.truncation_psi)
    new_folder(arguments.out)
    opened, _ = opened_on_device(arguments, "mix", argv)

    import torch

    from stylenat.evaluation.progress import ProgressLine
    from stylenat.grids import image_grid, save_png
    from stylenat.sampling import for_all_layers, must_be_style_based
    from stylenat.walks import mixed

    generator = opened.generator
    must_be_style_based(generator, "style mixing")
    layers = chosen_layers(arguments.layers, generator.num_styles)
    sampler = opened.sampler(arguments.truncation_psi, number=arguments.number)
    left, top = (for_all_layers(sampler.styles_at(seeds), generator) for seeds in (rows, columns))
    line, table = ProgressLine("mixtures"), [torch.full_like(own := sampler.of_styles(top), 255)[:1], own]
    try:
        for i, own in enumerate(sampler.of_styles(left)):
            table += [own[None], sampler.of_styles(mixed(left[i].expand_as(top), top, layers))]
            line((i + 1) * len(columns), len(rows) * len(columns))
    finally:
        line.close()
    images = torch.cat(table).cpu()
    origin = opened.origin(sampler) | {"rows": rows, "columns": columns, "layers": layers}
    with new_folder_at(arguments.out) as folder:
        (folder / "samples.json").write_bytes(note_of(origin))
        for i, row in enumerate(rows, start=1):
            for j, column in enumerate(columns, start=1):
                image = images[i * (len(columns) + 1) + j]
                save_png(folder / f"mix-{row:06d}-{column:06d}.png", image)
        save_png(folder / "grid.png", image_grid(images, len(columns) + 1))
    print(printable(f"{len(rows) * len(columns)} mixtures and grid.png in {arguments.out}"))
    return 0


def chosen_layers(text: str | None, num_styles: int) -> list[int]:
    """The numbers of styles; by default the first half. Raises UserError for numbers that the generator has not."""
    if text is None:
        return list(range(num_styles // 2))
    layers = parsed_seeds(text, "--layers")
    if max(layers) >= num_styles:
        raise UserError(f"--layers {text}: the generator has styles 0 to {num_styles - 1}")
    return layers
