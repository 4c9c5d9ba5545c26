"""``tools/reproduce.py``: a published number, measured from published weights."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import Experiment, UserError
from registry.wording import printable
from stylenat.commands import evaluate, import_weights
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command, experiments_folder, one_of_several
from stylenat.commands._published import Published, published

if TYPE_CHECKING:
    from stylenat.evaluation.protocol import Result

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
EXAMPLES = f"""examples:
  python tools/reproduce.py ffhq256 --weights FFHQ256_940k_flip.pt --data data/ffhq256.lmdb \\
      --extractor-weights {INCEPTION}
  python tools/reproduce.py ffhq256 --weights FFHQ256_940k_flip.pt --data data/ffhq256.lmdb \\
      --extractor-weights {INCEPTION} --samples 1000    # a trial run
  torchrun --nproc-per-node 4 tools/reproduce.py church256 ...

NAME is a gin file whose header has `expected` and `protocol`. docs/reproducing.md lists them, and says how to prepare
the data. After an interruption, the same command goes on with the imported weights.
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="reproduce",
        description="Import published weights, measure them under the protocol of the published number, and show both.",
        epilog=EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", help="a shipped experiment, such as ffhq256, or a gin file")
    weights = "the published checkpoint: .pt, .safetensors, .npz or .pkl"
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help=weights)
    parser.add_argument("--data", type=Path, required=True, metavar="DATA.lmdb", help="all real images of the paper")
    extractor = "weights of a metric's extractor; repeatable"
    parser.add_argument("--extractor-weights", type=Path, action="append", default=[], metavar="FILE", help=extractor)
    parser.add_argument("--download", action="store_true", help="download missing weights of extractors")
    out = "imported weights and metrics.jsonl (default: reproduced/NAME)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    samples = "fewer generated images than the protocol's: a trial run, whose number cannot be compared"
    parser.add_argument("--samples", type=int, metavar="N", help=samples)
    parser.add_argument("--batch", type=int, metavar="N", help="images at once")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE_OR_FILE.py", help="one more plugin; repeatable"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    row = published(arguments.name)
    for option, path in [
        ("--weights", arguments.weights),
        *(("--extractor-weights", path) for path in arguments.extractor_weights),
    ]:
        if not path.is_file():
            raise UserError(f"{option}: there is no file {path}")
    if not arguments.data.exists():
        raise UserError(f"--data: there is no data set at {arguments.data}; docs/reproducing.md says how to make it")
    if not one_of_several():
        return _reproduce(arguments, row, argv)
    from stylenat.training.processes import joined

    with joined():
        return _reproduce(arguments, row, argv)


def _reproduce(arguments: argparse.Namespace, row: Published, argv: Sequence[str] | None) -> int:
    from registry import load_experiment
    from stylenat.commands._plugins import loaded_plugins
    from stylenat.evaluation.protocol import read_results
    from stylenat.ranks import rank, wait_for_all

    registry = loaded_plugins(arguments.plugin)
    experiment = load_experiment(registry, [row.gin], search_path=[experiments_folder()])
    measuring = load_experiment(registry, [row.gin, row.protocol], search_path=[experiments_folder()])
    metrics = {metric.name: metric for metric in measuring.value("train.metrics")}
    if not row.values.keys() & metrics.keys():
        raise UserError(f"{row.gin}: its protocol {row.protocol} measures {', '.join(metrics)}, not {row.expected}")
    out = arguments.out or Path("reproduced") / row.gin.stem
    given = [str(out), "--gin", row.protocol, "--data", str(arguments.data)]
    for option, values in (("--extractor-weights", arguments.extractor_weights), ("--plugin", arguments.plugin)):
        given += [part for value in values for part in (option, str(value))]
    for option, value in (("--samples", arguments.samples), ("--batch", arguments.batch)):
        given += [] if value is None else [option, str(value)]
    evaluation = evaluate.parser().parse_args(given + ["--download"] * arguments.download)
    evaluate.bindings_of(evaluation)  # Before anything is written.
    if rank() == 0:
        _import(arguments, row, experiment, out)
    wait_for_all()
    evaluate.evaluate(evaluation, argv)
    if rank() == 0:
        # The newest of each name is the one that was just measured.
        found = {result.name: result for result in read_results(out / "metrics.jsonl")}
        _show(row, {name: found[name] for name in row.values if name in found}, metrics, measuring)
    return 0


def _import(arguments: argparse.Namespace, row: Published, experiment: Experiment, out: Path) -> None:
    """Imports the weights; those that an earlier call imported from the same file are kept.

    Raises UserError where the folder holds anything else.
    """
    from stylenat import checkpoint, weights
    from stylenat.files import read_bounded
    from stylenat.training.run import CONFIG_BYTES

    if not (out / checkpoint.MANIFEST).exists():
        given = [str(arguments.weights), "--gin", str(row.gin), "--out", str(out)]
        given += [part for plugin in arguments.plugin for part in ("--plugin", plugin)]
        import_weights.import_weights(import_weights.parser().parse_args(given))
        return
    folder = weights.weights_folder(out)
    same = weights.manifest_of(folder).get("source_sha256") == weights.checksum(arguments.weights)
    if not same or experiment.differences(read_bounded(weights.config_of(folder), CONFIG_BYTES).decode()):
        raise UserError(f"{out} holds other weights or another experiment; choose another --out")
    print(printable(f"{arguments.weights} is in {out} already"))


def _show(row: Published, results: Mapping[str, "Result"], metrics: Mapping[str, Any], measuring: Experiment) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(f"{row.gin.stem}: {row.paper}")), title_justify="left")
    for column in ("value", "published", "measured", "difference"):
        table.add_column(column, justify="left" if column == "value" else "right")
    for name, result in results.items():
        spread = "" if result.spread is None else f" ± {result.spread:.2g}"
        measured = "null" if result.value is None else f"{result.value:.4g}{spread}"
        difference = "" if result.value is None else f"{result.value - row.values[name]:+.3g}"
        table.add_row(Text(printable(name)), f"{row.values[name]:g}", measured, difference)
    Console(width=120).print(table)
    print(printable(f"published: {row.expected}"))
    wanted = measuring.value("train.evaluation_samples")
    departures = [line for result in results.values() for line in _departures(row, result, metrics, wanted)]
    for line in dict.fromkeys(departures):
        print(printable(f"not comparable: {line}"))
    if not departures:
        print(printable(f"measured by {row.protocol}, against {row.count:,} images; their files decide the rest:"))
        print("the same images, prepared with another filter, change the number (docs/reproducing.md)")


def _departures(row: Published, result: "Result", metrics: Mapping[str, Any], wanted: int) -> Iterator[str]:
    """Where a measurement is not the published protocol's."""
    protocol = result.protocol or {}
    if (count := protocol["generated"]["count"]) != wanted:
        yield f"{count:,} generated images instead of {wanted:,}"
    if (count := protocol["real"]["count"]) != row.count:
        yield f"{count:,} real images instead of the {row.count:,} of {row.data}"
    expected = getattr(getattr(metrics[result.name], "needs", None), "published_sha256", None)
    extractor = protocol["metric"].get("extractor") or {}
    if expected is not None and extractor.get("weights_sha256") != expected:
        yield f"the weights of {extractor.get('name')} are not the published ones (sha256 {expected[:16]}...)"
