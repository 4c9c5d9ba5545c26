"""What every command that draws from a trained generator shares: its arguments, and the generator on its device."""

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from stylenat.trained import Opened

PRECISIONS = ("float32", "bf16")
DEVICES = ("auto", "cpu", "cuda", "mps")
FILES = {
    f".{suffix}"
    for suffix in "csv gif gz html jpeg jpg json jsonl lmdb md mov mp4 npy npz onnx pdf pkl png pt pt2 pth safetensors "
    "svg tar tex webm webp zip".split()
}
"""What names of files end in; a name such as ``samples.v2`` is a folder's."""
MOST, MOST_AT_ONCE = 1_000_000, 4096
"""Images a command, and in one batch: memory that runs out on a CPU ends the process without a word."""


def add_run(parser: argparse.ArgumentParser) -> None:
    """RUN, --device, --plugin and --average."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, one of its checkpoints, or imported weights")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="(default: %(default)s)")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    parser.add_argument(
        "--average",
        metavar="NAME",
        help="which average of the weights: ema (default), ema-0.100 or the like, generator for none",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """--precision."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the generator: bf16 is faster where the device has bfloat16 arithmetic; pixels differ (default: "
        "%(default)s)",
    )


def to_precision(generator: "nn.Module", precision: str, device: "torch.device") -> None:
    """Changes the generator for --precision, and says on stderr where that is not faster."""
    from stylenat.precision import lower

    if precision == "bf16" and (reason := lower(generator, device)):
        print(f"note: --precision bf16 is no faster here: {reason}", file=sys.stderr)


def add_truncation(parser: argparse.ArgumentParser) -> None:
    """--truncation-psi and --class."""
    parser.add_argument("--truncation-psi", type=float, metavar="PSI", help="1: no truncation (default: the run's)")
    parser.add_argument(
        "--class", dest="number", type=int, metavar="K", help="class-conditional generator: only class K"
    )


def check_batch_argument(batch: int | None) -> None:
    """Raises UserError for a number of images at once that is none."""
    if batch is not None and not 1 <= batch <= MOST_AT_ONCE:
        raise UserError(f"--batch must be 1 to {MOST_AT_ONCE}; got {batch}")


def check_truncation_argument(psi: float | None) -> None:
    """Raises UserError for a number that is not finite."""
    if psi is not None and not math.isfinite(psi):
        raise UserError(f"--truncation-psi must be finite; got {psi}")


def opened_on_device(
    arguments: argparse.Namespace, prog: str, argv: Sequence[str] | None
) -> tuple["Opened", "torch.device"]:
    """The generator of RUN on its device; threads and TF32 as in the run, since the bits of an image depend on them.

    Raises:
        UserError: as ``trained.opened``; there is no such device.
    """
    import torch

    from stylenat.reused_memory import reuse_freed_memory
    from stylenat.trained import opened
    from stylenat.training.forward import use_tf32
    from stylenat.training.processes import pick_device

    found = opened(arguments.run, arguments.average, arguments.plugin, prog, argv)
    if (threads := found.experiment.value("train.threads")) is not None:
        torch.set_num_threads(threads)
    device = pick_device(arguments.device, "--device")
    if device.type == "cpu":
        reuse_freed_memory()
    use_tf32(found.experiment.value("train.tf32"))
    found.generator.to(device)
    to_precision(found.generator, getattr(arguments, "precision", "float32"), device)
    return found, device


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


def must_name_folder(path: Path, option: str = "--out") -> None:
    """Raises UserError for a new folder that is named like a file: whoever asks for ``mix.png`` expects a picture."""
    if path.suffix.lower() in FILES and not path.is_dir():
        raise UserError(f"{option} {path}: a folder is made, not a {path.suffix} file; name it without {path.suffix}")


def new_folder(path: Path) -> Path:
    """An output folder that is to be written. Raises UserError where it exists and is not an empty folder, it is named
    like a file, or nothing can be written there."""
    must_name_folder(path)
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not an empty folder; choose another --out")
    must_be_writable(path)
    return path


def must_be_writable(path: Path, option: str = "--out") -> None:
    """Raises UserError where nothing can be written at this path, before anything is computed for it."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise UserError(f"{option} {path}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: the folder {there} cannot be written to")


@contextmanager
def new_folder_at(path: Path) -> Iterator[Path]:
    """A folder to fill, whose files appear at ``path`` when all are complete. An ``OSError`` becomes UserError."""
    from stylenat.files import whole_folder

    try:
        with whole_folder(path) as folder:
            yield folder
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def new_file(path: Path, suffixes: Sequence[str] = (), option: str = "--out") -> Path:
    """An output file that is to be written. Raises UserError where it exists, or its suffix is not one of these."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{option} {path} must end in {', '.join(suffixes)}")
    if os.path.lexists(path):
        raise UserError(f"{path} exists; choose another {option}")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to write {path.name} to; make it first")
    must_be_writable(path.parent, option)
    return path


def note_of(origin: dict[str, Any]) -> bytes:
    """The text of a note that lies beside images: what they were made from."""
    import json

    return json.dumps({"format_version": 1, **origin}, indent=2).encode() + b"\n"
