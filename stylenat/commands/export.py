"""``tools/export.py``: a generator as files to ship, compared with the generator when they are written."""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import UserError
from registry.wording import printable
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command
from stylenat.commands._generator import check_batch_argument, must_be_writable, must_name_folder, new_folder_at

if TYPE_CHECKING:
    from stylenat.exporting import Graph
    from stylenat.trained import Opened

EXAMPLES = """examples:
  python tools/export.py runs/NAME exported
  python tools/export.py runs/NAME onnx --format onnx
  python tools/export.py runs/NAME onnx-1 --format onnx --batch 1
  python tools/export.py weights/ffhq256 shipped --format safetensors --licence 'CC BY-NC 4.0'

--format torch writes programs of torch.export and model.json: stylenat.load(OUT) needs PyTorch alone, and
torch.export.load(OUT/synthesis.pt2) needs no stylenat. --format onnx writes the same graphs with ONNX's own operators
(pip install 'stylenat[onnx]'). --format safetensors writes weights and config.gin, for this package. A style-based
generator is two graphs: mapping (latents, and labels if there are classes, to w) and synthesis (styles [batch,
num_styles, style_dim] to images); any other is one, generator. Images are float32 pixels from 0 to 255, neither rounded
nor clamped. README.md is the model card. What was written is loaded again and compared with the network.
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="export", description="Write a generator as files to ship.", epilog=EXAMPLES)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, one of its checkpoints, or imported weights")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument(
        "--format", choices=["torch", "onnx", "safetensors"], default="torch", help="(default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="a fixed number of images at once (default: any)")
    parser.add_argument("--licence", metavar="TEXT", help="of the weights, for the model card")
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
    out: Path = arguments.out
    if os.path.lexists(out):
        raise UserError(f"{out} exists; choose another folder")
    must_name_folder(out, "OUT")
    must_be_writable(out, "OUT")
    check_batch_argument(arguments.batch)
    if arguments.batch is not None and arguments.format == "safetensors":
        raise UserError("--batch applies to graphs; leave it out with --format safetensors")
    if arguments.format == "onnx" and (
        missing := [n for n in ("onnx", "onnxscript", "onnxruntime") if not find_spec(n)]
    ):
        raise UserError(f"--format onnx needs {', '.join(missing)}: pip install 'stylenat[onnx]'")

    from stylenat import weights
    from stylenat.trained import opened

    found = opened(arguments.run, arguments.average, arguments.plugin, "export", argv)
    manifest = weights.manifest_of(found.folder)
    if arguments.format == "safetensors":
        _weights(found, manifest, arguments)
        return 0
    with new_folder_at(out) as folder:
        _graphs(found, manifest, arguments, folder, _torch if arguments.format == "torch" else _onnx)
    print(printable(f"written to {out}"))
    return 0


def _graphs(
    opened: "Opened",
    manifest: Mapping[str, Any],
    arguments: argparse.Namespace,
    folder: Path,
    write: Callable[..., Any],
) -> None:
    """Writes and compares. Raises UserError where an export disagrees with the network."""
    from stylenat.commands._model_card import model_card
    from stylenat.exporting import TOLERANCE, agreement, graphs_of, program_of

    graphs = graphs_of(opened)
    files, calls = {}, {}
    for graph in graphs:
        print(f"{graph.name}: tracing", flush=True)
        program = program_of(opened, graph, arguments.batch)
        print(f"{graph.name}: writing", flush=True)
        name, calls[graph.name] = write(program, graph, folder, arguments.batch)
        files[name] = f"`{', '.join(graph.inputs)}` to `{graph.output}`"
    batches = [arguments.batch] if arguments.batch else [1, 2, 5]
    found = agreement(opened, graphs, calls, batches)
    for graph in graphs:
        shown = f"{graph.name}: differs from the network by {found[graph.name]:.2g} at most"
        if not found[graph.name] <= TOLERANCE:
            raise UserError(f"{shown}, more than {TOLERANCE:g}; nothing is written")
        print(f"{shown} (batches of {', '.join(map(str, batches))})")
    (folder / "model.json").write_text(json.dumps(_facts(opened, arguments.batch), indent=2) + "\n", encoding="utf-8")
    files["model.json"] = "sizes, seed, and the mean style that truncation pulls towards"
    card = model_card(opened, manifest, arguments.licence, files)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _torch(program: Any, graph: "Graph", folder: Path, batch: int | None) -> tuple[str, Callable[..., Any]]:
    import torch

    path = folder / f"{graph.name}.pt2"
    torch.export.save(program, path)
    return path.name, torch.export.load(path).module()


def _onnx(program: Any, graph: "Graph", folder: Path, batch: int | None) -> tuple[str, Callable[..., Any]]:
    import onnxruntime
    import torch

    from stylenat.exporting import write_onnx

    path = folder / f"{graph.name}.onnx"
    write_onnx(program, graph, path)
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except (states.InvalidGraph, states.NotImplemented) as error:  # Such as bfloat16, which its convolutions lack.
        what = " ".join(str(error).split())
        raise UserError(f"onnxruntime cannot run the {graph.name}, so nothing is written: {what[:300]}") from error

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        given = {name: t.numpy() for name, t in zip(graph.inputs, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return path.name, call


def _facts(opened: "Opened", batch: int | None) -> dict[str, Any]:
    """``model.json``."""
    from stylenat.exported import FORMAT_VERSION
    from stylenat.sampling import is_style_based, mean_style

    generator = opened.generator
    styled = is_style_based(generator)
    mean = mean_style(generator, classes=opened.classes) if styled else None
    return {
        "format_version": FORMAT_VERSION,
        "resolution": generator.resolution,
        "latent_dim": generator.latent_dim,
        "num_styles": generator.num_styles if styled else None,
        "style_dim": mean.shape[1] if mean is not None else None,
        "class_names": list(opened.classes.names) if opened.classes is not None else [],
        "seed": opened.seed,
        "batch": batch,
        "mean_style": mean.tolist() if mean is not None else None,
        "weights_sha256": opened.sha256,
    }


def _weights(opened: "Opened", manifest: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    """A weights folder, read again and compared bit for bit."""
    import torch

    from stylenat import checkpoint, weights
    from stylenat.commands._model_card import model_card
    from stylenat.trained import TrainedModel
    from stylenat.trained import opened as open_again

    state = checkpoint.weights(opened.folder, opened.network)
    name = "ema" if opened.network != "generator" else "generator"
    kept = ("step", "images", "classes", "pixel_space", "dataset", "source", "source_sha256", "layouts")
    files = {
        f"{name}.safetensors": "the weights, by the names of this package's network",
        "config.gin": "the experiment, which says how the network is built",
        "manifest.json": "checksums",
    }
    config = weights.config_of(opened.folder).read_text(encoding="utf-8")
    texts = {"config.gin": config, "README.md": model_card(opened, manifest, arguments.licence, files)}
    weights.write(arguments.out, {name: state}, texts, {key: manifest[key] for key in kept if key in manifest})
    again = TrainedModel(open_again(arguments.out, plugins=arguments.plugin))
    if not torch.equal(again.sample(range(2)), TrainedModel(opened).sample(range(2))):
        shutil.rmtree(arguments.out)
        raise UserError("what was written draws other images than the network; nothing is kept")
    print(printable(f"{len(state)} tensors written to {arguments.out}; loaded again, it draws the same images"))
