"""Names that other people chose, in every form that a comparison is shown in."""

import csv
import io
from html.parser import HTMLParser

import pytest
from read_runs import run
from rich.console import Console

from registry import AttentionSite, HeadGroup
from stylenat.comparison.foreign import csv_cell, file_name, markdown_cell
from stylenat.comparison.plots import curves, pareto, save
from stylenat.comparison.report import Pictures, report
from stylenat.comparison.results import compared_runs
from stylenat.comparison.table import as_csv, markdown, print_tables
from stylenat.evaluation.protocol import Result
from stylenat.grids import labelled_rows
from stylenat.receptive_field import save_neighborhoods, terminal_picture
from stylenat.testing.contract import pictures

NAMES = ["z[/b]", "exp[lr=1e-3]", "a$b_c", r"$\frac{", "=cmd()", "<b>|`x`", "\x1b[31mred\n", "_hidden", "**bold**"]
PROTOCOL = {"metric": {"name": "m", "better": "lower", "uses_real": False}}


@pytest.fixture
def comparison():
    """Variants and a metric of every such name; the first is the best."""
    runs = [run("x", 1.0 + i, 80, settings={"name": name}, label=name) for i, name in enumerate(NAMES)]
    for one in runs:
        results = tuple(Result(name, one.results[0].value, 20, 80, None, protocol=PROTOCOL) for name in NAMES)
        object.__setattr__(one, "results", results)
    return compared_runs(runs, "a$b_c [/b] <i>\x1b[0m")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+a", "'+a"),
        ("-a", "'-a"),
        ("@partition.split()", "'@partition.split()"),
        (" =1", "' =1"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("-1.5e-3", "-1.5e-3"),
        ("+2", "+2"),
        ("name", "name"),
        (-1.5, -1.5),
        ("", ""),
    ],
)
def test_a_spreadsheet_runs_no_cell_and_reads_numbers_as_numbers(value, cell):
    assert csv_cell(value) == cell


def test_the_csv_holds_no_formula(comparison):
    for row in csv.reader(io.StringIO(as_csv(comparison, {}))):
        assert all(cell[:1] not in tuple("=+@\t\r") and "\x1b" not in cell for cell in row)


def test_markdown_cells_are_text(comparison):
    assert markdown_cell("<b>|`x`[y](z)**w**\n") == r"&lt;b&gt;\|\`x\`\[y\](z)\*\*w\*\*\\n"
    assert markdown_cell("_a_b_ __c__ ~d~ $e$") == r"\_a_b\_ \_\_c\_\_ \~d\~ \$e\$"
    assert markdown_cell("https://a.example WWW.b.example") == r"https:\//a.example WWW\.b.example"
    text = markdown(comparison, {})
    assert "<" not in text and "\x1b" not in text
    parts = [[line for line in part.splitlines() if line.startswith("|")] for part in text.split("\n\n")]
    found = [part for part in parts if part]
    assert len(found) == 1 + len(NAMES)  # The variants, and a table for each metric.
    for lines in found:
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1 and len(lines) == 2 + len(NAMES)


def test_the_terminals_table_shows_names_as_they_are(comparison):
    out = io.StringIO()
    console = Console(file=out, width=800, force_terminal=True, color_system=None)
    print_tables(console, comparison, {})
    shown = out.getvalue()
    for name in ("z[/b]", "exp[lr=1e-3]", "a$b_c", r"\x1b[31mred\n", "<b>|`x`"):
        assert f" {name} " in shown
    assert "\x1b[31m" not in shown


def test_the_report_is_text_and_marks_only_what_is_best(comparison):
    page = report(comparison, {}, Pictures(heads={NAMES[0]: b""}), None, ["\x1b]0;x\x07"], [])
    tags, best = set(), []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags.add(tag)
            best.extend(value for name, value in attributes if name == "class" and "best" in value)

    Parser().feed(page)
    assert "i" not in tags and "\x1b" not in page and "exp[lr=1e-3]" in page
    assert len(best) == len(NAMES)  # One a metric.


def test_figures_show_a_dollar_sign_as_one(comparison, tmp_path):
    for metric in NAMES[2:4]:
        figure = curves(comparison, metric)
        save(figure, tmp_path / file_name(f"curve-{metric}", set()))
    costs = {group.name: float(i) for i, group in enumerate(comparison.groups)}
    figure = pareto(comparison, NAMES[2], "cost", costs, True)
    figure.draw_without_rendering()
    labels = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert {"a$b_c", "_hidden", r"$\frac{", r"\x1b[31mred\n"} <= set(labels) and len(labels) == len(NAMES)
    assert figure.axes[0].get_ylabel().startswith("a$b_c")


def test_metrics_name_files_in_the_folder_alone(tmp_path):
    taken = set()
    names = [
        file_name(name, taken) for name in ("curve-a/b", "curve-a_b", "curve-../../x", "curve-fid.v2", "curve-FID.V2")
    ]
    assert names == ["curve-a_b", "curve-a_b-2", "curve-.._.._x", "curve-fid.v2", "curve-FID.V2-2"]


def test_pictures_of_receptive_fields_and_samples_take_any_name(tmp_path):
    site, groups = AttentionSite(8, 2, 16), [HeadGroup(2, 3, 1)]
    for name in NAMES[2:8:2]:
        save_neighborhoods(tmp_path / "seen.png", name, [(site, groups)])
        assert labelled_rows({name: pictures(2, 8), f"{name}'": pictures(2, 8)}, ["a", "b\n"]).ndim == 3
    assert "\x1b" not in terminal_picture(_refusing, [site])


def _refusing(site):
    from registry import UserError

    raise UserError("\x1b[31m$no$")
