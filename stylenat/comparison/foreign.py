"""Foreign text (names of variants, metrics, parameters) in each form that a comparison is written in."""

import html
import re

from registry.wording import printable


def csv_cell(value: object) -> object:
    """Numbers as they are. Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@＝＋－＠") and not _number(text) else text


MARKUP = re.compile(r"[\\`*|\[\]~$]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=\bwww)\.", re.IGNORECASE)
"""Characters that Markdown, or GitHub's, takes for markup: also a bare address, and _ at the end of a word."""


def markdown_cell(text: str) -> str:
    """Text of a Markdown cell: nothing in it is markup, a link or HTML, or ends the cell."""
    return MARKUP.sub(r"\\\g<0>", html.escape(printable(text), quote=False))


LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$"},
}


def latex_text(text: object) -> str:
    """Text in LaTeX, where no character of it is a command. What is not ASCII is left to LaTeX's UTF-8."""
    return "".join(LATEX.get(character, character) for character in printable(text))


def html_text(text: object) -> str:
    """Text in HTML, also within an attribute's quotes."""
    return html.escape(printable(text))


def figure_label(text: object) -> str:
    """Text in a figure that takes ``parse_math=False``. Matplotlib leaves out of legends what begins with _."""
    shown = printable(text, 200)
    return f" {shown}" if shown.startswith("_") else shown


def file_name(text: str, taken: set[str]) -> str:
    """A name for a file, which is then taken: letters, digits and ``_ . + -`` as they are, anything else as _."""
    name = re.sub(r"[^\w.+-]", "_", text, flags=re.ASCII)[:80]
    number = 1
    while (found := name if number == 1 else f"{name}-{number}").lower() in taken:
        number += 1
    taken.add(found.lower())
    return found


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
