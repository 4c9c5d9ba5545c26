"""The console script ``stylenat``: the same commands as ``tools/``, where only the wheel is installed."""

import sys
from collections.abc import Sequence
from importlib import import_module

from registry.wording import did_you_mean, printable
from stylenat.commands import _streams

COMMANDS = {
    "run": "train the experiment of gin files",
    "stages": "train experiments that continue each other",
    "ablate": "train every variant of an ablation",
    "compare": "compare runs in tables, plots and a report",
    "prepare": "make an LMDB of images",
    "new_experiment": "write an experiment for your own photos and this machine",
    "inspect_data": "show, check and export an LMDB of images",
    "evaluate": "compute metrics of a generator",
    "sample": "draw images from a run, or measure its speed",
    "mix": "draw a table of style mixtures",
    "interpolate": "make a video of walks between samples",
    "attention_maps": "show what the attention heads of a generator look at",
    "invert": "find the styles of a photo",
    "export": "write a generator as a file to ship",
    "memorisation": "find the training images that are nearest to samples",
    "serve": "show a generator on a local page",
    "import_weights": "read a published system's checkpoint",
    "reproduce": "measure published weights beside the published number",
    "export_weights": "write weights under a published system's names",
    "show_augmentations": "draw the effect of an experiment's augmentation",
    "check_gpu": "check exactness, speed and memory on a GPU",
    "new_plugin": "write a plugin to start from",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; without one, lists them."""
    _streams.prepare()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: stylenat COMMAND ...\n")
        print("\n".join(f"  {name:<20}{doc}" for name, doc in COMMANDS.items()))
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        guess = did_you_mean(arguments[0], COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        print(f"error: there is no command {printable(arguments[0])}{guess}", file=sys.stderr)
        return 2
    return import_module(f"stylenat.commands.{arguments[0]}").main(arguments[1:])
