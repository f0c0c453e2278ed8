"""Tables: LaTeX that compiles, with rules of booktabs and escaped names; parts in a terminal."""

from __future__ import annotations

import re
import shutil
import subprocess

import pandas as pd
import pytest

from causalclip.report.formats import format_tables, latex_table, latex_text

INSTALL = "apt-get install texlive-latex-base texlive-latex-recommended"
NAMES = ["<b>", "a_b $x$ & 50 % #1 {y} \\z ~^|", "[a]", "* b", "é \u2013 “q” … → · ±", "l" * 90]


def test_a_table_has_the_rules_of_booktabs_and_the_best_in_bold():
    table = pd.DataFrame({"method": ["a_b", "c"], "seeds": 2, "x": [9.0, 8.0], "x sd": [1.0, 0.5]})
    text = latex_table("50 % off", table)
    assert r"\caption{50 \% off (mean $\pm$ standard deviation over seeds)}" in text
    assert r"\begin{tabular}{lrr}" in text
    assert "\\toprule\nmethod & seeds & x \\\\\n\\midrule\n" in text
    assert "a\\_b & 2 & \\textbf{9.0 $\\pm$ 1.0} \\\\\nc & 2 & 8.0 $\\pm$ 0.5 \\\\\n" in text
    lower = table.rename(columns={"x": "ECE base", "x sd": "ECE base sd"})
    assert r"\textbf{8.0 $\pm$ 0.5}" in latex_table("lower is better", lower)


def test_a_reading_of_a_method_is_never_the_best():
    table = pd.DataFrame({"method": ["a", "a, fused", "b"], "x": [8.0, 9.0, 7.0]})
    table.attrs["readings"] = ["a, fused"]
    text = latex_table("t", table)
    assert "a & \\textbf{8.0}" in text and "a, fused & 9.0" in text
    assert "textbf" not in latex_table("one method", table.iloc[:2])


@pytest.mark.skipif(not shutil.which("pdflatex"), reason=f"no pdflatex: {INSTALL}")
def test_tables_compile_and_fit_the_page(tmp_path):
    nasty = pd.DataFrame({"method": NAMES, "x_1": 1.0})
    wide = pd.DataFrame({f"column {k}": [1.0] for k in range(30)})
    tables = [latex_table("100 % of a_b", nasty), latex_table("wide", wide)]
    packages = tables[0].split()[1]
    document = [r"\documentclass{article}", packages, r"\begin{document}", *tables]
    (tmp_path / "all.tex").write_text("\n".join([*document, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "Output written on all.pdf" in printed, printed[-1000:]
    assert "Overfull" not in printed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % & $x_1$", r"50 \% \& \$x\_1\$"),
        ("\\^~", r"\textbackslash{}\textasciicircum{}\textasciitilde{}"),
        ("{#}", r"\{\#\}"),
    ],
)
def test_what_latex_would_take_for_a_command_stays_text(text, expected):
    assert latex_text(text) == expected


def test_a_table_wider_than_the_terminal_is_divided_into_parts_that_name_the_rows():
    table = pd.DataFrame({"method": ["CoOp", "CDC"], **{f"column {i}": [i, -i] for i in range(9)}})
    whole = format_tables([("t", table)], "markdown").splitlines()
    parts = format_tables([("t", table)], "markdown", width=60).splitlines()
    assert max(map(len, whole)) > 60 >= max(map(len, parts))
    rows = [line for line in parts if line.startswith("| CDC ")]
    assert len(rows) > 1
    assert re.findall(r"(-?\d+) \|", " ".join(rows)) == re.findall(r"(-?\d+) \|", whole[-1])
