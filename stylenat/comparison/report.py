"""One page of everything: an HTML file that needs no other file, fetches nothing and runs nothing."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from stylenat.comparison.aim_links import Links
from stylenat.comparison.appendix import by_run, environments
from stylenat.comparison.foreign import html_text
from stylenat.comparison.results import Comparison
from stylenat.comparison.table import LEGEND, Cell, Costs, Tabular, tables

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: 14px }
th, td { padding: .3em .6em; border-bottom: 1px solid #e4e4e4; text-align: left }
td { white-space: nowrap }
caption { text-align: left; padding: .8em 0 .3em; font-weight: 600 } th { vertical-align: bottom }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } td.best { font-weight: 700 }
img { max-width: 100%; height: auto } .pixels { image-rendering: pixelated }
figure { display: inline-block; margin: .5em; vertical-align: top; max-width: 100% }
.plots figure { width: 560px } .plots img { width: 100% } .heads img { max-width: 560px }
figcaption { font-size: 13px; color: #555 } .note { background: #fff6d6; padding: .4em .8em; margin: .4em 0 }
code, pre { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere } pre { white-space: pre-wrap }
"""
# No script, no style or image from elsewhere: a browser enforces what this page promises.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass
class Pictures:
    """What the page shows, as files' bytes: SVG plots by caption, and PNGs by variant."""

    plots: dict[str, bytes] = field(default_factory=dict)
    chosen: bytes | None = None
    chosen_caption: str = ""
    side_by_side: bytes | None = None
    side_by_side_caption: str = ""
    grids: dict[str, bytes] = field(default_factory=dict)
    heads: dict[str, bytes] = field(default_factory=dict)


def report(
    comparison: Comparison,
    costs: Costs,
    pictures: Pictures,
    links: Links | None,
    missing: Sequence[str],
    remarks: Sequence[str],
) -> str:
    """The page. Every text in it comes from files of others and is escaped."""
    e = html_text
    parts = [f"<h1>{e(comparison.name)}</h1>"]
    runs = sum(len(group.runs) for group in comparison.groups)
    parts.append(f"<p>{len(comparison.groups)} variants, {runs} runs. {e(LEGEND)}.</p>")
    parts += [f'<p class="note">{e(note)}</p>' for note in (*missing, *comparison.notes(), *remarks)]
    parts += ["<h2>Results</h2>", *map(_table, tables(comparison, costs))]
    if pictures.chosen:
        parts += ["<h2>Chosen samples</h2>", _figure(pictures.chosen, "png", pictures.chosen_caption, True)]
    if pictures.side_by_side:
        title = "The same latents"
        parts += [
            f"<h2>{title}</h2>",
            _figure(pictures.side_by_side, "png", pictures.side_by_side_caption, True),
        ]
    if pictures.plots:
        parts.append("<h2>Curves and costs</h2>")
        parts.append('<div class="plots">')
        parts += [_figure(plot, "svg+xml", title) for title, plot in pictures.plots.items()]
        parts.append("</div>")
    if links:
        parts.append(f"<h2>In Aim, grouped by {e(links.grouped_by)}</h2>")
        parts.append(f"<p>Where <code>{e(links.start)}</code> runs on this machine:</p><ul>")
        parts += [f'<li><a href="{e(url)}">{e(title)}</a></li>' for title, url in links.pages.items()]
        parts.append("</ul>")
    if pictures.heads:
        parts.append("<h2>What the heads see</h2>")
        parts.append('<div class="heads">')
        parts += [_figure(p, "png", f"What the heads of {name} see.") for name, p in pictures.heads.items()]
        parts.append("</div>")
    if pictures.grids:
        parts.append("<h2>Sample grids</h2>")
        parts += [_figure(grid, "png", f"The last sample grid of {n}.", True) for n, grid in pictures.grids.items()]
    parts += ["<h2>To repeat this</h2>", _table(by_run(comparison)), _table(environments(comparison))]
    parts += ["<h2>Runs and configs</h2>", _runs(comparison)]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{e(comparison.name)}</title><style>{STYLE}</style>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _table(table: Tabular) -> str:
    def line(tag: str, cells: Sequence[Cell]) -> str:
        classes = [("n " if i >= table.left else "") + ("best" if cell.best else "") for i, cell in enumerate(cells)]
        both = zip(cells, classes, strict=True)
        parts = [f'<{tag} class="{names}">{html_text(cell.text)}</{tag}>' for cell, names in both]
        return f"<tr>{''.join(parts)}</tr>"

    lines = [line("th", [Cell(title) for title in table.headers]), *(line("td", cells) for cells in table.rows)]
    caption = f"<caption>{html_text(table.title)}</caption>"
    return f'<div class="wide"><table>{caption}' + "\n".join(lines) + "</table></div>"


def _figure(data: bytes, kind: str, caption: str, pixels: bool = False) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    look = ' class="pixels"' if pixels else ""
    text = html_text(caption)
    return f'<figure><img{look} alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>'


def _runs(comparison: Comparison) -> str:
    """Each run's folder, and the config of each variant's first."""
    parts = []
    for group in comparison.groups:
        folders = "".join(
            f"<li><code>{html_text(run.directory)}</code>, iteration {run.step:,} of {run.iterations:,}</li>"
            for run in group.runs
        )
        config = "\n".join(html_text(f"{name} = {value}") for name, value in group.settings.items())
        parts.append(
            f"<p><b>{html_text(group.name)}</b></p><ul>{folders}</ul>"
            f"<details><summary>config</summary><pre>{config}</pre></details>"
        )
    return "\n".join(parts)
