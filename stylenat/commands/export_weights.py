"""``tools/export_weights.py``: weights of ours under the names of a published system."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylenat.commands._arguments import Parser
from stylenat.commands._command import command, experiments_folder
from stylenat.files import whole_file

EXAMPLES = """examples:
  python tools/export_weights.py runs/ffhq256-1a2b3c4d ffhq256.pt
  python tools/export_weights.py weights/ffhq256 older.pt --layout stylenat_older
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="export_weights",
        description="Write g, d and g_ema in the layout of a published system, constants included, so that its own "
        "code loads them. Imported weights are exported bit for bit in the layout they came from.",
        epilog=EXAMPLES,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, one of its checkpoints, or imported weights")
    parser.add_argument("out", type=Path, metavar="OUT.pt", help="a new file")
    parser.add_argument(
        "--layout", metavar="NAME", help="layout of the generator (default: as imported, or the first that fits)"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from registry import UserError, load_experiment
    from registry.wording import printable
    from stylenat.commands._plugins import loaded_plugins

    if arguments.out.exists():
        raise UserError(f"{arguments.out} exists; choose another file")

    import torch

    from stylenat import checkpoint, weights
    from stylenat.reference import OWN, layout_for, layouts, space_of, to_theirs

    folder = weights.weights_folder(arguments.run)
    config = weights.config_of(folder)
    registry = loaded_plugins(arguments.plugin, [config.parent], "export_weights", argv)
    experiment = load_experiment(registry, [str(config)], search_path=[experiments_folder()])
    manifest, known = checkpoint.verify(folder), layouts(registry)
    if arguments.layout is not None and arguments.layout not in known:
        raise UserError(f"there is no layout {arguments.layout!r}; there are {', '.join(known)}")

    exported: dict[str, Any] = {}
    spaces = set()
    for name, theirs in (("generator", "g"), ("discriminator", "d"), ("ema", "g_ema")):
        if not (folder / f"{name}.safetensors").exists():
            continue
        kind = "generator" if name == "ema" else name
        network = experiment.value(f"train.{kind}")()
        imported = manifest.get("layouts", {}).get(name, OWN)
        chosen = arguments.layout if kind == "generator" else None
        chosen = chosen or (imported if imported != OWN else layout_for(network, kind, registry))
        if chosen not in known:
            raise UserError(
                f"the layout {chosen} that {folder} came from is not installed; name its plugin with --plugin"
            )
        state = checkpoint.weights(folder, name)
        weights.check_finite(state, network, str(folder / f"{name}.safetensors"))
        constants = known[chosen].constants(network)
        exported[theirs] = to_theirs(state, network, known[chosen]) | {k: v.clone() for k, v in constants.items()}
        spaces.add(space_of(known[chosen]))
        print(f"{theirs}: layout {printable(chosen)}, {len(exported[theirs])} keys")
    space = manifest.get("pixel_space") or "imagenet"
    if spaces != {space}:  # The files of a system do not say its own.
        exported["pixel_space"] = space
    container = manifest.get("container")
    try:
        with whole_file(arguments.out) as file:
            torch.save({container: exported} if container else exported, file)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write {arguments.out}: {getattr(error, 'strerror', None) or error}") from error
    print(f"written to {arguments.out}")
    return 0
