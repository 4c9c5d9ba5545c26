"""``tools/sample.py``: images from a run or checkpoint."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import UserError
from registry.wording import printable
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command
from stylenat.commands._generator import (
    add_precision,
    add_run,
    add_truncation,
    check_batch_argument,
    check_truncation_argument,
    must_be_writable,
    must_name_folder,
    new_file,
    opened_on_device,
    parsed_seeds,
)

if TYPE_CHECKING:
    import torch

    from stylenat.trained import Opened

EXAMPLES = """examples:
  python tools/sample.py runs/quickstart-1a2b3c4d --seeds 0-15 --out samples
  python tools/sample.py runs/NAME/checkpoints/step-000001000 --seeds 3,7 --truncation-psi 0.7 --out samples
  python tools/sample.py runs/NAME --seeds 0-49999 --device cuda --batch 64 --format lmdb --out samples50k
  python tools/sample.py runs/NAME --seeds 0-15 --truncation-psi 0.5 --truncation-cutoff 4 --format webp --out coarse
  python tools/sample.py runs/NAME --seeds 0-15 --save-styles w.npy --out samples
  python tools/sample.py runs/NAME --styles w.npy --out again
  python tools/sample.py runs/NAME --throughput

--seeds are sample indices: image 3 is the fourth of the run's sample grids and metrics. Existing files are kept, so the
same command continues after an interruption. --format npy writes samples.npy, uint8 [images, height, width, 3];
--format lmdb writes samples.lmdb, a data set for tools/evaluate.py --data. Both are in ascending order of the seeds.
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sample",
        description="Draw samples from a run's EMA generator: one PNG for each, and a grid of the first 64.",
        epilog=EXAMPLES,
    )
    add_run(parser)
    add_precision(parser)
    parser.add_argument("--seeds", metavar="A-B,C", help="sample indices (default: 0-15)")
    add_truncation(parser)
    parser.add_argument(
        "--truncation-cutoff", type=int, metavar="N", help="truncate the first N styles only (default: all)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the images")
    parser.add_argument(
        "--format", choices=["png", "webp", "npy", "lmdb"], default="png", help="of the images (default: %(default)s)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="images at once (default: as in the run, at most 16; other numbers may round pixels differently)",
    )
    parser.add_argument("--save-styles", type=Path, metavar="FILE.npy", help="also write the images' styles")
    parser.add_argument("--styles", type=Path, metavar="FILE.npy", help="images of these styles instead of seeds")
    parser.add_argument(
        "--throughput",
        action="store_true",
        help="measure images/s for batches of 1 to 64, with parameters, GMACs and peak memory; draws nothing",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    seeds = parsed_seeds("0-15" if arguments.seeds is None else arguments.seeds)
    check_truncation_argument(arguments.truncation_psi)
    check_batch_argument(arguments.batch)
    if arguments.out is None and not arguments.throughput:
        raise UserError("name a folder for the images with --out DIR, or measure with --throughput")
    if arguments.styles is not None:
        for value, option in (
            (arguments.seeds, "--seeds"),
            (arguments.truncation_psi, "--truncation-psi"),
            (arguments.truncation_cutoff, "--truncation-cutoff"),
            (arguments.number, "--class"),
            (arguments.save_styles, "--save-styles"),
        ):
            if value is not None:
                raise UserError(f"{option} does not apply to --styles, which are drawn as they are")
    if arguments.save_styles is not None:
        new_file(arguments.save_styles, [".npy"], "--save-styles")
    if arguments.out is not None:
        must_name_folder(arguments.out)
        must_be_writable(arguments.out)
    opened, device = opened_on_device(arguments, "sample", argv)
    return _throughput(opened, device) if arguments.throughput else _draw(arguments, opened, device, seeds)


def _draw(arguments: argparse.Namespace, opened: "Opened", device: "torch.device", seeds: list[int]) -> int:
    from stylenat import weights
    from stylenat.evaluation.progress import ProgressLine
    from stylenat.evaluation.sample_files import write_array, write_lmdb
    from stylenat.evaluation.samples import ARRAY, GRID, SampleFolder
    from stylenat.pixels import NotFinite
    from stylenat.sampling import GivenStyles, Sampler, must_be_style_based
    from stylenat.styles_file import read_styles, save_styles
    from stylenat.training.memory import out_of_memory_is_one_line, smaller_batch

    if arguments.truncation_cutoff is not None and arguments.truncation_psi is None and opened.truncation_psi == 1:
        raise UserError(
            "--truncation-cutoff has no effect: the run does not truncate; add --truncation-psi, such as 0.5"
        )
    generator, batch = opened.generator, arguments.batch or opened.batch

    def sampler(batch: int) -> Sampler:
        psi = 1.0 if arguments.styles is not None else arguments.truncation_psi
        return opened.sampler(psi, batch, arguments.number, arguments.truncation_cutoff)

    origin, stem = opened.origin(sampler(batch)), "seed"
    styles = None
    if arguments.styles is not None or arguments.save_styles is not None:
        must_be_style_based(generator, "--styles" if arguments.styles is not None else "--save-styles")
    if arguments.styles is not None:
        styles, stem = read_styles(arguments.styles, generator), "style"
        seeds = list(range(len(styles)))
        sha256 = weights.checksum(arguments.styles)
        # The seed and the truncation have no part in them.
        of_styles = ("weights_sha256", "precision")
        origin = {name: origin[name] for name in of_styles if name in origin} | {"styles_sha256": sha256}
    as_files = arguments.format in ("png", "webp")
    out = SampleFolder(arguments.out, origin, arguments.format if as_files else "png", stem)

    def images(batch: int) -> Any:
        return sampler(batch) if styles is None else GivenStyles(sampler(batch), styles)

    def one() -> None:
        images(1).images(range(1))

    missing = out.missing(seeds) if as_files else sorted(seeds)
    there = len(seeds) - len(missing)
    line = ProgressLine("samples")

    def progress(done: int) -> None:
        line(there + done, len(seeds))

    try:
        with out_of_memory_is_one_line(lambda: batch, one, device, smaller_batch):
            source = images(batch)
            if as_files:
                out.write(source, missing, progress)
                out.write_grid(seeds[:GRID], generator.resolution)
            else:
                single = arguments.out / (ARRAY if arguments.format == "npy" else f"samples.{arguments.format}")
                if arguments.format == "npy":
                    write_array(single, source, missing, generator.resolution, progress)
                    out.write_note()
                else:
                    out.write_note()  # First: an interrupted LMDB is continued.
                    write_lmdb(single, source, missing, generator.resolution, origin, progress)
            if arguments.save_styles is not None:
                save_styles(arguments.save_styles, source.styles_at(seeds))
    except NotFinite as error:
        raise UserError(f"{opened.folder}: {error}") from error
    finally:
        line.close()
    kept = f" ({there} were there)" if there else ""
    first = "" if len(seeds) <= GRID else f" of the first {GRID}"
    what = f"{len(seeds)} images{kept} and grid.png{first} in {arguments.out}"
    if not as_files:
        what = f"{len(seeds)} images in {single}"
    print(printable(what))
    if arguments.save_styles is not None:
        print(printable(f"their styles in {arguments.save_styles}"))
    return 0


def _throughput(opened: "Opened", device: "torch.device") -> int:
    import torch

    from stylenat.evaluation.throughput import cost, rates
    from stylenat.sampling import sampled_in

    counted = cost(opened.experiment.value("train.generator"))
    side = opened.generator.resolution
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} thread(s)"
    print(f"{counted.parameters / 1e6:.2f} M parameters, {counted.macs / 1e9:.3g} GMACs an image of {side}x{side}")
    print(f"{name}, {sampled_in(opened.generator)}")
    print("batch       images/s    spread  calls  peak MiB")
    try:
        for rate in rates(opened.generator):
            numbers = f"{rate.mean:>14.2f}  ± {rate.spread:<6.2g} {rate.calls:>5}  {rate.peak:>8.0f}"
            print(f"{rate.batch:>5} {numbers}", flush=True)
    except torch.OutOfMemoryError:
        print("larger batches do not fit the memory")
    return 0
