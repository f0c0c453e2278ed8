"""The command `causalclip plot`: figures and tables as files."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from causalclip.page import plot_command
from causalclip.page.figures import run_figures, study_figures
from causalclip.page.options import FIGURE_KINDS
from causalclip.page.study import Study
from causalclip.plots.style import PRINT_STYLE, WIDTHS


def test_a_figure_of_every_run_that_has_one_is_written(study_root, tmp_path, capsys):
    options = ["templates", str(study_root), "--format", "svg", "--to", str(tmp_path)]
    assert plot_command.main(options) == 0
    files = sorted(tmp_path.glob("*.svg"))
    assert len(files) == 2  # both halves of CDC
    printed = capsys.readouterr()
    assert all(f"wrote {file}" in printed.out for file in files)
    assert "left out: " in printed.err  # of the study's broken files
    texts = {element.text for element in ET.parse(files[0]).iter() if element.text}
    assert "S4" in texts  # text stays text


def test_sizes_are_those_of_a_column_and_a_page(study_root, tmp_path):
    for width, points in (("column", 3.35 * 72), ("page", 6.9 * 72)):
        options = ["energy", str(study_root), "--format", "svg", "--width", width]
        assert plot_command.main([*options, "--to", str(tmp_path / width)]) == 0
        (file, _) = (tmp_path / width).glob("*.svg")
        written = ET.parse(file).getroot().attrib["width"].removesuffix("pt")
        assert float(written) == pytest.approx(points)


def test_every_table_is_a_file_and_a_method_is_selected(study_root, tmp_path):
    assert plot_command.main(["tables", str(study_root), "--to", str(tmp_path)]) == 0
    text = "".join(file.read_text() for file in tmp_path.glob("*.tex"))
    assert text.count(r"\toprule") == len(list(tmp_path.iterdir())) > 1
    assert r"CLIP\_ICM" in text
    options = ["risk", str(study_root), "--to", str(tmp_path / "icm"), "--method", "CLIP_ICM"]
    assert plot_command.main(options) == 0
    names = [file.name for file in (tmp_path / "icm").iterdir()]
    assert len(names) == 2
    assert all("clip_icm" in name for name in names)


def test_nothing_to_draw_is_an_error(study_root, capsys):
    assert plot_command.main(["fewshot", str(study_root)]) == 2
    assert "makes a figure of fewshot" in capsys.readouterr().err


def test_few_shots_make_curves_and_a_comparison(tmp_path, write_one):
    for trainer in ("CDC", "CoOp"):
        for shots in (1, 4):
            few = {"trainer": trainer, "shots": shots, "protocol": "fewshot"}
            write_one(tmp_path, f"{trainer}/{shots}", n=6, **few)
    study = Study.read(tmp_path)
    plots = list(study_figures(study, study.scores))
    assert [plot.kind for plot in plots] == ["overview", "comparison", "fewshot"]


def test_a_paper_has_each_kind_once_and_of_the_leading_method(study_root, tmp_path):
    assert plot_command.main(["paper", str(study_root), "--to", str(tmp_path)]) == 0
    names = {file.stem for file in tmp_path.iterdir()}
    assert names == set(FIGURE_KINDS) - {"comparison", "fewshot", "cost"} | {
        "comparison_leave_one_domain_out_set_16_shots"  # the protocol with several methods
    }


LONG = "ClassConditionalPromptTuning (vit_b16_ep50_ctxv1, LR=0.0035)"


@pytest.fixture
def style():
    """Of files; also while their ticks are looked at."""
    with matplotlib.rc_context(PRINT_STYLE):
        yield


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("width", WIDTHS.values())
@pytest.mark.parametrize(("methods", "seeds"), [(3, 5), (19, 1)])
def test_no_text_of_a_comparison_overlaps_and_intervals_are_inside(methods, seeds, width):
    rng, names = np.random.default_rng(0), [f"{LONG} {k}" for k in range(methods)]
    keys = {"protocol": "fewshot", "variant": "", "table": "t", "dataset": "d"}
    rows = [
        {**keys, "method": m, "seed": s, "shots": k, "quantity": f"{k} shots", "value": value}
        for m in names
        for k in (1, 2, 4, 8, 16)
        for s, value in enumerate(rng.uniform(60, 99, seeds))
    ]
    scores = pd.DataFrame(rows).assign(compared="accuracy")
    study = SimpleNamespace(root="study", numbers={name: k for k, name in enumerate(names)})
    for plot in study_figures(study, scores):
        figure = drawn(plot, width)
        assert_legible(figure)
        for axes in figure.axes:
            low, high = axes.get_xlim()
            for collection in axes.collections if plot.kind != "fewshot" else ():
                ends = np.concatenate(collection.get_segments())[:, 0]
                assert low < ends.min() and ends.max() < high


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("width", WIDTHS.values())
def test_no_text_of_a_run_overlaps(study, width):
    for run in study.runs:
        answers = None if run.file in study.broken else run.answers()
        for plot in run_figures(study, run, answers):
            assert_legible(drawn(plot, width))


def drawn(plot, width):
    """The figure, laid out."""
    figure = Figure(figsize=plot.size(width))
    FigureCanvasAgg(figure)
    plot.draw(figure, *plot.data)
    figure.canvas.draw()
    return figure


def assert_legible(figure):
    """Fail if a text is outside the figure, overlaps another one or is smaller than 6 points."""
    boxes, labels = [], tick_labels(figure)
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and labels.get(text, True):
            box = text.get_window_extent()
            assert text.get_fontsize() >= 6
            assert box.x0 > -1 and box.y0 > -1, text
            assert box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1, text
            boxes.append((text.get_text(), box.padded(-1)))
    assert len(boxes) > 2
    for (a, one), (b, other) in combinations(boxes, 2):
        assert not one.overlaps(other), f"{a!r} and {b!r}"


def tick_labels(figure):
    """Return for each text of a tick whether it is within its axis, where matplotlib draws it."""
    labels = {}
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        within = axis._update_ticks() if axis.axes.axison else []
        for tick in [*axis.majorTicks, *axis.minorTicks]:
            labels |= {tick.label1: tick in within and tick.label1.get_visible()}
            labels |= {tick.label2: False}
    return labels
