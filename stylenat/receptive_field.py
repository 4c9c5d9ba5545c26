"""What each head of a query sees under a partition, at every resolution: in the terminal and as a PNG. No torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

from registry import AttentionSite, HeadGroup, UserError
from registry.wording import printable
from stylenat.attention.window import window
from stylenat.files import whole_file

Partition = Callable[[AttentionSite], list[HeadGroup]]

# Dots a side of a terminal picture; a larger map is reduced, a dot standing for all tokens below it.
DOTS = 32
# The bits of a braille character's 2 x 4 dots, by row and column.
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def published_sites(resolution: int = 256, channel_multiplier: int = 2) -> list[AttentionSite]:
    """Both blocks of each resolution from 8x8 in a generator of the published widths: max(channels / 32, 4) heads."""
    sites = []
    for side in (2**i for i in range(3, resolution.bit_length())):
        channels = 512 if side <= 32 else 256 * 64 // side * channel_multiplier
        sites += [AttentionSite(side, max(channels // 32, 4), channels, block) for block in (0, 1)]
    return sites


def seen(group: HeadGroup, side: int, query: tuple[int, int]) -> set[tuple[int, int]]:
    """The (row, column) of every token that the query at (row, column) attends to."""
    rows, columns = (window(place, side, group.kernel_size, group.dilation) for place in query)
    return {(row, column) for row in rows for column in columns}


def queries(side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The two that are shown: one in the middle, and one near the border, whose window is shifted inwards."""
    return (side // 2, side // 2), (side // 16, side // 16)


def groups_by_site(partition: Partition, sites: list[AttentionSite]) -> list[tuple[str, int, list[HeadGroup] | str]]:
    """(title, side, groups) of every site; the two blocks of a resolution are one where they are alike.

    Where the partition refuses a site, or answers what cannot stand there, the reason stands in for the groups.
    """
    answers: list[tuple[AttentionSite, list[HeadGroup] | str]] = []
    for site in sites:
        try:
            answers.append((site, _possible(partition(site), site)))
        except UserError as error:
            answers.append((site, str(error)))
    found = []
    for site, groups in answers:
        alike = all(other == groups for s, other in answers if s.resolution == site.resolution)
        if not alike or site.block == 0:
            block = "" if alike else f", block {site.block}"
            found.append(
                (f"{site.resolution}x{site.resolution}, {site.num_heads} heads{block}", site.resolution, groups)
            )
    return found


def _possible(groups: list[HeadGroup], site: AttentionSite) -> list[HeadGroup]:
    for group in groups:
        if group.kernel_size * group.dilation > site.resolution:
            raise UserError(f"{group} does not fit: kernel_size x dilation exceeds {site.resolution}")
    if sum(group.num_heads for group in groups) != site.num_heads:
        raise UserError(f"its groups hold {[g.num_heads for g in groups]} heads, not {site.num_heads} in all")
    return groups


def captions(groups: list[HeadGroup]) -> list[str]:
    """``heads 1-8: 7x7, dilation 2`` of each group."""
    lines, first = [], 1
    for group in groups:
        last = first + group.num_heads - 1
        heads = f"head {first}" if first == last else f"heads {first}-{last}"
        lines.append(f"{heads}: {group.kernel_size}x{group.kernel_size}, dilation {group.dilation}")
        first = last + 1
    return lines


def terminal_picture(partition: Partition, sites: list[AttentionSite], width: int = 120) -> str:
    """One picture a group of heads, in braille dots: all that the two queries of ``queries`` see."""
    lines = []
    for title, side, groups in groups_by_site(partition, sites):
        lines += ["", title]
        if isinstance(groups, str):
            lines.append(f"  {printable(groups)}")
            continue
        panels = []
        for group, caption in zip(groups, captions(groups), strict=True):
            heads, _, what = caption.partition(": ")
            dots = set().union(*(seen(group, side, query) for query in queries(side)))
            panels.append([heads, what, *_braille(dots, side)])
        columns = max(len(line) for panel in panels for line in panel) + 2
        a_row = max((width - 2) // columns, 1)
        for start in range(0, len(panels), a_row):
            row = panels[start : start + a_row]
            lines += [
                "  " + "".join(line.ljust(columns) for line in cells).rstrip() for cells in zip(*row, strict=True)
            ]
    return "\n".join(["Keys of two queries, one in the middle and one near the top left corner:", *lines])


def _braille(dots: set[tuple[int, int]], side: int) -> list[str]:
    shown = min(side, DOTS)
    cells = [[0] * (shown // 2) for _ in range(shown // 4)]
    for row, column in dots:
        y, x = row * shown // side, column * shown // side
        cells[y // 4][x // 2] |= BRAILLE[y % 4][x % 2]
    # The frame shows how large the map is, seen or not.
    inner = ["│" + "".join(chr(0x2800 + cell) for cell in line) + "│" for line in cells]
    return ["┌" + "─" * (shown // 2) + "┐", *inner, "└" + "─" * (shown // 2) + "┘"]


def save_picture(path: Path, name: str, partition: Partition, sites: list[AttentionSite]) -> None:
    """Writes the PNG: a row for each resolution, a panel for each group, whole or not at all.

    Raises UserError where it cannot be written.
    """
    from matplotlib.figure import Figure

    rows = groups_by_site(partition, sites)
    columns = max([len(groups) for _, _, groups in rows if isinstance(groups, list)], default=1)
    # Two columns wide at least, for the title.
    columns = max(columns, 2)
    figure = Figure(figsize=(2.1 * columns + 0.9, 2.45 * len(rows) + 1.1), layout="constrained")
    # A name is foreign text, in which a dollar sign is a dollar sign.
    what = "what the heads see from two queries (dark)\nblue: the middle one, orange: near the border, green: both"
    figure.suptitle(f"{printable(name, 100)}\n{what}", fontsize=10, parse_math=False, wrap=True)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (title, side, groups) in zip(axes, rows, strict=True):
        for axis in line:
            axis.set_axis_off()
        line[0].set_axis_on()
        line[0].set_xticks([])
        line[0].set_yticks([])
        line[0].set_ylabel(title.replace(", ", "\n"), fontsize=9)
        if isinstance(groups, str):
            look = {"fontsize": 8, "ha": "center", "va": "center", "wrap": True, "parse_math": False}
            line[0].text(0.5, 0.5, printable(groups, 300), **look)
            continue
        for axis, group, caption in zip(line, groups, captions(groups), strict=False):
            axis.set_axis_on()
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(caption.replace(": ", "\n"), fontsize=9)
            axis.imshow(_colours(group, side), interpolation="nearest")
    try:
        with whole_file(path) as file:
            figure.savefig(file, format="png", dpi=150)
    except OSError as error:
        raise UserError(f"cannot write the picture {path}: {error.strerror}") from error


def save_neighborhoods(
    path: Path, name: str, neighborhoods: Sequence[tuple[AttentionSite, Sequence[HeadGroup]]]
) -> None:
    """As ``save_picture``, for the head groups that a generator was built with."""
    by_site = dict(neighborhoods)
    save_picture(path, name, lambda site: list(by_site[site]), list(by_site))


def _colours(group: HeadGroup, side: int) -> list[list[tuple[float, float, float]]]:
    """RGB rows: light ground, the keys of either query and of both (colours of Okabe and Ito), the queries darkest."""
    # A token of a large map is less than a pixel of the page: keys are drawn as large as can be distinguished.
    reach = min(side // 128, (group.dilation - 1) // 2)
    picture = [[(0.95, 0.95, 0.95)] * side for _ in range(side)]
    middle, border = (seen(group, side, query) for query in queries(side))
    marks = [(token, (0.34, 0.71, 0.91)) for token in sorted(middle - border)]
    marks += [(token, (0.9, 0.62, 0.0)) for token in sorted(border - middle)]
    marks += [(token, (0.0, 0.62, 0.45)) for token in sorted(middle & border)]
    # The queries last, so that nothing hides them.
    marks += list(zip(queries(side), ((0.0, 0.2, 0.45), (0.55, 0.2, 0.0)), strict=True))
    for (row, column), colour in marks:
        for y in range(max(row - reach, 0), min(row + reach + 1, side)):
            for x in range(max(column - reach, 0), min(column + reach + 1, side)):
                picture[y][x] = colour
    return picture
