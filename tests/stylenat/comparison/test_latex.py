"""Tables to print: what LaTeX reads, and, where it is installed, that it does."""

import shutil
import subprocess

import pytest
from read_runs import PROTOCOL, run

from stylenat.comparison.foreign import latex_text
from stylenat.comparison.groups import Spread
from stylenat.comparison.latex import PREAMBLE, latex
from stylenat.comparison.results import compared_runs

FIELDS = {"generated": {"count": 500, "truncation_psi": 1.0}, "real": {"count": 100}}
VALUES = {"a_b": (3.0, 5.0, 4.1), "c%d": (2.0, 4.05, 3.0), "e$f^g": (2.1, 3.9, 3.2)}


@pytest.fixture
def comparison():
    protocol = {"metric": {**PROTOCOL["metric"], "uses_real": True}, **FIELDS}
    runs = [run(name, v, 80, seed=i, label=name) for name, values in VALUES.items() for i, v in enumerate(values)]
    for one in runs:
        for result in one.results:
            object.__setattr__(result, "protocol", protocol)
    return compared_runs(runs, "my_ablation", order=list(VALUES))


def test_the_table_has_siunitx_columns_bold_marks_and_a_caption_that_says_what_was_done(comparison):
    text = latex(comparison, {"images/s sampling": {name: Spread((10.0, 12.0)) for name in VALUES}})
    assert r"\toprule" in text and "S[table-format = 1.2(3), table-align-text-after = false" in text
    assert r"\bfseries 3.02 +- 1.03" in text and "4.03 +- 1.00{$^{*}$}" in text and "11.0 +- 1.4" in text
    said = (
        r"my\_ablation: mean $\pm$ standard deviation over 3 seeds (0, 1, 2) after 80 real images. "
        r"fid (lower is better): 500 generated images, 100 real images, no truncation. "
        r"Bold: best mean. *: differs from the best mean, p "
        r"\textless{} 0.05 (paired t-test over seeds, Holm's correction)"
    )
    assert said in text and r"With 3 seeds a difference reaches 5\,\% only if" in text
    assert r"fid & a\_b & $+1.02\;[" in text


def test_names_are_text_in_latex():
    assert latex_text("a_b$\\cmd{x}") == r"a\_b\$\textbackslash{}cmd\{x\}"
    assert latex_text("~^<") == r"\textasciitilde{}\textasciicircum{}\textless{}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_reads_it_without_a_complaint(comparison, tmp_path):
    for package in ("booktabs.sty", "siunitx.sty"):
        if not subprocess.run(["kpsewhich", package], capture_output=True, check=False).stdout:
            pytest.skip(f"LaTeX has no {package}")
    head = PREAMBLE.removeprefix("% Preamble:")
    page = latex(comparison, {})
    (tmp_path / "t.tex").write_text(f"\\documentclass{{article}}{head}\\begin{{document}}\n{page}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0 and "Overfull" not in done.stdout, done.stdout[-2000:]
