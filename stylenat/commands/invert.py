"""``tools/invert.py``: the styles of a photo."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import UserError
from registry.wording import printable
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command
from stylenat.commands._generator import add_run, new_folder, new_folder_at, note_of, opened_on_device

if TYPE_CHECKING:
    from torch import Tensor

    from stylenat.trained import Opened

EXAMPLES = """examples:
  python tools/invert.py runs/NAME photo.jpg --out inverted
  python tools/invert.py runs/NAME --sample 3 --out again
  python tools/invert.py runs/NAME photo.jpg --space w --steps 1000 --video mp4 --out inverted
  python tools/invert.py runs/NAME photo.jpg --vgg16-weights vgg16-397923af.pth \\
      --lpips-weights weights-vgg16-lpips.pth --out inverted
  python tools/sample.py runs/NAME --styles inverted/styles.npy --out drawn

The photo's centre square is scaled to the generator's resolution; align faces as in the training data first. The loss
is the squared difference of pixels and, with the two files of LPIPS, the perceptual distance (docs/evaluation.md names
them). DIR holds target.png, inverted.png, grid.png (both), styles.npy, inversion.json and, with --video, the way there.
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="invert", description="Find the styles that draw a photo.", epilog=EXAMPLES)
    add_run(parser)
    parser.add_argument("photo", type=Path, nargs="?", metavar="PHOTO", help="an image")
    parser.add_argument("--sample", type=int, metavar="SEED", help="invert the generator's own sample instead")
    parser.add_argument(
        "--space", choices=["w", "w+"], default="w+", help="one style, or one a layer (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=500, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--vgg16-weights", metavar="FILE", help="LPIPS's VGG16, for the perceptual loss")
    parser.add_argument("--lpips-weights", metavar="FILE", help="LPIPS's linear layers")
    parser.add_argument("--class", dest="number", type=int, metavar="K", help="start from samples of class K")
    parser.add_argument("--video", choices=["gif", "mp4", "webm"], help="also write the way there")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if (arguments.photo is None) == (arguments.sample is None):
        raise UserError("give either a PHOTO or --sample SEED")
    if arguments.sample is not None and not 0 <= arguments.sample < 10**18:
        raise UserError(f"--sample takes a sample index from 0; got {arguments.sample}")
    if not 1 <= arguments.steps <= 10**6:
        raise UserError(f"--steps must be 1 to {10**6}; got {arguments.steps}")
    if (arguments.vgg16_weights is None) != (arguments.lpips_weights is None):
        raise UserError("the perceptual loss needs both --vgg16-weights and --lpips-weights")
    new_folder(arguments.out)

    from stylenat import video

    film = arguments.out / f"inversion.{arguments.video}" if arguments.video else None
    if film is not None:
        video.check(film)
    opened, _ = opened_on_device(arguments, "invert", argv)

    import torch

    from stylenat.evaluation.progress import ProgressLine
    from stylenat.grids import image_grid, save_png
    from stylenat.inversion import invert
    from stylenat.sampling import must_be_style_based
    from stylenat.styles_file import save_styles

    must_be_style_based(opened.generator, "inversion")
    sampler = opened.sampler(1.0, number=arguments.number)
    if arguments.sample is not None:
        target = sampler.at([arguments.sample])[0].cpu()
    else:
        target = read_photo(arguments.photo, opened.generator.resolution)
    perceptual = _perceptual(opened, arguments)
    print("loss: pixels and LPIPS" if perceptual else "loss: pixels alone (LPIPS needs its two files of weights)")
    frames: list[Tensor] = []
    every = max(1, arguments.steps // 120)
    line = ProgressLine("inversion", unit="steps")

    def watch(step: int, image: "Tensor") -> None:
        line(step, arguments.steps)
        if film is not None and step % every == 0:
            shown = image.round().clamp(0, 255).to(torch.uint8).cpu()
            frames.append(video.enlarged(video.tiled(torch.stack([target, shown]), 2)))

    try:
        found = invert(sampler, target, arguments.steps, arguments.space == "w+", perceptual, watch=watch)
    finally:
        line.close()
    image = sampler.of_styles(found.styles[None])[0].cpu()
    facts: dict[str, Any] = {
        "weights_sha256": opened.sha256,
        "target": f"sample {arguments.sample}" if arguments.photo is None else arguments.photo.name,
        "space": arguments.space,
        "steps": arguments.steps,
        "loss": "pixels and lpips" if perceptual else "pixels",
        "psnr_db": round(found.psnr, 3) if found.psnr < float("inf") else None,
        "smallest_loss": found.loss,
    }
    with new_folder_at(arguments.out) as folder:
        for name, picture in (("target", target), ("inverted", image)):
            save_png(folder / f"{name}.png", picture)
        save_png(folder / "grid.png", image_grid(torch.stack([target, image]), 2))
        save_styles(folder / "styles.npy", found.styles[None])
        (folder / "inversion.json").write_bytes(note_of(facts))
        if film is not None:
            video.write(folder / film.name, frames, 30)
    print(printable(f"PSNR {found.psnr:.1f} dB; styles.npy, grid.png and inversion.json in {arguments.out}"))
    return 0


def read_photo(path: Path, resolution: int) -> "Tensor":
    """uint8 [3, resolution, resolution]: the centre square, antialiased. Raises UserError for what does not decode."""
    import numpy as np
    import torch

    from stylenat.data.images import Unusable, decode, square
    from stylenat.files import read_bounded

    try:
        image = decode(read_bounded(path, 2**30))
    except (OSError, ValueError, Unusable) as error:
        raise UserError(f"{path} cannot be used: {getattr(error, 'strerror', None) or error}") from error
    return torch.from_numpy(np.array(square(image, resolution, "center", "lanczos"))).permute(2, 0, 1).contiguous()


def _perceptual(opened: "Opened", arguments: argparse.Namespace) -> Any:
    """LPIPS as metric ``ppl`` has it; None without weights. Raises UserError where they cannot be used."""
    if arguments.vgg16_weights is None:
        return None
    metric = opened.registry.find("metric.ppl").load()
    made = metric(vgg16_weights=arguments.vgg16_weights, lpips_weights=arguments.lpips_weights, resize=0)
    made.check()
    return made.needs.lpips
