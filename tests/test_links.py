"""Links in Markdown files lead to files and headings that exist, and the index of docs/ lists every page."""

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "plugins/**/*.md") for path in ROOT.glob(pattern)
)


def tokens(path: Path):
    return MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Of a page's headings, by GitHub's rule."""
    found: set[str] = set()
    all_tokens = tokens(path)
    for opening, inline in zip(all_tokens, all_tokens[1:], strict=False):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(next(name for name in (slug, *(f"{slug}-{i}" for i in range(1, 100))) if name not in found))
    return found


def links(path: Path) -> list[str]:
    children = [child for token in tokens(path) for child in token.children or ()]
    found = [child.attrGet("href") or child.attrGet("src") for child in children]
    return [str(link) for link in found if link]


def broken(path: Path) -> list[str]:
    """A page's links to files and headings that do not exist. Addresses of other hosts are not looked up."""
    found = []
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    assert broken(path) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# One `two`, three\n")
    table = "| [e](there.md#gone) |\n|---|\n| [f](#no) |\n"
    text = f"[a](there.md) [b](there.md#one-two-three) [c](gone.md) ![d](gone.png)\n\n{table}"
    (tmp_path / "page.md").write_text(text)
    assert broken(tmp_path / "page.md") == ["gone.md", "gone.png", "there.md#gone", "#no"]


def test_the_index_lists_every_page():
    listed = {link.partition("#")[0] for link in links(ROOT / "docs" / "README.md")}
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= listed
