"""The page of a made-up study: what stands in it, and what is said of what does not."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from causalclip.page import command
from causalclip.page.explained import explanations
from causalclip.page.gallery import Answered, gallery
from causalclip.page.settings import differences, said
from causalclip.page.study import Study
from causalclip.page.study_view import protocols
from causalclip.page.thumbnails import embedded_json, thumbnail


def test_every_result_has_its_section_and_every_link_leads_somewhere(outline, study):
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {run.anchor for run in study.runs} <= set(ids)
    links = [a["href"] for tag, a in outline.tags if tag == "a"]
    assert len(links) > 10
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_the_page_is_alone(outline):
    for tag, attributes in outline.tags:
        assert tag not in ("iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, f"{tag} {name}={value}"


def test_names_of_classes_stay_text(outline, page):
    scripts = [attributes for tag, attributes in outline.tags if tag == "script"]
    assert len(scripts) == 2  # the gallery's data and the page's own
    source = page.read_text()
    assert "<script>alert" not in source
    assert "\\u003cscript>alert(" in source
    assert "&lt;script&gt;" in source  # in the confusion matrix, an SVG


def test_json_in_a_script_cannot_end_it_and_reads_back():
    value = {"a": "</script><!--\u2028", "b": [1e-69, None]}
    text = embedded_json(value)
    assert "<" not in text
    assert json.loads(text) == value


def test_what_could_not_be_read_is_named_and_the_rest_is_shown(outline, study_root):
    for name in ("empty/results.json", "newer/results.json", "lodo_cut/predictions.npz"):
        assert str(study_root / name) in outline.text
    assert "Its predictions cannot be read" in outline.text
    assert "3 that could not be read or used" in outline.text


def test_every_kind_of_figure_is_drawn(outline):
    labels = " ".join(a["aria-label"] for tag, a in outline.tags if tag == "svg")
    wanted = ["epoch", "confidence", "coverage", "taken for which", "histograms for right", "each"]
    wanted += [
        "accuracy of each template",
        "each template's uncertainty",
        "conflict",
        "eigenvalues",
        "energy kept",
        "cell of the grid",
        "resampled",
    ]
    for words in wanted:
        assert words in labels, words


def test_figures_take_their_ink_from_the_page(page):
    svg = re.search(r"<svg.*?</svg>", page.read_text(), re.DOTALL)[0]
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert "<metadata" not in svg


def test_every_marker_and_clip_of_a_figure_is_in_the_same_figure(page):
    for svg in re.findall(r"<svg.*?</svg>", page.read_text(), re.DOTALL):
        used = re.findall(r'(?:url\(|xlink:href=")#([^")]+)', svg)
        assert set(used) <= set(re.findall(r' id="([^"]+)"', svg))
        assert used


def test_a_folder_without_results_is_an_error(tmp_path, capsys):
    assert command.main([str(tmp_path)]) == 2
    assert f"no finished runs below {tmp_path}" in capsys.readouterr().err
    assert command.main([str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_folder_with_nothing_but_damaged_results_names_them(tmp_path, capsys):
    (tmp_path / "results.json").write_text('{"schema": 2, "trai')
    assert command.main([str(tmp_path)]) == 2
    assert "results.json: cut or damaged" in capsys.readouterr().err


# Tables


@pytest.fixture
def cells(outline):
    """The attributes of every cell."""
    return [attributes for tag, attributes in outline.tags if tag == "td"]


@pytest.fixture(scope="module")
def table_of(study):
    """A function name of a protocol -> its first table."""
    tables = {view.name: view.tables[0] for view in protocols(study)}
    return tables.__getitem__


def test_the_worst_domain_is_marked_in_each_row(table_of):
    table = table_of("lodo")
    for row in table.rows:
        marked = [cell for cell in row if cell.worst]
        pairs = zip(row, table.columns, strict=True)
        values = {cell.value for cell, name in pairs if name in ("art", "photo")}
        if len(marked) == 1:
            assert marked[0].value == np.nanmin(list(values))
    assert any(cell.worst for row in table.rows for cell in row)


def test_a_cell_leads_to_the_run_it_is_of(study, table_of):
    table = table_of("base2new")
    row = table.rows[0]
    by_anchor = {f"#{run.anchor}": run for run in study.runs}
    for half in ("base", "new"):
        cell = row[list(table.columns).index(half)]
        assert by_anchor[cell.link].result.subsample_classes == half
        assert by_anchor[cell.link].result.metrics["accuracy"] == cell.value


# Settings


def test_settings_beside_the_recipe_come_with_both_values(study):
    found = differences(study.runs[0].result)
    assert ("OPTIM.LR", "0.0035", "0.5") in found
    assert all(key != "OPTIM.MAX_EPOCH" for key, *_ in found)  # 20, as in tiny_m4.yaml
    assert all(key != "SEED" for key, *_ in found)


def test_a_tuple_of_yaml_is_the_list_of_json():
    assert said("(32, 32)") == said([32, 32])
    assert said("1e-5") == said(1e-5)


# Pictures explained


def test_an_explained_picture_is_shown_with_what_it_says(outline, study_root):
    said = 'x.png: <script>alert("1")</script>, p 0.9; what speaks for it'
    (shown,) = [a for tag, a in outline.tags if tag == "img" and a["alt"] == said]
    assert shown["src"].startswith("data:image/jpeg")
    assert shown["width"] == "990"  # six panels of 165
    assert said in outline.text
    broken = study_root / "base" / "explained" / "y.gradient.png"
    assert f"{broken}: not readable" in outline.text


def test_explained_pictures_are_capped_in_turn_and_the_others_counted(study, tmp_path):
    runs = [replace(run, file=tmp_path / run.anchor / "results.json") for run in study.runs[:3]]
    for run, count in zip(runs, (5, 2, 0), strict=True):
        (run.folder / "explained").mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (9, 9)).save(run.folder / "explained" / f"{number}.png")
    first, second = explanations(runs, most=4).values()  # the third has none
    assert ([one.said for one in first.shown], first.left_out) == (["0.png", "1.png"], 3)
    assert ([one.said for one in second.shown], second.left_out) == (["0.png", "1.png"], 0)


# The gallery


def test_a_missing_image_and_a_broken_one_say_so(tmp_path):
    (tmp_path / "cut.png").write_bytes(b"no image")
    assert thumbnail(tmp_path / "none.png") == ("", "no such file")
    assert thumbnail(tmp_path / "cut.png") == ("", "not readable (UnidentifiedImageError)")


def test_the_cap_is_kept_and_said(study, outline):
    answered = [Answered.of(run, run.answers()) for run in study.runs[:2]]
    found = gallery(answered, cap=7)
    assert len(found["images"]) == 7
    assert found["total"] == 40
    assert "25 of 40 test images" in outline.text
    assert "15 are left out" in outline.text


def test_what_is_said_of_an_image_is_what_the_arrays_say(study):
    run = study.runs[0]
    answers = run.answers()
    (found,) = gallery([Answered.of(run, answers)], cap=40)["runs"]
    assert len(found["items"]) == len(answers.labels)
    row = 5
    _, label, prediction, p, u, conflict, votes = found["items"][row]
    assert label == answers.labels[row]
    assert prediction == answers.probabilities[row].argmax()
    assert p == pytest.approx(answers.probabilities[row].max(), rel=1e-3)
    assert u == pytest.approx(answers.uncertainty[row], rel=1e-3)
    assert conflict == pytest.approx(answers.conflict[row], rel=1e-3)
    assert [vote for vote, _ in votes] == answers.templates[row].argmax(-1).tolist()


def test_thirty_three_runs_with_ten_thousand_images_stay_below_20_mb(tmp_path, write_one):
    from causalclip.page.run_view import view_of

    names = [f"class {k}" for k in range(10)]
    training = {"curve": {"epoch": [], "loss": [], "accuracy": []}}
    write_one(tmp_path, "one", n=10_000, templates=4, names=names, training=training)
    study = Study.read(tmp_path)
    (run,) = study.runs
    answers = run.answers()
    view = view_of(study, run, answers)
    drawn = sum(len(drawing.svg) for drawing in view.drawings)
    shown = gallery([Answered.of(run, answers)] * 33, cap=300)
    pictures = 300 * 4 * 96 * 96 / 3  # no JPEG of this size and quality is that large
    assert 33 * (drawn + 20_000) + len(embedded_json(shown)) + pictures < 20e6
