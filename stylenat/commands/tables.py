"""What ``--list``, ``--explain`` and ``--dry-run`` print."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from registry import KINDS, Experiment, Parameter, Suspect
from registry.wording import printable
from stylenat.commands._listing import Listed

if TYPE_CHECKING:
    from stylenat.training.settings import Training

# Wide enough for the longest rows; a terminal's own width would cut names that people copy.
WIDTH = 120


def print_listing(entries: Sequence[Listed], suspects: Sequence[Suspect]) -> None:
    """Every kind and its registered names with origin and parameters; then the plugins that did not load."""
    console, table = Console(width=WIDTH), Table(show_lines=True)
    table.add_column("name, from", no_wrap=True)
    table.add_column("what it is, its parameters", overflow="fold")
    kinds: set[str] = set()
    for entry in entries:
        if (row := KINDS.get(entry.kind)) and entry.kind not in kinds:
            kinds.add(entry.kind)
            form = f"@{entry.kind}.NAME{'' if row.bound_as_class else '()'}"
            form = Text(f"bound as {form}; Protocol {row.protocol}", "cyan")
            table.add_row(Text(entry.kind, "bold"), Text("\n").join([Text(row.doc), form]))
        origin = printable(f"{entry.distribution} {entry.version}".strip())
        parameters = [Text(printable(_parameter(parameter)), "cyan") for parameter in entry.parameters]
        name = Text.assemble((printable(entry.selector), "bold"), "\n", origin)
        table.add_row(name, Text("\n").join([Text(printable(entry.problem or entry.doc)), *parameters]))
    console.print(table)
    for suspect in suspects:
        console.print(printable(f"did not load: {suspect}"), soft_wrap=True, markup=False, highlight=False)


def _parameter(parameter: Parameter) -> str:
    """``kernel_size: int = 7``, as in a signature; without a default it must be bound."""
    type_ = f": {parameter.type}" if parameter.type else ""
    return f"{parameter.name}{type_}" + ("" if parameter.required else f" = {parameter.shown_default}")


def print_explanation(entry: Listed) -> None:
    """One registered name: its docstring, and a line a parameter."""
    console = Console(width=WIDTH)
    origin = printable(f"{entry.distribution} {entry.version}")
    console.print(Text.assemble((printable(entry.selector), "bold"), "  from ", origin))
    console.print(
        "\n".join(map(printable, (entry.problem or entry.docstring).split("\n"))), markup=False, highlight=False
    )
    console.print()
    if not entry.parameters:
        return
    table = Table()
    for column in ("parameter", "type", "default"):
        table.add_column(column, overflow="fold")
    for p in entry.parameters:
        default = p.shown_default or "must be bound"
        table.add_row(*(Text(printable(text)) for text in (f"{entry.selector}.{p.name}", p.type, default)))
    console.print(table)


def print_dry_run(experiment: Experiment, memory: bool = False) -> None:
    """Builds the experiment without memory for its weights, and shows sizes, attention and data; if asked, memory."""
    from stylenat.evaluation.evaluate import check_images, fitting
    from stylenat.networks.batch_norm import coupling
    from stylenat.networks.notes import notes
    from stylenat.training.build import indivisible, sized
    from stylenat.training.settings import Training

    settings: Training = experiment.get("train")()
    check_images(settings.metrics, settings.dataset, settings.evaluation_samples)
    networks = sized(settings)
    generator = networks["generator"].network
    sizes = Table(title=Text(printable(f"{experiment.name} at {generator.resolution}x{generator.resolution}")))
    for column in ("network", "parameters", "GMACs an image"):
        sizes.add_column(column, justify="left" if column == "network" else "right")
    for name, size in networks.items():
        sizes.add_row(name, f"{size.parameters:,}", f"{size.macs / 1e9:,.2f}")

    console = Console(width=WIDTH)

    def note(line: str) -> None:
        console.print(printable(f"note: {line}"), soft_wrap=True, markup=False, highlight=False)

    fitting(settings.metrics, generator, note)
    console.print(sizes)
    for name, size in networks.items():
        if text := coupling(size.network):
            console.print(f"batch norm of the {name} {text}", highlight=False)
    for line in notes(*(size.network for size in networks.values())):
        note(line)
    if hasattr(generator, "sites"):  # Other generators have no attention, or none that they describe.
        console.print(_attention_table(generator))
    console.print(printable(f"data: {settings.dataset.describe()}"), soft_wrap=True, markup=False)
    console.print(
        f"{settings.iterations:,} iterations of {settings.batch_size} images = "
        f"{settings.iterations * settings.batch_size:,} images",
        highlight=False,
    )
    if settings.accumulate > 1:
        for part in (*(size.network for size in networks.values()), *settings.regularizers):
            if note := getattr(part, "depends_on_microbatches", ""):
                line = f"train.accumulate = {settings.accumulate} changes the training: {note}"
                console.print(printable(line), soft_wrap=True, markup=False, highlight=False)
    if memory:
        group = indivisible(generator, networks["discriminator"].network, settings.batch_size)
        console.print(_memory_table(settings, group))


def _memory_table(settings: "Training", group: int) -> Table:
    """By precision and recomputation: the memory of an image, and the ``train.accumulate`` that fits a card."""
    from stylenat import ranks
    from stylenat.training.footprint import CARDS, footprint
    from stylenat.training.memory import accumulate_for

    own = settings.batch_size // ranks.world_size()
    table = Table(title=f"memory of training, counted: train.accumulate for {own} images a process on a card")
    for column in ("precision", "recompute", "GB an image", "GB fixed", *(f"{card} GB" for card in CARDS)):
        table.add_column(column, justify="left" if column in ("precision", "recompute") else "right")
    for precision in ("float32", "bf16"):
        for recompute in (False, True):
            found = footprint(settings, precision, recompute)
            parts = [accumulate_for(own, 0, found.at_once(card), group) for card in CARDS]
            shown = ["does not fit" if part is None else str(part) for part in parts]
            sizes = f"{found.image / 1e9:.3g}", f"{found.fixed / 1e9:.3g}"
            table.add_row(precision, "stages" if recompute else "no", *sizes, *shown)
    return table


def _attention_table(generator: Any) -> Table:
    """What the blocks say of themselves; nothing of one that does not (``interfaces.DescribedBlock``)."""
    table = Table(
        title="attention: heads x kernel, dilation (reach: the share of the image that one query's window spans)"
    )
    for column in ("resolution", "channels", "heads", "groups"):
        table.add_column(column, justify="left" if column == "groups" else "right")
    for sites, stage in zip(generator.sites, generator.stages, strict=True):
        rows = []
        for site, block in zip(sites, stage.blocks, strict=True):
            shown = printable(block.describe()) if hasattr(block, "describe") else ""
            rows.append((f"{site.resolution}", f"{site.channels}", f"{site.num_heads}", shown))
        for row in dict.fromkeys(rows):  # The two blocks of a resolution are alike unless the partition says not.
            table.add_row(*map(Text, row))
    return table
