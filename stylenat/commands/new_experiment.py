"""``tools/new_experiment.py``: from a folder of photos to an experiment that fits them and this machine."""

import argparse
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from registry import Registry, UserError
from registry.wording import printable
from stylenat.commands._arguments import Parser
from stylenat.commands._choices import FEW, SIDES, Machine, budget, memory, networks, wrapped
from stylenat.commands._command import command, experiments_folder
from stylenat.commands.prepare import prepared, report
from stylenat.files import whole_file

if TYPE_CHECKING:
    import torch

    from stylenat.training.settings import Training

EXAMPLES = """examples:
  python tools/new_experiment.py photos/ --resolution 64
  python tools/new_experiment.py cats.zip --resolution 128 --hours 48 --name cats

then:
  python tools/run.py --gin photos64.gin
"""
TEMPLATE = Path(__file__).parents[1] / "templates" / "experiment.txt"
LEAST = 10
"""Images without which there is nothing to learn."""
BLURRED = 100_000
"""Images that a training should see at least; gin/faces32.gin sees 160,000."""
IDLE = 0.2
"""The share of the cores' time from which other processes are named."""
SHARE_OF_MEMORY = 0.5
"""Of the main memory, where a CPU trains; other programs need some."""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="new_experiment",
        description="Look at images, prepare them, time this machine, and write a gin file that explains each choice.",
        epilog=EXAMPLES,
    )
    parser.add_argument("source", type=Path, metavar="PHOTOS", help="folder, zip, tar, LMDB or text file of paths")
    parser.add_argument("--resolution", type=int, required=True, choices=SIDES, help="side of the images in pixels")
    hours = "how long the training may take (default: %(default)g)"
    parser.add_argument("--hours", type=float, default=12, metavar="H", help=hours)
    parser.add_argument("--name", help="of the experiment (default: from the name of PHOTOS)")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="for the gin file (default: here)")
    data = "the images as they are trained on (default: data/NAME.lmdb)"
    parser.add_argument("--data", type=Path, metavar="DATA.lmdb", help=data)
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="what will train (default: a GPU, if any)"
    )
    workers = "processes that prepare (default: all cores)"
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help=workers)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    side, name = arguments.resolution, _checked_name(arguments)
    file, data = arguments.out / f"{name}.gin", arguments.data or Path("data") / f"{name}.lmdb"
    from stylenat.commands._plugins import loaded_plugins
    from stylenat.training.processes import pick_device

    registry, device = loaded_plugins([]), pick_device(arguments.device, "--device")
    result = prepared(arguments.source, data, [side], workers=arguments.workers)
    report(data, result)
    if result.count < LEAST:
        if not result.unchanged:  # Otherwise it would be taken for the images of the next call.
            shutil.rmtree(data)
        where = f"{data}, which an earlier command made," if result.unchanged else arguments.source
        raise UserError(
            f"{where} has {result.count} usable image(s), from which nothing can be learnt; give at least {LEAST}, "
            "better hundreds"
        )
    for line in _remarks(data, result.count, result.manifest.get("enlarged", 0)):
        print(printable(line))
    values = _chosen(registry, result.count, side, data, device) | {"file": printable(shlex.quote(str(file)))}
    pace = _pace(registry, values, device)
    values |= budget(result.count, values["batch"], arguments.hours, pace)
    text = wrapped(_template().substitute(values))
    _settings(registry, text)  # What is written is known to load.
    with whole_file(file) as written:
        written.write(text.encode())
    _say(file, values, arguments.hours, pace.others)
    return 0


def _checked_name(arguments: argparse.Namespace) -> str:
    """The experiment's, with the side. Raises UserError for options that cannot be used, before anything is made."""
    if arguments.workers < 1:
        raise UserError(f"--workers must be at least 1; got {arguments.workers}")
    if not 0 < arguments.hours < 10**5:
        raise UserError(f"--hours must be above 0 and below 1e5; got {arguments.hours:g}")
    given = arguments.name or re.sub(r"\W+", "_", arguments.source.resolve().stem.lower(), flags=re.ASCII).strip("_")
    if not re.fullmatch(r"\w[\w.-]{0,99}", given, re.ASCII):
        raise UserError("name the experiment with --name: letters, digits, and _ . - behind the first")
    name = f"{given}{arguments.resolution}"
    if not (arguments.out.is_dir() and os.access(arguments.out, os.W_OK)):
        raise UserError(f"--out: {arguments.out} is not a folder that can be written")
    if os.path.lexists(arguments.out / f"{name}.gin"):
        raise UserError(f"{arguments.out / name}.gin exists; remove it, or choose another --name or --out")
    return name


