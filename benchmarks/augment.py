"""ADA's default preset on a CPU, beside the same transforms as a stock ``kornia.augmentation.AugmentationSequential``.

    python benchmarks/augment.py [--threads 2] [--repeats 7] [--batch 16] [--side 256] [--step gin/quickstart.gin]

Every transform fires on every image (p = 1). ``--step`` adds what share of an experiment's iteration it takes.
"""

import argparse
from collections.abc import Callable

import kornia.augmentation as K
import torch
from measure import alternating, gflops, product
from rich.console import Console
from rich.table import Table
from torch import Tensor

from plugins.augmentations.ada import AdaptiveAugmentation
from registry import load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

PRESETS = ("bgc", "bgcfnc")


def stock() -> K.AugmentationSequential:
    """``bgc`` as Kornia has it: a warp or a pass a transform, uniform draws of the same spread."""
    border = {"padding_mode": "reflection", "p": 1.0}
    return K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomRotation90((0, 3), p=1.0),
        K.RandomAffine(0.0, translate=(0.125, 0.125), **border),
        K.RandomAffine(0.0, scale=(0.76, 1.32), **border),
        K.RandomAffine(180.0, **border),
        K.RandomAffine(0.0, scale=(0.76, 1.32, 0.76, 1.32), **border),
        K.RandomAffine(180.0, **border),
        K.RandomAffine(0.0, translate=(0.25, 0.25), **border),
        K.RandomBrightness((0.8, 1.2), p=1.0),
        K.RandomContrast((0.5, 2.0), p=1.0),
        K.RandomInvert(p=0.5),
        K.RandomHue((-0.5, 0.5), p=1.0),
        K.RandomSaturation((0.25, 4.0), p=1.0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--step", metavar="FILE", help="gin file whose iteration is timed, without augmentation")
    parser.add_argument("--bind", action="append", default=[], metavar="'SELECTOR.PARAMETER = VALUE'")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    pixels = torch.rand(arguments.batch, 3, arguments.side, arguments.side)
    sides = {"stock Kornia": on(stock(), pixels)}
    for preset in PRESETS:
        sides[f"ada {preset}"] = on(ada(preset), pixels)
    backward = {f"{name}, backward too": with_backward(call, pixels) for name, call in sides.items()}
    times = alternating(sides | backward | {"product": product()}, arguments.repeats)

    shape = f"{arguments.batch} x 3 x {arguments.side} x {arguments.side}"
    table = Table("side", "forward: min / median", "times faster", "forward + backward", "times faster", title=shape)
    for name in sides:
        cells = [name]
        for suffix in ("", ", backward too"):
            base, own = times["stock Kornia" + suffix], times[name + suffix]
            # Stock Kornia has the transforms of bgc only.
            ratio = f"{base.minimum / own.minimum:.1f} / {base.median / own.median:.1f}" if "bgcf" not in name else "-"
            cells += [str(own), ratio]
        table.add_row(*cells)
    console = Console()
    console.print(table)
    console.print(f"reference: {gflops(times['product']):.0f} GFLOP/s with {arguments.threads} threads")
    if arguments.step:
        console.print(share(arguments.step, arguments.bind, arguments.repeats), soft_wrap=True)


def ada(preset: str) -> Callable[[Tensor], Tensor]:
    augmentation = AdaptiveAugmentation(preset, initial_p=1.0, policy="fixed")
    random = torch.Generator().manual_seed(0)
    return lambda images: augmentation(images, random)


def on(augment: Callable[[Tensor], Tensor], pixels: Tensor) -> Callable[[], Tensor]:
    return lambda: augment(pixels)


def with_backward(call: Callable[[], Tensor], pixels: Tensor) -> Callable[[], None]:
    def run() -> None:
        pixels.requires_grad_()
        call().sum().backward()
        pixels.grad = None
        pixels.requires_grad_(False)

    return run


def share(gin_file: str, bindings: list[str], repeats: int) -> str:
    """Of an iteration's time: two augmentations forward (reals and detached fakes), one with its backward pass."""
    bindings = [*bindings, "train.augmentation = @augmentation.none()"]
    experiment = load_experiment(load_plugins([], core=CORE), [gin_file], bindings, search_path=[experiments_folder()])
    settings = experiment.get("train")()
    state = TrainingState(settings, torch.device("cpu"))
    real = torch.randn(settings.batch_size, 3, settings.dataset.resolution, settings.dataset.resolution)

    def step() -> None:
        iteration(state, iter([(real, None)]))
        state.step += 1

    forward = on(ada("bgc"), real)
    times = alternating({"step": step, "forward": forward, "both": with_backward(forward, real)}, repeats)
    cost = 2 * times["forward"].minimum + times["both"].minimum
    part = cost / (cost + times["step"].minimum)
    return (
        f"{gin_file}, {settings.batch_size} images of {real.shape[-1]}: an iteration without augmentation "
        f"{times['step']}, bgc at p = 1 {1000 * cost:.1f} ms, {part:.1%} of both (minima)"
    )


if __name__ == "__main__":
    main()
