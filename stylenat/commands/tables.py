"""What ``--list``, ``--explain`` and ``--dry-run`` print."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from registry import Experiment, HeadGroup, Listed, Suspect
from registry.listing import ListedParameter

# Wide enough for the longest rows; a terminal's own width would cut names that people copy.
WIDTH = 120


def print_listing(entries: Sequence[Listed], suspects: Sequence[Suspect]) -> None:
    """Every registered name with its origin and parameters; then the plugins that did not load."""
    console, table = Console(width=WIDTH), Table(show_lines=True)
    table.add_column("name, from", no_wrap=True)
    table.add_column("what it is, its parameters", overflow="fold")
    for entry in entries:
        origin = f"{entry.distribution} {entry.version}".strip()
        parameters = [f"[cyan]{escape(_parameter(parameter))}[/]" for parameter in entry.parameters]
        told = [escape(entry.problem or entry.doc), *parameters]
        table.add_row(f"[bold]{escape(entry.selector)}[/]\n{escape(origin)}", "\n".join(told))
    console.print(table)
    for suspect in suspects:
        console.print(f"did not load: {suspect}", soft_wrap=True, markup=False, highlight=False)


def _parameter(parameter: ListedParameter) -> str:
    """``kernel_size: int = 7``, as in a signature; without a default it must be bound."""
    type_ = f": {parameter.type}" if parameter.type else ""
    return f"{parameter.name}{type_}" + ("" if parameter.default is None else f" = {parameter.default}")


def print_explanation(entry: Listed) -> None:
    """One registered name: its docstring, and a line a parameter."""
    console = Console(width=WIDTH)
    console.print(f"[bold]{entry.selector}[/]  from {entry.distribution} {entry.version}")
    console.print(f"{entry.problem or entry.docstring}\n", markup=False, highlight=False)
    if not entry.parameters:
        return
    table = Table()
    for column in ("parameter", "type", "default"):
        table.add_column(column, overflow="fold")
    for p in entry.parameters:
        default = "must be bound" if p.default is None else p.default
        table.add_row(*map(escape, (f"{entry.selector}.{p.name}", p.type, default)))
    console.print(table)


def print_dry_run(experiment: Experiment) -> None:
    """Builds the experiment without memory for its weights, and shows sizes, attention and data."""
    from stylenat.training.settings import Training
    from stylenat.training.sizes import sized

    settings: Training = experiment.get("train")()
    networks = sized(settings)
    generator = networks["generator"].network
    sizes = Table(title=f"{experiment.name} at {generator.resolution}x{generator.resolution}")
    for column in ("network", "parameters", "GMACs an image"):
        sizes.add_column(column, justify="left" if column == "network" else "right")
    for name, size in networks.items():
        sizes.add_row(name, f"{size.parameters:,}", f"{size.macs / 1e9:,.2f}")

    console = Console(width=WIDTH)
    console.print(sizes)
    console.print(_attention_table(generator))
    console.print(f"data: {settings.dataset.describe()}", soft_wrap=True)
    console.print(
        f"{settings.iterations:,} iterations of {settings.batch_size} images = "
        f"{settings.iterations * settings.batch_size:,} images",
        highlight=False,
    )


def _attention_table(generator: object) -> Table:
    from stylenat.attention import HydraAttention

    table = Table(
        title="attention: heads x kernel, dilation (reach: the share of the image that one query's window spans)"
    )
    for column in ("resolution", "channels", "heads", "groups"):
        table.add_column(column, justify="left" if column == "groups" else "right")
    stages = zip(getattr(generator, "sites", []), getattr(generator, "stages", []), strict=True)
    for sites, stage in stages:
        rows = []
        for site, block in zip(sites, stage.blocks, strict=True):
            hydra = [m for m in block.modules() if isinstance(m, HydraAttention)]
            shown = "  ".join(_group(g, site.resolution) for m in hydra for g in m.groups)
            shown = shown or "  ".join(m.describe() for m in block.modules() if hasattr(m, "describe"))
            shown = shown or f"{site.num_heads} heads over all tokens (100%)"
            rows.append((f"{site.resolution}", f"{site.channels}", f"{site.num_heads}", shown))
        for row in dict.fromkeys(rows):  # The two blocks of a resolution are alike unless the partition says not.
            table.add_row(*row)
    return table


def _group(group: HeadGroup, resolution: int) -> str:
    extent = (group.kernel_size - 1) * group.dilation + 1
    share = 100 * (extent / resolution) ** 2
    return f"{group.num_heads} x k{group.kernel_size} d{group.dilation} ({share:.3g}%)"
