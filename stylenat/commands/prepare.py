"""``tools/prepare.py``: any pile of images to an LMDB."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylenat.commands._arguments import Parser
from stylenat.commands._command import STOPPED, command

if TYPE_CHECKING:
    from stylenat.data.ignored import Ignored
    from stylenat.data.prepare import Prepared

LISTED = 50
REASONS = 5
"""Of skipped images, that are counted in one line."""
LARGEST = 2**13
"""Pixels a side; a mistyped resolution would fill the memory."""
COUNTED = {
    "enlarged": "were smaller than that and have been enlarged",
    "profiles_converted": "had a colour profile and were converted to sRGB",
    "profiles_broken": "had a colour profile that cannot be used and were read without it",
}
"""Entries of the manifest that are counts, and what they say."""

EXAMPLES = """examples:
  python tools/prepare.py photos/ data/photos64.lmdb --resolution 64
  python tools/prepare.py ffhq.zip data/ffhq256.lmdb --resolution 256 --filter box --storage jpeg
  python tools/prepare.py pets.tar data/pets.lmdb --resolution 64 --resolution 128 --labels

After an interruption the same command continues. How unusual images are handled: docs/data.md.
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prepare",
        description="Crop and resize images and store them as an LMDB for training.",
        epilog=EXAMPLES,
    )
    sources = "folder (searched recursively), zip, tar, LMDB (LSUN's, too), or text file of paths"
    parser.add_argument("source", type=Path, metavar="SOURCE", help=sources)
    parser.add_argument("out", type=Path, metavar="OUT.lmdb", help="the LMDB to write")
    side = "side in pixels; repeatable, all are made in one pass"
    parser.add_argument("--resolution", type=int, required=True, action="append", metavar="R", help=side)
    filters = ("lanczos", "box", "bilinear", "bicubic", "hamming", "nearest")
    parser.add_argument("--filter", choices=filters, default="lanczos", help="resize filter (default: %(default)s)")
    crops = ("center", "none")
    parser.add_argument("--crop", choices=crops, default="center", help="none: images that are not square are an error")
    fits = ("crop", "pad", "stretch")
    fit = "images that are not square: crop to the center, pad with black, or stretch (default: %(default)s)"
    parser.add_argument("--fit", choices=fits, default="crop", help=fit)
    parser.add_argument("--follow-links", action="store_true", help="enter linked folders, too, each folder once")
    storages = ("png", "jpeg", "webp", "raw")
    storage = "webp is lossless, raw is uint8 pixels (default: %(default)s)"
    parser.add_argument("--storage", choices=storages, default="png", help=storage)
    parser.add_argument("--jpeg-quality", type=int, default=95, metavar="Q", help="1 to 100 (default: %(default)s)")
    parser.add_argument("--max-images", type=int, metavar="N", help="stop after N images")
    labels = "store the class of each image, from dataset.json if there is one, else its folder"
    parser.add_argument("--labels", action="store_true", help=labels)
    profiles = "do not convert embedded colour profiles to sRGB"
    parser.add_argument("--keep-profiles", action="store_true", help=profiles)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (default: all cores)"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from registry import UserError

    for name in ("resolution", "workers", "max_images"):
        values = getattr(arguments, name)
        for value in values if isinstance(values, list) else [values]:
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1; got {value}")
    if max(arguments.resolution) > LARGEST:
        raise UserError(f"--resolution must be at most {LARGEST}; got {max(arguments.resolution)}")
    if not 1 <= arguments.jpeg_quality <= 100:
        raise UserError(f"--jpeg-quality must be 1 to 100; got {arguments.jpeg_quality}")

    try:
        result = prepared(
            arguments.source,
            arguments.out,
            arguments.resolution,
            filter=arguments.filter,
            crop=arguments.crop,
            fit=arguments.fit,
            follow_links=arguments.follow_links,
            storage=arguments.storage,
            jpeg_quality=arguments.jpeg_quality,
            max_images=arguments.max_images,
            labels=arguments.labels,
            keep_profiles=arguments.keep_profiles,
            workers=arguments.workers,
        )
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return STOPPED
    report(arguments.out, result)
    return 0


def prepared(source: Path, out: Path, resolutions: Sequence[int], **settings: Any) -> "Prepared":
    """``stylenat.data.prepare.prepare`` with a progress display."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from stylenat.data.prepare import prepare

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
    began, seen_before = time.monotonic(), 0

    def show(images: int, position: int, size: int) -> None:
        nonlocal began, seen_before
        if bar.tasks[task].total is None:  # What an earlier run did is no speed of this one's.
            bar.reset(task, total=size, completed=position)
            began, seen_before = time.monotonic(), images
        rate = (images - seen_before) / max(time.monotonic() - began, 1e-9)
        bar.update(task, completed=position, text=f"{images} images, {rate:.0f} img/s")

    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("", total=None, text="")
        return prepare(source, out, resolutions, progress=show, **settings)


def report(out: Path, result: "Prepared") -> None:
    """Prints what became of the images."""
    from registry.wording import printable

    for line in _lines(out, result):
        print(printable(line))


def _lines(out: Path, result: "Prepared") -> Iterator[str]:
    from stylenat.data.ignored import Ignored
    from stylenat.data.images import NARROW, NARROW_REMEDY, SEVERAL

    manifest = result.manifest
    done = "already there, nothing changed" if result.unchanged else "written"
    sides = ", ".join(f"{side}x{side}" for side in manifest.get("resolutions") or [manifest["resolution"]])
    yield f"{out}: {result.count} images at {sides}, {done}"
    if result.continued:
        yield f"continued after the first {result.continued}, which an earlier run had read"
    if "keep_profiles" not in manifest:
        yield "made by an earlier version, which did not convert colour profiles"
    if manifest.get("labels_from"):
        yield f"the classes are those of {manifest['labels_from']}"
    for name, text in (COUNTED | {"several_frames": SEVERAL}).items():
        if manifest.get(name):
            yield f"{manifest[name]} {text}"
    if manifest.get("ignored"):
        yield from _ignored(manifest["ignored"], Ignored(manifest.get("ignored_by", {})))
    if result.skipped:
        reasons = Counter(result.skipped.values()).most_common(REASONS)
        yield f"skipped {len(result.skipped)}: {', '.join(f'{number} {reason}' for reason, number in reasons)}"
        yield from (f"  {path}: {reason}" for path, reason in islice(result.skipped.items(), LISTED))
        if len(result.skipped) > LISTED:
            yield f"  ... all in the manifest: python tools/inspect_data.py {out}"
    if manifest.get("narrow_range"):
        yield f"{manifest['narrow_range']} {NARROW}; {NARROW_REMEDY}"


def _ignored(count: int, reasons: "Ignored") -> Iterator[str]:
    from stylenat.data.ignored import LINKED_FOLDER

    yield f"ignored files: {reasons if reasons else count}"
    if LINKED_FOLDER in reasons:
        yield "  linked folders are entered with --follow-links, each folder once"
