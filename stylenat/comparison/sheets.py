"""Samples in rows and columns: as a PNG whose pixels are the images', and as a figure for a paper's column."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from PIL import Image
from torch import Tensor

from stylenat.comparison.foreign import figure_label
from stylenat.comparison.plots import paper_style, save
from stylenat.grids import labelled_rows

GAP = 0.02
"""Inches between images."""
NAMES = 7
"""Points."""


@dataclass(frozen=True)
class Sheet:
    """Samples by the names of rows and columns.

    Attributes:
        rows: uint8 [columns, 3, side, side] by name; columns: their names; caption: a sentence.
    """

    rows: dict[str, Tensor]
    columns: Sequence[str]
    caption: str

    def png(self) -> bytes:
        """Small images are enlarged by a whole factor."""
        out = io.BytesIO()
        sheet = labelled_rows(self.rows, self.columns)
        Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(out, format="png")
        return out.getvalue()

    def save(self, stem: Path) -> None:
        """``stem.png``, ``stem.svg`` and ``stem.pdf``. Raises UserError where they cannot be written."""
        save(self.figure(), stem, ("svg", "pdf"))
        stem.with_name(f"{stem.name}.png").write_bytes(self.png())

    def figure(self) -> Figure:
        """At a column's width, the images at their own resolution, the names as text."""
        with paper_style():
            figure = Figure()
            figure.set_layout_engine("none")
            width = figure.get_figwidth()
            widest = max(map(_width, self.rows))
            left = min(widest, width / 4) + 2 * GAP
            cell = (width - left) / len(self.columns)
            size = min(NAMES, NAMES * (cell - GAP) / max(map(_width, self.columns)))
            top = NAMES / 72 + 2 * GAP
            height = top + cell * len(self.rows)
            figure.set_figheight(height)
            for y, (name, images) in enumerate(self.rows.items()):
                bottom = height - top - cell * (y + 1)
                text = {
                    "parse_math": False,
                    "size": NAMES * min(1, (left - 2 * GAP) / widest),
                    "ha": "right",
                    "va": "center",
                }
                figure.text((left - GAP) / width, (bottom + cell / 2) / height, figure_label(name), **text)
                for x, image in enumerate(images):
                    sides = (left + cell * x) / width, bottom / height, (cell - GAP) / width, (cell - GAP) / height
                    axis = figure.add_axes(sides)
                    axis.imshow(image.permute(1, 2, 0).numpy(), interpolation="none")
                    axis.set_axis_off()
            for x, title in enumerate(self.columns):
                text = {"parse_math": False, "size": size, "ha": "center", "va": "bottom"}
                middle = left + cell * x + (cell - GAP) / 2
                figure.text(middle / width, (height - top + GAP) / height, figure_label(title), **text)
        return figure


def _width(name: str) -> float:
    """Of a name at full size, in inches."""
    with paper_style():
        return float(TextPath((0, 0), figure_label(name).replace("$", r"\$"), size=NAMES).get_extents().width) / 72
