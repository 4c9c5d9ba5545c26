"""``tools/inspect_data.py``: what an LMDB of images holds, and whether it is whole."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from stylenat.commands._arguments import Parser
from stylenat.commands._command import USER_ERROR, command

EXAMPLES = """examples:
  python tools/inspect_data.py data/ffhq256.lmdb
  python tools/inspect_data.py data/ffhq256.lmdb --verify --sheet sheet.png
  python tools/inspect_data.py data/ffhq256.lmdb --export files/
"""
SAMPLE = 2000
"""Images that mean and standard deviation are taken over."""
LISTED = 20


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="inspect_data",
        description="Show the contents of an LMDB of images; verify it, draw a contact sheet, export its images.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "data", type=Path, metavar="DATA.lmdb", help="an LMDB of this project or of stylegan2-pytorch's layout"
    )
    parser.add_argument(
        "--resolution", type=int, metavar="R", help="which resolution, if there are several (default: the largest)"
    )
    parser.add_argument("--verify", action="store_true", help="decode every record and compare the hashes")
    parser.add_argument("--sheet", type=Path, metavar="OUT.png", help="write a contact sheet of 64 images")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write every image as a file into a new folder")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from rich.progress import track

    from registry.wording import printable
    from stylenat.data.inspection import Inspection

    data = Inspection(arguments.data, arguments.resolution)
    for name, value in data.summary().items():
        print(f"{printable(name):>16}  {printable(value)}")
    print(f"{'file':>16}  {data.size_bytes() / 2**20:.1f} MiB")
    for name, reason in list((data.layout.manifest or {}).get("skipped", {}).items()):
        print(f"{'skipped':>16}  {printable(name)}: {printable(reason)}")
    count = data.layout.count
    if arguments.verify:
        total = count * len(data.layout.resolutions)
        found = 0
        for problem in track(data.problems(), "verifying", total, transient=True):
            found += problem is not None
            if problem and found <= LISTED:
                print(f"{'damaged':>16}  {printable(problem)}")
        if found > LISTED:
            print(f"{'damaged':>16}  ... and {found - LISTED} more")
        print(f"{'verified':>16}  {total} records, {found} problems")
        if found:
            return USER_ERROR
    mean, std = data.mean_and_std(SAMPLE)
    print(f"{'mean RGB':>16}  {', '.join(f'{value:.4f}' for value in mean)}  (of {min(SAMPLE, count)} images, 0..1)")
    print(f"{'std RGB':>16}  {', '.join(f'{value:.4f}' for value in std)}")
    if arguments.sheet:
        data.sheet(arguments.sheet)
        print(f"{'sheet':>16}  {printable(arguments.sheet)}")
    if arguments.export:
        written = sum(1 for _ in track(data.export(arguments.export), "exporting", count, transient=True))
        print(f"{'exported':>16}  {written} images to {printable(arguments.export)}")
    return 0
