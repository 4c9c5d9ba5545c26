"""``tools/import_weights.py``: weights of the published systems, or of this project, as a folder of ours."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from stylenat.commands._arguments import Parser
from stylenat.commands._command import command, experiments_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stylenat.interfaces import CheckpointLayout

EXAMPLES = """examples:
  python tools/import_weights.py FFHQ256_940k_flip.pt --gin gin/ffhq256.gin --out weights/ffhq256
  python tools/import_weights.py FFHQ_256.pt --gin gin/styleswin_ffhq256.gin --out weights/styleswin256
  python tools/import_weights.py ffhq-64x64.pkl --gin gin/r3gan_ffhq64.gin --out weights/r3gan64
  python tools/sample.py weights/ffhq256 --seeds 0-15 --out samples
  python tools/run.py --gin mine.gin --bind "train.initial_weights = 'weights/ffhq256'"
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="import_weights",
        description="Read a checkpoint of a published system, find its layout, and write its weights as safetensors. "
        "Nothing in the file is executed. report.json in DIR lists every key.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help=".pt, .safetensors, .npz, .pkl, or a folder of imported weights",
    )
    parser.add_argument("--gin", action="append", default=[], metavar="FILE", help="the experiment of the weights")
    parser.add_argument("--bind", action="append", default=[], metavar="'SELECTOR.PARAMETER = VALUE'")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    return import_weights(parser().parse_args(argv))


def import_weights(arguments: argparse.Namespace) -> int:
    """Imports, and prints what became of the keys. Raises UserError for what does not fit the experiment."""
    from registry import load_experiment
    from registry.wording import printable
    from stylenat.commands._generator import must_name_folder
    from stylenat.commands._plugins import loaded_plugins

    must_name_folder(arguments.out)
    registry = loaded_plugins(arguments.plugin)
    experiment = load_experiment(registry, arguments.gin, arguments.bind, search_path=[experiments_folder()])

    import torch

    from stylenat import weights
    from stylenat.pixels import must_be_of_space
    from stylenat.reference import OWN, check_dimensions, layout_of, layouts, space_of, to_ours
    from stylenat.training.run import ENVIRONMENT, environment

    stored, known = weights.read(arguments.checkpoint), layouts(registry)
    space = experiment.value("train.pixel_space")
    with torch.device("meta"):
        networks = {name: experiment.value(f"train.{name}")() for name in ("generator", "discriminator")}
    states, report, used_layouts = {}, {}, {}
    for name, state in stored.states.items():
        name = name or _bare(state, networks["discriminator"], known.values())
        kind = "generator" if name == "ema" else name
        layout = OWN if _names(state, networks[kind]) else layout_of(state, registry, kind)
        must_be_of_space(stored.pixel_space or space_of(known.get(layout)), space, str(arguments.checkpoint))
        if layout == OWN:
            weights.check_resolution(arguments.checkpoint, networks[kind])
        else:
            check_dimensions(state, networks[kind], known[layout], f"{name} of {arguments.checkpoint}")
        found = to_ours(state, networks[kind], known.get(layout))
        states[name] = found.check(f"{name} of {arguments.checkpoint} (layout {layout})")
        weights.check_finite(states[name], networks[kind], str(arguments.checkpoint))
        print(
            f"{name}: layout {layout}, {len(state)} keys: {len(found.used)} used, {len(found.constants)} constants, "
            f"{len(found.missing)} missing, {len(found.left_over)} left over"
        )
        for key in found.left_over:
            print(f"  left over: {printable(key)}")
        used_layouts[name] = layout
        keys = ("used", "constants", "missing", "left_over")
        report[name] = {"layout": layout} | {key: getattr(found, key) for key in keys}

    source = arguments.checkpoint
    manifest = {
        "pixel_space": space,
        "source": source.name,
        "source_sha256": weights.checksum(source) if source.is_file() else None,
        "layouts": used_layouts,
        "container": stored.container,
    }
    report["skipped"] = stored.skipped
    report["modules"] = {
        name: {path: asdict(module) for path, module in modules.items()} for name, modules in stored.modules.items()
    }
    made_with = environment(experiment.value("train.seed"), experiment.plugins, registry.plugin_files)
    texts = {
        "config.gin": experiment.operative_text(),
        "report.json": json.dumps(report, indent=2) + "\n",
        ENVIRONMENT: json.dumps(made_with, indent=2) + "\n",
    }
    weights.write(arguments.out, states, texts, manifest)
    print(f"{', '.join(states)} in {arguments.out}")
    return 0


def _bare(state: "Mapping[str, Tensor]", discriminator: "nn.Module", layouts: "Iterable[CheckpointLayout]") -> str:
    """What a file with one network's tensors alone holds: a discriminator, or the generator that one samples from."""
    recognised = any("discriminator" in layout.networks and layout.recognises(state) for layout in layouts)
    return "discriminator" if recognised or _names(state, discriminator) else "ema"


def _names(state: "Mapping[str, Tensor]", network: "nn.Module") -> bool:
    """Whether the state is in this project's own names; some of them may be those of another system, too."""
    own = set(network.state_dict())
    return 2 * len(own & set(state)) > len(own)