def _remarks(data: Path, count: int, enlarged: int) -> Iterator[str]:
    """What a look at the images says about them as training data."""
    from stylenat.data.inspection import Inspection

    if repeated := Inspection(data).repeated():
        yield f"{repeated} are exact copies of others; they count several times, and are learnt by heart first"
    if enlarged > count / 2:
        yield "most were enlarged, so samples will be as blurred as they are: a smaller --resolution suits them better"
    if count < FEW:
        yield f"{count} images are few: samples may copy them (tools/memorisation.py shows that)"


def _chosen(registry: Registry, count: int, side: int, data: Path, device: "torch.device") -> dict[str, Any]:
    """All values of the template but the budget's, which are placeholders."""
    from stylenat.data.loader import CACHE_BYTES
    from stylenat.training.build import indivisible, sized
    from stylenat.training.footprint import footprint
    from stylenat.training.memory import accumulate_for

    machine = _machine(device)
    kept = count * 3 * side**2 <= CACHE_BYTES
    values = networks(count, side, machine) | {
        "data": repr(str(data)),
        "data_reason": f"{count:,} images, prepared by tools/prepare.py, which crops the centre square.",
        "workers": 0 if kept else 4,
        "workers_reason": "The decoded images fit in memory." if kept else "Processes that decode ahead.",
        "file": "",
    }
    wanted = values["batch"]
    values |= memory(wanted, 1, False, 0, machine) | budget(count, wanted, 1, _unknown())
    settings = _settings(registry, _template().substitute(values))
    sizes = {name: size.network for name, size in sized(settings).items()}
    group = indivisible(sizes["generator"], sizes["discriminator"], wanted)
    for recompute in (False, True):
        found = footprint(settings, recompute=recompute)
        parts = accumulate_for(wanted, 0, found.at_once(machine.usable), group)
        if parts is not None:
            return values | memory(wanted, parts, recompute, found.image / 1e9, machine)
    raise UserError(f"a training at {side}x{side} does not fit {machine.usable:.3g} GB; choose a smaller --resolution")


def _pace(registry: Registry, values: dict[str, Any], device: "torch.device") -> Any:
    from stylenat.commands._pace import pace

    text = _template().substitute(values)
    if "augmentation.ada" in values["augmentation"]:
        text += "augmentation.ada.initial_p = 0.3\n"  # Where it will be after a while; at 0 it costs nothing.
    return pace(_settings(registry, text), values["interval"], device)


def _settings(registry: Registry, text: str) -> "Training":
    from registry import load_experiment

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.gin"
        path.write_text(text, encoding="utf-8")
        return load_experiment(registry, [path], search_path=[experiments_folder()]).get("train")()


def _machine(device: "torch.device") -> Machine:
    from stylenat.training.hardware import hardware

    found = hardware()
    if device.type == "cuda":
        gpu = found["gpus"][device.index or 0]
        return Machine(printable(gpu["name"]), True, gpu["memory_gib"] * 2**30 / 1e9)
    memory_gib = found["memory_gib"] or 8.0
    name = f"{found['cores']} CPU core{'s' if found['cores'] > 1 else ''}"
    return Machine(name, False, SHARE_OF_MEMORY * memory_gib * 2**30 / 1e9)


def _unknown() -> Any:
    from stylenat.commands._choices import Pace

    return Pace(1.0, 1.0)


def _template() -> Template:
    return Template(TEMPLATE.read_text(encoding="utf-8"))


def _say(file: Path, values: dict[str, Any], hours: float, others: float) -> None:
    print(f"written: {printable(file)}")
    print(f"expected: {values['hours']} hours for {values['iterations']:,} iterations of {values['batch']} images")
    if others > IDLE:
        print(f"note: other processes used {others:.0%} of the cores meanwhile; without them it is faster")
    if values["iterations"] * values["batch"] < BLURRED:
        print(
            f"note: that is little; samples of fewer than {BLURRED:,} images of training are usually blurred: give "
            f"more --hours than {hours:g}, a smaller --resolution, or use a GPU"
        )
    print(f"  python tools/run.py --gin {values['file']}")
