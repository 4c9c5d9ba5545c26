"""``tools/prepare.py``: a folder of images to an LMDB."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from stylenat.commands._command import command

EXAMPLES = """examples:
  python tools/prepare.py photos/ data/photos64.lmdb --resolution 64
  python tools/prepare.py ffhq/ data/ffhq256.lmdb --resolution 256 --filter lanczos
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare",
        description="Crop, resize and store a folder of images as an LMDB that training reads.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of images, searched recursively")
    parser.add_argument("out", type=Path, metavar="OUT.lmdb", help="the LMDB to make")
    parser.add_argument("--resolution", type=int, required=True, metavar="R", help="side in pixels")
    filters = ("lanczos", "box", "bilinear", "bicubic")
    parser.add_argument("--filter", choices=filters, default="lanczos", help="of the resize (default: %(default)s)")
    crops = ("center", "none")
    parser.add_argument("--crop", choices=crops, default="center", help="none skips what is not square")
    parser.add_argument("--storage", choices=("png", "jpeg"), default="png", help="(default: %(default)s)")
    parser.add_argument("--jpeg-quality", type=int, default=95, metavar="Q", help="(default: %(default)s)")
    parser.add_argument("--max-images", type=int, metavar="N", help="stop after this many")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="(default: all cores)")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from registry import UserError

    for name in ("resolution", "workers", "max_images"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1; got {value}")
    if not 1 <= arguments.jpeg_quality <= 100:
        raise UserError(f"--jpeg-quality must be 1 to 100; got {arguments.jpeg_quality}")

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from stylenat.data.prepare import prepare

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    began = time.monotonic()

    def show(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - began, 1e-9)
        bar.update(task, completed=done, total=total, rate=f"{rate:.0f} img/s")

    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("", total=None, rate="")
        result = prepare(
            arguments.source,
            arguments.out,
            arguments.resolution,
            filter=arguments.filter,
            crop=arguments.crop,
            storage=arguments.storage,
            jpeg_quality=arguments.jpeg_quality,
            max_images=arguments.max_images,
            workers=arguments.workers,
            progress=show,
        )
    done = "already there, nothing changed" if result.unchanged else "written"
    print(f"{arguments.out}: {result.count} images at {arguments.resolution}x{arguments.resolution}, {done}")
    if result.skipped:
        print(f"skipped {len(result.skipped)}:")
        for path, reason in result.skipped.items():
            print(f"  {path}: {reason}")
    return 0
