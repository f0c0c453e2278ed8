"""The report page of a synthetic study: its content, and its notes on what is left out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page.conftest import HEAD
from PIL import Image

from causalclip.page import command
from causalclip.page.answer import answers, methods_table
from causalclip.page.command import Renderer, script_json
from causalclip.page.figures import cost_figures, uncertainty_by_group
from causalclip.page.gallery import PictureRoots, explanations, gallery, gallery_rows, thumbnail
from causalclip.page.options import FIGURE_KINDS
from causalclip.page.run_view import (
    IN_TABLES,
    class_table,
    recipe_differences,
    run_view,
    value_text,
)
from causalclip.page.study import Study
from causalclip.page.study_view import protocol_views, runs_table

ROOTS = PictureRoots(Path("/"))


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
    assert [tag for tag, _ in outline.tags].count(
        "script"
    ) == 2  # the gallery's data and the page's
    source = page.read_text()
    assert "<script>alert" not in source
    assert "\\u003cscript>alert(" in source
    assert "&lt;script&gt;" in source  # in the confusion matrix, an SVG
    value = {"a": "</script><!--\u2028", "b": [1e-69, None]}
    assert "<" not in script_json(value)
    assert json.loads(script_json(value)) == value


def test_what_could_not_be_read_is_named_and_the_rest_is_shown(outline, study_root):
    for name in ("empty/results.json", "newer/results.json", "lodo_cut/predictions.npz"):
        assert str(study_root / name) in outline.text
    assert "Its predictions cannot be read" in outline.text
    assert "3 results could not be read or used" in outline.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "lacks label"),
        ({"uncertainty": np.ones(3)}, "every array must have one row a test image"),
        ({"probabilities": np.ones((40, 2)) / 2}, "results.json names 3 classes"),
        ({"uncertainty": np.full(40, np.nan)}, "uncertainty holds NaN or infinity"),
        ({"label": np.zeros(40)}, "label must be of kind"),
        ({"label": np.full(40, 3)}, r"labels must be in \[0, 3\), got 3 .. 3"),
    ],
)
def test_predictions_that_do_not_fit_the_result_are_named(tmp_path, write_one, change, message):
    file = write_one(tmp_path, "one") / "predictions.npz"
    arrays = {**np.load(file), **change}
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    (problem,) = Study.read(tmp_path).problems
    assert re.search(message, problem)
    assert str(file) in problem


@pytest.mark.parametrize(
    ("key", "value"),
    [("training", {"seconds": 1.0, "epochs": "many"}), ("details", {"heads": {"zeroshot": {}}})]
    + [("details", {"heads": {"zeroshot": {**HEAD, name: "x"}}}) for name in ("choice", "grid")],
)
def test_a_result_that_others_wrote_does_not_cost_the_page(tmp_path, write_one, key, value):
    write_one(tmp_path, "one")
    path = write_one(tmp_path, "two", seed=2) / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert "Seed" in Renderer(images=0).page(Study.read(tmp_path)).title()


def test_both_halves_of_a_pair_have_their_uncertainty_in_one_figure(study):
    base, new = study.runs[:2]
    assert new.result.subsample_classes == "new"
    for run in (base, new):
        groups = uncertainty_by_group(study, run, run.answers())
        assert len(groups["right"]) + len(groups["wrong"]) == 40
        assert (groups["new classes"] == new.answers().arrays["uncertainty"]).all()


def test_every_kind_of_figure_is_drawn(outline):
    labels = " ".join(a["aria-label"] for tag, a in outline.tags if tag == "svg")
    several_methods = ("overview", "comparison", "fewshot", "cost")
    for kind, caption in FIGURE_KINDS.items():
        assert caption in labels or kind in (*several_methods, *IN_TABLES), kind


def test_figures_take_their_ink_from_the_page_and_refer_to_their_own_parts(page):
    for svg in re.findall(r"<svg.*?</svg>", page.read_text(), re.DOTALL):
        assert "currentColor" in svg or 'class="chart"' in svg  # those have the page's style
        assert "#010203" not in svg
        assert "<metadata" not in svg
        used = re.findall(r'(?:url\(|xlink:href=")#([^")]+)', svg)
        assert used or 'class="chart"' in svg
        assert set(used) <= set(re.findall(r' id="([^"]+)"', svg))


def test_a_folder_without_a_result_that_can_be_read_is_an_error(tmp_path, capsys):
    assert command.main([str(tmp_path)]) == 2
    assert f"no finished runs below {tmp_path}" in capsys.readouterr().err
    assert command.main([str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    (tmp_path / "results.json").write_text('{"schema": 2, "trai')
    assert command.main([str(tmp_path)]) == 2
    assert "results.json: cut or damaged" in capsys.readouterr().err
    assert command.main([str(tmp_path), "--images", "-1"]) == 2
    assert "--images must be 0 or more" in capsys.readouterr().err


# Tables


@pytest.fixture(scope="module")
def tables(study):
    """The first table of each protocol by name."""
    return {view["name"]: view["tables"][0] for view in protocol_views(study)}


def test_the_worst_domain_is_marked_in_each_row(tables):
    for row in tables["lodo"].rows:
        cells = dict(zip(tables["lodo"].columns, row, strict=True))
        worst = [name for name, cell in cells.items() if cell.worst]
        values = {name: cells[name].value for name in ("art", "photo")}
        complete = not np.isnan([*values.values()]).any()
        assert worst == ([min(values, key=values.get)] if complete else [])


def test_a_cell_leads_to_the_run_it_is_of(study, tables):
    table = tables["base2new"]
    row = table.rows[0]
    by_anchor = {f"#{run.anchor}": run for run in study.runs}
    for half in ("base", "new"):
        cell = row[list(table.columns).index(half)]
        assert by_anchor[cell.link].result.subsample_classes == half
        assert by_anchor[cell.link].result.metrics["accuracy"] == cell.value


# Settings


def test_settings_that_differ_from_the_recipe_come_with_both_values(study):
    # tiny_m4.yaml has MAX_EPOCH 20; the number of workers and another trainer's node do not matter.
    own = {"OPTIM": {"LR": 0.5, "MAX_EPOCH": 20}, "DATALOADER": {"NUM_WORKERS": 3}}
    own |= {"TRAINER": {"CDC": {}, "COOP": {"CSC": True}}, "TEST": {"SPLIT": "val"}}
    given = "OPTIM.LR 0.5 DATALOADER.NUM_WORKERS 3 TRAINER.COOP.CSC True TEST.SPLIT val".split()
    result = replace(study.runs[0].result, config=own, command=["train", *given])
    split = ("TEST.SPLIT", "not in the recipe", "val")
    assert recipe_differences(result) == [("OPTIM.LR", "0.0035", "0.5"), split]


def test_a_recipe_is_looked_up_among_the_installed_ones_alone(study, tmp_path):
    (tmp_path / "own.yaml").write_text("OPTIM: {LR: 0.25}\n")
    config = {"OPTIM": {"LR": 0.5}}
    result = replace(study.runs[0].result, config=config, config_name=str(tmp_path / "own"))
    assert recipe_differences(result) == []


@pytest.mark.parametrize(("yaml", "json"), [("(32, 32)", [32, 32]), ("1e-5", 1e-5), ("x", "x")])
def test_a_value_of_yaml_reads_as_that_of_json(yaml, json):
    assert value_text(yaml) == value_text(json)


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
    first, second = explanations(
        runs, PictureRoots(tmp_path), most=4
    ).values()  # the third has none
    assert ([one["text"] for one in first["shown"]], first["left_out"]) == (["0.png", "1.png"], 3)
    assert ([one["text"] for one in second["shown"]], second["left_out"]) == (["0.png", "1.png"], 0)


# The gallery


def test_a_missing_image_and_a_broken_one_say_so(tmp_path):
    (tmp_path / "cut.png").write_bytes(b"no image")
    assert re.fullmatch(
        r"not readable \(.*[Nn]o (image at|such file).*\)", thumbnail(tmp_path / "none.png")[1]
    )
    (src, reason) = thumbnail(tmp_path / "cut.png")
    assert not src and "cannot identify" in reason


def test_a_picture_outside_the_known_folders_is_not_embedded(study, tmp_path):
    outside, data = tmp_path / "secret" / "a.png", tmp_path / "data"
    for folder in (outside.parent, data, tmp_path / "study"):
        folder.mkdir()
    Image.new("RGB", (9, 9)).save(outside)
    (data / "set").symlink_to(outside.parent)  # the user's own link, as to a large disk
    (tmp_path / "study" / "link.png").symlink_to(outside)  # may be a stranger's
    roots = PictureRoots(tmp_path / "study", [data])
    paths = [outside, data / "../secret/a.png", tmp_path / "study/link.png", data / "set/a.png"]
    answers = study.runs[0].answers()
    names = np.resize([str(path) for path in paths], len(answers.arrays["path"]))
    rows = gallery_rows(replace(answers, arrays={**answers.arrays, "path": names}))
    shown = gallery([(study.runs[0], rows)], roots, cap=9)["images"]
    embedded = {one["path"]: one["src"][:22] for one in shown}
    refused = dict.fromkeys(map(str, paths[:3]), "")
    assert embedded == {**refused, str(paths[3]): "data:image/jpeg;base64"}
    assert "outside the study and --data" in {one["reason"] for one in shown}


def test_the_cap_is_kept_and_stated(study, outline):
    shown = gallery([(run, gallery_rows(run.answers())) for run in study.runs[:2]], ROOTS, cap=7)
    assert (len(shown["images"]), shown["total"]) == (7, 40)
    assert "25 of 40 test images" in outline.text
    assert "15 are left out" in outline.text


def test_the_first_images_are_the_surest_mistake_and_the_most_uncertain(study):
    run = study.runs[0]
    answers = run.answers()
    order = np.argsort(answers.arrays["uncertainty"], kind="stable")
    surest_mistake = next(row for row in order if not answers.correct[row])
    paths = [one["path"] for one in gallery([(run, gallery_rows(answers))], ROOTS, cap=2)["images"]]
    assert paths == list(answers.arrays["path"][[surest_mistake, order[-1]]])


def test_the_numbers_of_an_image_are_those_of_the_arrays(study):
    run, row = study.runs[0], 5
    answers = run.answers()
    arrays = {name: array[row] for name, array in answers.arrays.items()}
    (shown,) = gallery([(run, gallery_rows(answers))], ROOTS, cap=40)["runs"]
    assert len(shown["items"]) == 40
    _, label, prediction, *numbers, votes = shown["items"][row]
    assert (label, prediction) == (arrays["label"], arrays["probabilities"].argmax())
    expected = [arrays["probabilities"].max(), arrays["uncertainty"], arrays["conflict"]]
    assert numbers == pytest.approx(expected, rel=1e-3)
    assert [vote for vote, _ in votes] == arrays["template_probabilities"].argmax(-1).tolist()


def test_classes_have_their_accuracy_and_their_mistakes():
    matrix = np.array([[8, 2, 0], [1, 1, 0], [0, 0, 5]])
    rows = class_table(["a", "b", "c"], matrix).rows
    assert [[cell.text for cell in row] for row in rows] == [
        ["a", "10", "80.0", "80", "20", ""],
        ["b", "2", "50.0", "50", "50", ""],
        ["c", "5", "100.0", "", "", "100"],
    ]
    many = np.diag(np.arange(30))
    many[7, 3] = 2
    rows = class_table([f"c{k}" for k in range(30)], many).rows
    assert len(rows) == 29  # no image of the first
    assert [cell.text for cell in rows[6]] == ["c7", "9", "77.8", "c3", "2"]


def test_methods_of_one_accuracy_are_level(tmp_path, write_one):
    for trainer in ("CDC", "CoOp"):
        write_one(tmp_path, trainer, trainer=trainer, seed=1)
    ((_, text),) = answers(Study.read(tmp_path))
    assert "level with CoOp" in text and "points above" not in text


def test_the_answer_names_the_leader_its_interval_and_what_is_not_significant(tmp_path, write_one):
    for trainer in ("CDC", "CoOp"):
        for seed in (1, 2):
            training = {"seconds": 60.0, "peak_memory_mb": 1000.0}
            few = {"trainer": trainer, "seed": seed, "training": training}
            write_one(tmp_path, f"{trainer}/{seed}", n=40 if trainer == "CDC" else 50, **few)
    study = Study.read(tmp_path)
    accuracies = {"CDC": [], "CoOp": []}
    for run in study.runs:
        accuracies[run.method].append(run.result.metrics["accuracy"])
    best, other = sorted(accuracies, key=lambda name: -np.mean(accuracies[name]))
    a, b = np.mean(accuracies[best]), np.mean(accuracies[other])
    half = 12.7062 * np.std(accuracies[best], ddof=1) / np.sqrt(2)  # t with one degree of freedom
    ((protocol, text),) = answers(study)
    assert protocol == "fewshot"
    lead = f"{best} leads with an average accuracy: {a:.1f} (95 % interval ± {half:.1f})"
    assert f"2 methods on Set, seeds 1 and 2. {lead}, {a - b:.1f} points above {other}." in text
    assert "none can be: with 2 pairs, p is at least 0.5 before the correction" in text
    assert "The 4 trainings took 4 min" in text
    assert [row[0].text for row in methods_table(study).rows] == ["CDC", "CoOp"]
    (plot,) = cost_figures(study)
    assert [curve.name for curve in plot.data[0][0].curves if curve.name] in (
        ["1: CDC", "2: CoOp"],
        ["1: CoOp", "2: CDC"],  # as long as each other: the less accurate first
    )


def test_a_method_without_a_seed_in_common_is_in_no_comparison(tmp_path, write_one):
    shots = {"CDC": 90.0, "Other": 70.0, "CoOp": 50.0}  # Other has other seeds than CDC
    for method, accuracy in shots.items():
        for seed in range(11, 19) if method == "Other" else range(1, 9):
            metrics = {"metrics": {"accuracy": accuracy + 0.1 * (seed % 8)}}
            write_one(tmp_path, f"{method}/{seed}", trainer=method, seed=seed, **metrics)
    ((_, text),) = answers(Study.read(tmp_path))
    assert "The lead over CoOp is significant (" in text and "lead over Other" not in text


def test_the_grid_of_each_head_is_a_table(tmp_path, write_one):
    details = {"heads": {"zeroshot": HEAD, "linear_probe": HEAD}}
    write_one(tmp_path, "run", trainer="CLIP_ICM", details=details)
    study = Study.read(tmp_path)
    titles = [table.title for table in run_view(study, study.runs[0], None)["tables"]]
    assert sum("accuracy on the held-out sources" in title for title in titles) == 2


def test_readings_are_folded_below_their_method_and_are_never_the_best(tmp_path, write_one):
    for trainer in ("CDC", "CoOp"):
        write_one(tmp_path, trainer, trainer=trainer, variants={"plain": {"accuracy": 99.9}})
    (table,) = next(iter(protocol_views(Study.read(tmp_path))))["tables"]
    assert [row[0].text for row in table.rows] == ["CDC", "CoOp"]
    assert any(cell.best for row in table.rows for cell in row)
    (plain,) = table.readings["CDC"]
    assert [plain[0].text, plain[2].text, plain[2].best] == ["CDC, plain", "99.9", False]


def test_an_average_over_data_sets_has_readings_too(tmp_path, write_one):
    for data in ("A", "B"):
        for half in ("base", "new"):
            pair = {"dataset": data, "subsample_classes": half, "protocol": "base2new"}
            write_one(tmp_path, f"{data}/{half}", **pair)
    *_, average = next(iter(protocol_views(Study.read(tmp_path))))["tables"]
    assert [average.columns[0], average.rows[0][0].text] == ["method", "CDC"]
    assert [row[0].text for row in average.readings["CDC"]] == ["CDC, plain"]


def test_thirty_three_runs_with_ten_thousand_images_stay_below_20_mb(tmp_path, write_one):
    names = [f"class {k}" for k in range(10)]
    training = {"curve": {"epoch": [], "loss": [], "accuracy": []}}
    write_one(tmp_path, "one", n=10_000, templates=4, names=names, training=training)
    study = Study.read(tmp_path)
    (run,) = study.runs
    answers = run.answers()
    drawn = len(str(run_view(study, run, answers)["drawings"]))
    shown = gallery([(run, gallery_rows(answers))] * 33, ROOTS, cap=300)
    pictures = 300 * 4 * 96 * 96 / 3  # no JPEG of this size and quality is that large
    assert 33 * (drawn + 20_000) + len(script_json(shown)) + pictures < 20e6


# Watching


def test_the_best_so_far_is_that_of_each_table(study):
    lines = command.best_so_far(study).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Base-to-novel: Set, 16 shots: best so far CDC")


def test_a_watch_draws_only_what_is_new_and_ends_without_refresh(
    tmp_path, write_one, monkeypatch, capsys
):
    for name, seed in (("one", 1), ("two", 2)):
        write_one(tmp_path, name, seed=seed)
    naps, drawn = iter(range(6)), []

    def sleep(seconds):
        if next(naps) == 2:
            write_one(tmp_path, "two", seed=2, n=50)
            write_one(tmp_path, "three", seed=3)
        elif next(naps, None) is None:
            raise KeyboardInterrupt

    def draw(study, run, answers):
        drawn.append(run.folder.name)
        return run_view(study, run, answers)

    monkeypatch.setattr(command.time, "sleep", sleep)
    monkeypatch.setattr(command, "run_view", draw)
    assert command.main([str(tmp_path), "--watch", "5"]) == 0
    printed = capsys.readouterr().out
    assert "2 results" in printed
    assert "3 results" in printed
    assert drawn == ["one", "two", "two", "three"]
    assert 'data-refresh="0"' in (tmp_path / "report.html").read_text()


def test_a_watch_outlives_a_result_that_is_cut(tmp_path, write_one, monkeypatch, capsys):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "results.json").write_text('{"metrics": ')
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 2:
            write_one(tmp_path, "one", seed=1)
        elif len(naps) > 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", sleep)
    assert command.main([str(tmp_path), "--watch", "5"]) == 0
    out, err = capsys.readouterr()
    assert "not written: no finished runs below" in err
    assert "1 results" in out


def test_own_data_are_shown_with_their_place_once(study):
    own = {"DATASET": {"TITLE": "pets", "ROOT": "/my", "TABLE": "pets.csv", "PATH": ""}}
    runs = [replace(run, result=replace(run.result, config=own)) for run in study.runs]
    assert runs_table(study).note == ""
    assert runs_table(replace(study, runs=runs)).note == "pets: /my/pets.csv"
