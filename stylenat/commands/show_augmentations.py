"""``tools/show_augmentations.py``: a contact sheet of what an experiment's augmentation does to its images."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from stylenat.commands._arguments import Parser
from stylenat.commands._command import command, experiments_folder

EXAMPLES = """examples:
  python tools/show_augmentations.py --gin gin/quickstart.gin --out sheet.png
  python tools/show_augmentations.py --gin gin/faces32.gin --bind "augmentation.ada.preset = 'bgcfnc'" --out sheet.png
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="show_augmentations",
        description="Draw the effect of train.augmentation on an image: one row for each transform, one column for\n"
        "each strength. Strengths are quantiles of the transform's random parameter (0.5: the median);\n"
        "in the last row they are p.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--gin", action="append", default=[], metavar="FILE", help="experiment; later files override")
    parser.add_argument(
        "--bind", action="append", default=[], metavar="'SELECTOR.PARAMETER = VALUE'", help="overrides the files"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="SHEET.png", help="the picture")
    parser.add_argument(
        "--image", type=int, default=0, metavar="INDEX", help="index of the image in the data set (default: 0)"
    )
    parser.add_argument("--columns", type=int, default=7, metavar="N", help="number of strengths (default: 7)")
    parser.add_argument("--seed", type=int, default=0, help="of the remaining random numbers (default: 0)")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from registry import UserError, load_experiment
    from stylenat.commands._plugins import loaded_plugins

    if not 2 <= arguments.columns <= 50:
        raise UserError(f"--columns must lie between 2 and 50; got {arguments.columns}")
    registry = loaded_plugins(arguments.plugin)
    experiment = load_experiment(registry, arguments.gin, arguments.bind, search_path=[experiments_folder()])
    augmentation, dataset = experiment.value("train.augmentation"), experiment.value("train.dataset")
    dataset.prepare()
    if not 0 <= arguments.image < len(dataset):
        raise UserError(f"--image must lie between 0 and {len(dataset) - 1}; got {arguments.image}")

    import torch

    from stylenat.grids import labelled_rows, save_png
    from stylenat.pixels import to_networks, to_uint8

    image = to_networks(dataset[arguments.image])
    random = torch.Generator().manual_seed(arguments.seed)
    strengths = [(i + 0.5) / arguments.columns for i in range(arguments.columns)]
    if hasattr(augmentation, "demonstrate"):
        rows = {"as it is": image.expand(len(strengths), -1, -1, -1)}
        rows |= augmentation.demonstrate(image, strengths, random)
        heads = [f"{strength:.2f}" for strength in strengths]
    else:
        # It cannot say which transforms it has: a square of what it does by chance.
        drawn = augmentation(image.expand(len(strengths) ** 2, -1, -1, -1), random)
        rows = {f"draws {i + 1}": part for i, part in enumerate(drawn.split(len(strengths)))}
        heads = [""] * len(strengths)
    sheet = labelled_rows({name: to_uint8(row) for name, row in rows.items()}, heads)
    try:
        save_png(arguments.out, sheet)
    except OSError as error:
        raise UserError(f"cannot write {arguments.out}: {error.strerror}") from error
    print(f"{len(rows)} rows at {arguments.columns} strengths in {arguments.out}")
    return 0
