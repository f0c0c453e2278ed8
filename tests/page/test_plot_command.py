"""Figures and tables as files."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from causalclip.page import command, plot_command, run_view
from causalclip.page.cells import Cell, Table, of_rows
from causalclip.page.figures import study_figures
from causalclip.page.latex import escaped, latex, latex_tables
from causalclip.page.study import Study

INSTALL = "apt-get install texlive-latex-base texlive-latex-recommended"


def test_a_figure_of_every_run_that_has_one_is_written(study_root, tmp_path, capsys):
    asked = ["templates", str(study_root), "--format", "svg", "--to", str(tmp_path)]
    assert plot_command.main(asked) == 0
    files = sorted(tmp_path.glob("*.svg"))
    assert len(files) == 2  # both halves of CDC
    assert all(f"wrote {file}" in capsys.readouterr().out for file in files[:1])
    texts = {element.text for element in ET.parse(files[0]).iter() if element.text}
    assert "S4" in texts  # text stays text


def test_sizes_are_those_of_a_column_and_a_page(study_root, tmp_path):
    for width, points in (("column", 3.35 * 72), ("page", 6.9 * 72)):
        asked = ["energy", str(study_root), "--format", "svg", "--width", width]
        assert plot_command.main([*asked, "--to", str(tmp_path / width)]) == 0
        (file, _) = (tmp_path / width).glob("*.svg")
        written = ET.parse(file).getroot().attrib["width"].removesuffix("pt")
        assert float(written) == pytest.approx(points)


def test_nothing_to_draw_is_said(study_root, capsys):
    assert plot_command.main(["fewshot", str(study_root)]) == 2
    assert "makes a figure of fewshot" in capsys.readouterr().err


def test_few_shots_make_curves_beside_the_comparison(tmp_path, write_one):
    for trainer in ("CDC", "CoOp"):
        for shots in (1, 4):
            few = {"trainer": trainer, "shots": shots, "protocol": "fewshot"}
            write_one(tmp_path, f"{trainer}/{shots}", n=6, **few)
    kinds = [figure.kind for figure in study_figures(Study.read(tmp_path).scores)]
    assert kinds == ["comparison", "fewshot"]


def test_a_comparison_of_very_many_readings_shows_the_methods_own(tmp_path, write_one):
    write_one(tmp_path, "one")
    scores = Study.read(tmp_path).scores
    many = pd.concat([scores.assign(method=f"m{k}", variant="v" * (k > 1)) for k in range(30)])
    (figure,) = study_figures(many)
    assert figure.draw.keywords["rows"]["method"].unique().tolist() == ["m0", "m1"]


def test_tables_have_the_rules_of_booktabs_and_escaped_names(study_root, tmp_path):
    assert plot_command.main(["tables", str(study_root), "--to", str(tmp_path)]) == 0
    text = "".join(file.read_text() for file in tmp_path.glob("*.tex"))
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(list(tmp_path.iterdir()))
    assert r"CLIP\_ICM" in text
    body = re.search(r"\\begin\{tabular\}\{(\w+)\}.*?\\midrule\n(.*?)\\\\", text, re.DOTALL)
    assert body[2].count("&") == len(body[1]) - 1


def test_the_best_is_bold():
    row = [Cell("a", "a"), Cell("9.0 ± 1.0", 9.0, best=True)]
    assert r"a & \textbf{9.0 $\pm$ 1.0} \\" in latex(Table("t", ["method", "x"], [row]))


NAMES = ["<b>", "a_b $x$ & 50 % #1 {y} \\z ~^|", "[a]", "* b", "é \u2013 “q” … → · ±", "l" * 90]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason=f"no pdflatex: {INSTALL}")
def test_tables_compile_and_fit_the_page(study, tmp_path):
    nasty = of_rows("100 % of a_b", ["name", "x_1"], [[name, 1.0] for name in NAMES])
    wide = of_rows("wide", [f"column {k}" for k in range(30)], [[1.0] * 30])
    files = latex_tables(study.scores, tmp_path)
    tables = [file.read_text() for file in files] + [latex(nasty), latex(wide)]
    packages = tables[0].split()[1]
    document = [r"\documentclass{article}", packages, r"\begin{document}", *tables]
    (tmp_path / "all.tex").write_text("\n".join([*document, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "Output written on all.pdf" in said, said[-1000:]
    assert "Overfull" not in said


def test_letters_that_pdflatex_lacks_are_said():
    row = [[Cell("日本語 é", "日本語 é")]]
    assert "\n% for xelatex, with a font that has 日本語\n" in latex(Table("t", ["a"], row))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % & $x_1$", r"50 \% \& \$x\_1\$"),
        ("\\^~", r"\textbackslash{}\textasciicircum{}\textasciitilde{}"),
    ],
)
def test_what_latex_would_take_for_a_command_stays_text(text, expected):
    assert escaped(text) == expected


# Watching


def test_the_best_so_far_is_that_of_each_table(study):
    lines = command.best_so_far(study).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Base-to-novel: Set, 16 shots: best so far CDC")


def test_a_watch_writes_again_only_what_is_new_and_rests_at_the_end(
    tmp_path, write_one, monkeypatch, capsys
):
    naps = iter(range(6))
    write_one(tmp_path, "one")

    def sleep(seconds):
        if next(naps) == 2:
            write_one(tmp_path, "two", seed=2)
        elif next(naps, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", sleep)
    monkeypatch.setattr(run_view, "run_figures", lambda *_: [])  # of other tests
    assert command.main([str(tmp_path), "--watch", "5"]) == 0
    printed = capsys.readouterr().out
    assert "1 results" in printed
    assert "2 results" in printed
    assert 'data-refresh="0"' in (tmp_path / "report.html").read_text()


def test_a_second_look_draws_nothing_anew(study, monkeypatch):
    from causalclip.page import render

    drawn = []
    monkeypatch.setattr(render, "view_of", lambda study, run, answers: drawn.append(run))
    renderer = render.Renderer()
    for _ in range(2):
        again = Study.read(study.root)
        for run in again.runs:
            renderer._draw(again, run)
    assert len(drawn) == len(study.runs)
