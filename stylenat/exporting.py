"""A generator as graphs of standard operations: programs of ``torch.export``, and ONNX."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from registry import UserError
from stylenat.attention.gathered import Gathered
from stylenat.attention.hydra import HydraAttention
from stylenat.draws import conditions
from stylenat.pixels import SPACES
from stylenat.sampling import for_all_layers, is_style_based
from stylenat.trained import Opened

TOLERANCE = 1e-3
"""Between an export and the network, on a scale on which images are from -1 to 1."""
EXAMPLES = 2
"""Images that a graph with a dynamic batch is traced with: one could not be told from a constant."""


class Pixels(nn.Module):
    """One graph of a generator, whose images are float32 pixels from 0 to 255, neither rounded nor clamped.

    Args:
        part: what is called: the mapping, or whatever makes images; images: whether it makes images.
    """

    def __init__(self, network: nn.Module, part: str, space: str) -> None:
        super().__init__()
        self.network, self.part = network, part
        if part != "mapping":
            self.register_buffer("mean", torch.tensor(SPACES[space].mean).view(3, 1, 1))
            self.register_buffer("std", torch.tensor(SPACES[space].std).view(3, 1, 1))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.part == "mapping":
            return self.network.mapping(x, *conditions(labels))
        images = self.network.synthesis(x) if self.part == "synthesis" else self.network(x, *conditions(labels))
        return (images.float() * self.std + self.mean) * 255


@dataclass(frozen=True)
class Graph:
    """One graph to export.

    Attributes:
        name: ``mapping``, ``synthesis`` or ``generator``; module: what is traced.
        inputs: names of its inputs; output: the name of its output.
    """

    name: str
    module: Pixels
    inputs: tuple[str, ...]
    output: str


def graphs_of(opened: Opened) -> list[Graph]:
    """``mapping`` and ``synthesis`` of a style-based generator, else ``generator``.

    Raises:
        UserError: a generator without styles that needs random draws.
    """
    generator, labels = opened.generator, ("labels",) if opened.classes is not None else ()
    if is_style_based(generator):
        return [
            Graph("mapping", Pixels(generator, "mapping", opened.pixel_space), ("latents", *labels), "w"),
            Graph("synthesis", Pixels(generator, "synthesis", opened.pixel_space), ("styles",), "images"),
        ]
    if draws := list(getattr(generator, "draws", {})):
        raise UserError(f"{type(generator).__name__} draws random numbers ({', '.join(draws)}); it cannot be exported")
    return [Graph("generator", Pixels(generator, "generator", opened.pixel_space), ("latents", *labels), "images")]


def example(opened: Opened, graph: Graph, count: int) -> tuple[Tensor, ...]:
    """Inputs of a graph for sample indices 0 to ``count``, on the CPU."""
    sampler = opened.sampler(1.0)
    latents, labels = sampler.latents(0, count), sampler.labels(0, count)
    if graph.name != "synthesis":
        return latents, *conditions(labels)
    with torch.no_grad():
        styles = opened.generator.mapping(latents, *conditions(labels))
    return (for_all_layers(styles, opened.generator).contiguous(),)


@contextmanager
def plain_attention(network: nn.Module) -> Iterator[None]:
    """Within it, neighborhood attention is computed by standard operations alone."""
    layers = [module for module in network.modules() if isinstance(module, HydraAttention)]
    before = [layer.backend for layer in layers]
    for layer in layers:
        layer.backend = Gathered()
    try:
        yield
    finally:
        for layer, backend in zip(layers, before, strict=True):
            layer.backend = backend


def program_of(opened: Opened, graph: Graph, batch: int | None) -> torch.export.ExportedProgram:
    """Traces a graph.

    Args:
        batch: fixed number of images; None for any.

    Raises:
        UserError: the network uses operations beyond PyTorch's own, or cannot be traced.
    """
    inputs = example(opened, graph, batch or EXAMPLES)
    dimension = torch.export.Dim("batch", min=1, max=2**16)
    shapes = None if batch is not None else tuple({0: dimension} for _ in inputs)
    with plain_attention(opened.generator), torch.no_grad():
        try:
            program = torch.export.export(graph.module.eval(), inputs, dynamic_shapes=shapes, strict=False)
        except (torch._dynamo.exc.UserError, torch._dynamo.exc.Unsupported, ValueError) as error:
            what = f"the {graph.name} of {type(opened.generator).__name__} cannot be traced"
            more = "" if batch else "; try a fixed --batch"
            raise UserError(f"{what}: {str(error).strip().splitlines()[0]}{more}") from error
    foreign = sorted(
        {
            str(node.target)
            for node in program.graph.nodes
            if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
            if node.target.namespace not in ("aten", "prims")
        }
    )
    if foreign:
        raise UserError(f"{type(opened.generator).__name__} uses operations beyond PyTorch's own: {', '.join(foreign)}")
    return program


def write_onnx(program: torch.export.ExportedProgram, graph: Graph, path: Path) -> None:
    """An ONNX file of a program, with its weights inside, or beside it where they exceed ONNX's two gigabytes.

    Raises:
        UserError: it has operators that are not ONNX's own, or PyTorch cannot translate it.
    """
    import onnx

    try:
        translated = torch.onnx.export(
            program, dynamo=True, input_names=list(graph.inputs), output_names=[graph.output], verbose=False
        )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"the {graph.name} cannot be written as ONNX: {str(error).strip().splitlines()[0]}") from error
    assert translated is not None
    size = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    translated.save(str(path), external_data=size > 2**30)
    held = onnx.load(str(path), load_external_data=False)
    foreign = sorted({node.domain for node in held.graph.node} - {"", "ai.onnx"})
    if foreign or held.functions:
        raise UserError(f"the {graph.name} has operators that are not ONNX's own, of {', '.join(foreign)}")
    onnx.checker.check_model(str(path))


def agreement(
    opened: Opened, graphs: Sequence[Graph], run: Mapping[str, Any], batches: Sequence[int]
) -> dict[str, float]:
    """The largest difference between each export and the network, over batches of these sizes.

    Args:
        run: by graph name, a function of its inputs to its output.

    Returns:
        By name: of images on a scale from -1 to 1, of styles as they are; NaN where either has numbers that are not
        finite.
    """
    found = {}
    for graph in graphs:
        differences = []
        for batch in batches:
            inputs = example(opened, graph, batch)
            with torch.no_grad():
                differences.append((run[graph.name](*inputs) - graph.module(*inputs)).abs().max())
        # Unlike Python's, this maximum is NaN where any of them is.
        found[graph.name] = float(torch.stack(differences).max()) / (127.5 if graph.output == "images" else 1)
    return found
