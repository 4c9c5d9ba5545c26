"""What is shown of foreign text."""

import pytest

from registry.wording import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("generator.weight", "generator.weight"),
        ("Zürich 日本 [bold] $x$", "Zürich 日本 [bold] $x$"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("one\ntwo\r\t", r"one\ntwo\r\t"),
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
        (b"\xff.png".decode("utf-8", "surrogateescape"), r"\udcff.png"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_foreign_text_is_one_line_without_anything_that_a_terminal_acts_on(text, shown):
    assert printable(text) == shown


def test_a_very_long_text_loses_its_middle():
    shown = printable("a" * 10_000 + "z", limit=100)
    assert len(shown) < 100
    assert shown.startswith("a" * 50)
    assert shown.endswith("z")
