"""Pictures of attention maps: overlays on a sample, and one figure of all layers and groups."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from stylenat.attention.shown import Statistics
from stylenat.files import whole_file


@dataclass(frozen=True)
class Group:
    """A group of heads in one layer.

    Attributes:
        layer: its number in the order of the computation; side: of its map; heads: their numbers in the layer.
        maps: [heads, side, side], each adding up to 1.
        query: row and column in the map, None where the maps are means over queries.
        statistics: over many queries.
    """

    layer: int
    name: str
    side: int
    label: str
    heads: range
    maps: Tensor
    query: tuple[int, int] | None
    statistics: Statistics

    @property
    def title(self) -> str:
        return f"{self.label}, {len(self.heads)} head{'s' if len(self.heads) > 1 else ''}"


PANEL = 256
"""Pixels of an overlay's side, at least."""


def overlay(image: Tensor, weights: Tensor, query: tuple[int, int] | None = None) -> Tensor:
    """The image in grey, darker, with the weights in colour over it; the query's cell has a white frame.

    Args:
        image: uint8 [3, side, side]; weights: [map side, map side], shown relative to their maximum.

    Returns:
        uint8 [3, side, side], enlarged exactly to at least ``PANEL``.
    """
    from matplotlib import colormaps

    scale = max(1, -(-PANEL // image.shape[-1]))
    side = image.shape[-1] * scale
    grey = image.float().mul(torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0) / 255
    grey = F.interpolate(grey[None, None], size=(side, side), mode="nearest")[0, 0]
    relative = (weights / weights.max().clamp(min=1e-12)).sqrt()  # The square root shows the small ones too.
    relative = F.interpolate(relative[None, None].float(), size=(side, side), mode="nearest")[0, 0]
    colours = torch.from_numpy(colormaps["inferno"](relative.numpy())[..., :3]).permute(2, 0, 1).float()
    shown = 0.45 * grey + 0.75 * colours * (0.25 + 0.75 * relative)
    shown = (shown.clamp(0, 1) * 255).round().to(torch.uint8)
    if query is not None:
        cell, thick = side // weights.shape[-1], max(1, side // 128)
        top, left = query[0] * cell, query[1] * cell
        frame = shown[:, top : top + max(cell, 3), left : left + max(cell, 3)]
        inner = frame[:, thick:-thick, thick:-thick].clone() if frame.shape[-1] > 2 * thick else None
        frame[:] = 255
        if inner is not None:
            frame[:, thick:-thick, thick:-thick] = inner
    return shown


def save_figure(path: Path, image: Tensor, groups: Sequence[Group], caption: str) -> None:
    """One figure: a row for each resolution, a column for each group of heads of its layers.

    Args:
        path: ``.png`` (300 dpi) or ``.pdf``; image: uint8 [3, side, side], shown at the top left.
    """
    from matplotlib.figure import Figure

    sides: dict[int, list[Group]] = {}
    for group in groups:
        sides.setdefault(group.side, []).append(group)
    columns = 1 + max(map(len, sides.values()))
    figure = Figure(figsize=(1.3 * columns, 1.55 * len(sides) + 0.3), layout="constrained")
    axes = figure.subplots(len(sides), columns, squeeze=False)
    for line in axes:
        for axis in line:
            axis.set_axis_off()
    axes[0][0].imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes[0][0].set_title("sample", fontsize=7, pad=2)
    for number, (line, (side, of_it)) in enumerate(zip(axes, sides.items(), strict=True)):
        below = -0.03 if number == 0 else 0.5  # Under the sample in the first row.
        line[0].text(0.5, below, f"{side}x{side}", transform=line[0].transAxes, ha="center", va="top", fontsize=8)
        for axis, group in zip(line[1:], of_it, strict=False):
            shown = overlay(image, group.maps.mean(0), group.query)
            axis.imshow(shown.permute(1, 2, 0).numpy(), interpolation="nearest")
            axis.set_title(f"layer {group.layer}: {group.title}", fontsize=7, pad=2)
            distance = f"{group.statistics.distance / group.side:.0%} of the side"
            keys = f"{math.exp(group.statistics.entropy):.0f} of {group.statistics.keys} keys"
            axis.text(0.5, -0.03, f"{distance}, {keys}", transform=axis.transAxes, ha="center", va="top", fontsize=6)
    figure.suptitle(caption, fontsize=8)
    kind = path.suffix.removeprefix(".")
    metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    with whole_file(path) as file:
        figure.savefig(file, format=kind, dpi=300, metadata=metadata)


def table(groups: Sequence[Group]) -> str:
    """Mean attention distance and entropy by group, a line each."""
    lines = ["layer  side  group           heads  distance  of the side  entropy  e^entropy of keys"]
    for g in groups:
        s = g.statistics
        group = f"{g.layer:>5} {g.side:>5}  {g.label:<14} {len(g.heads):>6}"
        distance = f"{s.distance:>9.2f} {s.distance / g.side:>11.1%}"
        lines.append(f"{group} {distance} {s.entropy:>9.3f}  {math.exp(s.entropy):>8.1f} of {s.keys}")
    return "\n".join(lines)


def plain(groups: Sequence[Group]) -> list[Mapping[str, object]]:
    """The same, ready for JSON."""
    return [
        {
            "layer": g.layer,
            "name": g.name,
            "side": g.side,
            "group": g.label,
            "heads": list(g.heads),
            "distance": g.statistics.distance,
            "entropy": g.statistics.entropy,
            "keys": g.statistics.keys,
        }
        for g in groups
    ]
