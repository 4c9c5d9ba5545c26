"""``tools/sample.py``: images from a run or checkpoint."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from registry import UserError
from registry.wording import printable
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command

EXAMPLES = """examples:
  python tools/sample.py runs/quickstart-1a2b3c4d --seeds 0-15 --out samples
  python tools/sample.py runs/NAME/checkpoints/step-000001000 --seeds 3,7 --truncation-psi 0.7 --out samples
  python tools/sample.py runs/NAME --seeds 0-49999 --device cuda --batch 64 --out samples50k

--seeds are sample indices: image 3 is the fourth of the run's sample grids and metrics. Existing files are kept, so the
same command continues after an interruption.
"""

MOST = 1_000_000
"""Images a command."""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sample",
        description="Draw samples from a run's EMA generator: one PNG for each, and a grid of the first 64.",
        epilog=EXAMPLES,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, one of its checkpoints, or imported weights")
    parser.add_argument("--seeds", default="0-15", metavar="A-B,C", help="sample indices (default: %(default)s)")
    parser.add_argument("--truncation-psi", type=float, metavar="PSI", help="1: no truncation (default: the run's)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the images")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="images at once (default: as in the run, at most 16; other numbers may round pixels differently)",
    )
    parser.add_argument(
        "--class", dest="number", type=int, metavar="K", help="class-conditional generator: only class K"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    parser.add_argument(
        "--average",
        metavar="NAME",
        help="which average of the weights: ema (default), ema-0.100 or the like, generator for none",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    seeds = parsed_seeds(arguments.seeds)
    from registry import load_experiment
    from stylenat.commands._plugins import loaded_plugins

    if arguments.truncation_psi is not None and not math.isfinite(arguments.truncation_psi):
        raise UserError(f"--truncation-psi must be finite; got {arguments.truncation_psi}")
    if arguments.batch is not None and arguments.batch < 1:
        raise UserError(f"--batch must be at least 1; got {arguments.batch}")

    from stylenat import weights
    from stylenat.weights import classes_of_weights

    folder = weights.weights_folder(arguments.run)
    config = weights.config_of(folder)
    registry = loaded_plugins(arguments.plugin, [config.parent], "sample", argv)
    experiment = load_experiment(registry, [str(config)])

    import torch

    from stylenat.evaluation.progress import ProgressLine
    from stylenat.evaluation.samples import GRID, SampleFolder
    from stylenat.pixels import NotFinite
    from stylenat.sampling import Sampler, default_batch, sampler_of
    from stylenat.training.forward import use_tf32
    from stylenat.training.memory import out_of_memory_is_one_line, smaller_batch
    from stylenat.training.processes import pick_device

    # All that the bits of an image depend on is as in the run.
    if (threads := experiment.value("train.threads")) is not None:
        torch.set_num_threads(threads)
    device = pick_device(arguments.device, "--device")
    use_tf32(experiment.value("train.tf32"))
    seed, psi, batch_size = (experiment.value(f"train.{name}") for name in ("seed", "truncation_psi", "batch_size"))
    psi = psi if arguments.truncation_psi is None else arguments.truncation_psi
    generator, network = weights.generator_of(folder, experiment.value("train.generator"), arguments.average)
    checksum = weights.manifest_of(folder)["sha256"][f"{network}.safetensors"]
    classes = classes_of_weights(folder, generator)
    pixel_space = experiment.value("train.pixel_space")
    origin = {"weights_sha256": checksum, "seed": seed, "truncation_psi": psi}
    if classes is not None:
        origin["labels"] = "as in the data" if arguments.number is None else f"class {arguments.number}"
    out = SampleFolder(arguments.out, origin)
    missing = out.missing(seeds)
    there = len(seeds) - len(missing)

    def sampler(batch: int) -> Sampler:
        made = sampler_of(generator.to(device), seed, psi, batch, classes, pixel_space)
        return made if arguments.number is None else made.of_class(arguments.number)

    def one() -> None:
        sampler(1)(0, 1)

    batch, line = arguments.batch or default_batch(batch_size), ProgressLine("samples")
    try:
        with out_of_memory_is_one_line(lambda: batch, one, device, smaller_batch):
            out.write(sampler(batch), missing, lambda done: line(there + done, len(seeds)))
        out.write_grid(seeds[:GRID], generator.resolution)
    except NotFinite as error:
        raise UserError(f"{folder}: {error}") from error
    finally:
        line.close()
    kept = f" ({there} were there)" if there else ""
    first = "" if len(seeds) <= GRID else f" of the first {GRID}"
    print(printable(f"{len(seeds)} images{kept} and grid.png{first} in {arguments.out}"))
    return 0


def parsed_seeds(text: str, option: str = "--seeds") -> list[int]:
    """``0-3,7`` to [0, 1, 2, 3, 7], each once. Raises UserError for anything else."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers = [first, last] if dash else [first]
        if not all(n.isdecimal() and len(n) < 19 for n in numbers) or int(numbers[-1]) < int(first):
            raise UserError(f"{option} takes numbers and ranges such as 0-15 or 3,7; got {text!r}")
        if len(seeds) + int(numbers[-1]) - int(first) >= MOST:
            raise UserError(f"{option} {text} may be more than {MOST} images; ask for fewer at a time")
        seeds |= dict.fromkeys(range(int(first), int(numbers[-1]) + 1))
    return list(seeds)
